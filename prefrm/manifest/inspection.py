"""Whether a folder is a bundle that can be loaded; reads everything but the weights themselves."""

from pathlib import Path

from prefrm.errors import BundleError, ConfigError
from prefrm.files import read_regular
from prefrm.machine import GIBIBYTE, memory_bytes
from prefrm.manifest.contents import (
    DUAL_TYPES,
    check_adapter,
    check_checkpoint,
    check_processor,
    check_text_tokenizer,
)
from prefrm.manifest.dual import DualSpec
from prefrm.manifest.folder import MANIFEST, check_folder, check_hashes, list_files, naming
from prefrm.manifest.manifest import MOST_BYTES, Manifest

__all__ = ["check_outside_bundles", "inspect_bundle", "read_manifest", "unlisted_files", "verify_files"]

# Weights may be stored in a type of twice the size, and parts of them stay on the disk while they are loaded.
MOST_OF_MEMORY = 4


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest alone; the other files are not looked at. Raises `BundleError`."""
    with naming(folder):
        try:
            text = read_regular(Path(folder) / MANIFEST, MOST_BYTES).decode("utf-8")
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{folder} is not a bundle: {MANIFEST} cannot be read ({error})") from error
        return Manifest.from_json(text)


def inspect_bundle(folder: Path | str) -> Manifest:
    """The manifest of a bundle whose files are there and can be loaded, as far as that shows without weights.

    Files of weights are not hashed, and of them only the header is read; all other files are checked whole.

    Raises:
        BundleError: something is missing, altered, not listed, of a refused kind or out of range.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    with naming(root):
        check_folder(root, manifest.files)
        _check_memory(manifest)
        check_hashes(root, manifest.files, weights=False)
        _check_contents(root, manifest)
    return manifest


def _check_contents(root: Path, manifest: Manifest) -> None:
    """Raise `ConfigError` if a configuration cannot be loaded."""
    if isinstance(manifest.spec, DualSpec):
        if manifest.spec.text is not None:
            check_text_tokenizer(root / "processor" / "tokenizer.json")
        check_checkpoint(root / "model", DUAL_TYPES)
        return
    check_processor(root / "processor")
    if manifest.weights == "model":
        check_checkpoint(root / "model")
    else:
        check_adapter(root / "adapter")


def _check_memory(manifest: Manifest) -> None:
    """Raise `ConfigError` if the files could not be loaded here; reading them all would take minutes."""
    memory = memory_bytes()
    size = sum(record.bytes for record in manifest.files.values())
    if memory is not None and size > MOST_OF_MEMORY * memory:
        raise ConfigError(
            f"its files have {size / GIBIBYTE:.0f} GiB, and this machine has {memory / GIBIBYTE:.0f} GiB of "
            "memory; load it on a larger one"
        )


def verify_files(root: Path, manifest: Manifest) -> None:
    """Raise `BundleError` that names the first file that is missing, altered or not listed."""
    with naming(root):
        check_folder(root, manifest.files)
        check_hashes(root, manifest.files, weights=False)
        check_hashes(root, manifest.files, weights=True)


def unlisted_files(root: Path, manifest: Manifest) -> list[str]:
    """The files in the folder that are neither the bundle's nor added by a host or a system, sorted."""
    with naming(root):
        return sorted(list_files(root).keys() - manifest.files.keys())


def check_outside_bundles(folder: Path) -> None:
    """Raise `BundleError` if it would be inside a bundle, which nothing could load any more."""
    for parent in folder.resolve().parents:
        try:
            read_manifest(parent)
        except BundleError:
            continue
        raise BundleError(
            f"{folder} is inside the bundle {parent}, which would be refused with another file in it; "
            "name a folder outside"
        )
