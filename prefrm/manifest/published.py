"""Bundles on the Hub: where one lies after its download, and how one is uploaded. Needs no torch."""

from dataclasses import replace
from pathlib import Path

from prefrm.errors import BundleError
from prefrm.hub import HubRepository, is_hub
from prefrm.manifest.folder import MANIFEST
from prefrm.manifest.inspection import inspect_bundle, read_manifest, verify_files

__all__ = ["bundle_folder", "push_bundle"]

# As in `prefrm.judge.backbones`: a checkpoint that an installed package has.
SHIPPED = "shipped:"


def bundle_folder(target: Path | str) -> Path:
    """The folder of a bundle: `target` itself, or that of `hf://org/name[@revision]` in the Hub's cache.

    Only the files that the manifest lists are downloaded, whatever else the repository has, and all of one
    commit. They are not checked here; whatever loads the bundle does that.

    Raises:
        BundleError: the Hub has no such bundle or cannot be reached, or its manifest is malformed.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    if not is_hub(target):
        return Path(target)
    repository = HubRepository.parse(target, "model")
    folder = repository.file(MANIFEST, absent="it is not a bundle of prefrm").parent
    # Of the same commit, should the branch move.
    commit = replace(repository, revision=folder.name)
    return commit.download([MANIFEST, *read_manifest(folder).files])


def push_bundle(
    folder: Path | str, name: str, *, private: bool = False, message: str = "Upload a judge"
) -> HubRepository:
    """Upload a bundle as it is, after every file is checked; a bundle that the branch held is replaced.

    Args:
        name: `org/name`, or `org/name@branch`.
        private: whether only its owners may see it.
        message: of the commit.

    Returns:
        The repository at the new commit.

    Raises:
        BundleError: it is not an intact bundle, its adapter needs a folder of this machine, the Hub refuses
            the upload, or the repository holds something else.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    root, repository = Path(folder), HubRepository.parse(name, "model")
    manifest = inspect_bundle(root)
    base = manifest.spec.base_model
    if manifest.weights == "adapter" and manifest.base_revision is None and not base.startswith(SHIPPED):
        raise BundleError(
            f"{root}: its adapter needs the base model in the folder {base}, which others do not have; "
            f"push a merged bundle: prefrm export {root} --to merged"
        )
    verify_files(root, manifest)
    files = {path: root / path for path in (MANIFEST, *manifest.files)}
    return repository.upload(files, mark=MANIFEST, message=message, private=private)
