"""Writing a bundle: whole or not at all."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from prefrm.bundle.loading import check_targets
from prefrm.bundle.merging import standalone
from prefrm.errors import BundleError
from prefrm.files import write_folder_whole
from prefrm.hub import HubRepository, in_hub_cache
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.dual import DualJudge
from prefrm.manifest import (
    MANIFEST,
    CalibrationRecord,
    FileRecord,
    ImportRecord,
    Manifest,
    check_outside_bundles,
    check_path,
    hash_files,
    inspect_bundle,
    naming,
    push_bundle,
    read_manifest,
    unlisted_files,
    verify_files,
)
from prefrm.manifest.folder import HOST_PATHS
from prefrm.quiet import quiet
from prefrm.winmatrix import TrainingInputs

__all__ = ["amend_bundle", "check_replaceable", "push_judge", "write_bundle", "write_dual_bundle"]

CARD = "README.md"
PLOTS = "plots"
NO_PLOTS: Mapping[str, bytes] = {}
PLAIN_CARD = "# A preference judge\n\nSays which of two images answers a prompt better. Made with prefrm.\n"


def write_bundle(
    folder: Path | str,
    judge: Judge,
    *,
    calibration: CalibrationRecord | None,
    data_fingerprint: str,
    metrics: Mapping[str, Any],
    card: str,
    plots: Mapping[str, bytes] = NO_PLOTS,
    origin: ImportRecord | None = None,
    training_inputs: TrainingInputs | None = None,
) -> Manifest:
    """Write `judge` as a bundle, whole or not at all; an earlier bundle in `folder` is replaced.

    If that is a clone of a Hub repository, its Git repository and its `.gitattributes` stay.

    A PEFT adapter is written alone, and loading then needs the same base model. A judge without an adapter is
    written whole, in its own dtype; `standalone` makes one of a judge with an adapter.

    Args:
        metrics: held-out metrics, finite numbers and text in dicts and lists.
        card: the text of `README.md`.
        plots: encoded pictures by file name; the card finds them in `plots/`.
        origin: what was imported; None if prefrm trained the judge.
        training_inputs: what the groups of the training data had; None if that is not known.

    Raises:
        BundleError: `folder` holds something other than a bundle or is inside one, `metrics` are not JSON, a
            plot is not a picture, or an adapter was trained on a merged bundle and not on its base model.
    """
    target = Path(folder)
    check_replaceable(target)
    adapted = isinstance(judge.backbone, PeftModel)
    if isinstance(judge.backbone, PeftModel):
        check_targets(judge.backbone.active_peft_config, judge.model)
    if adapted and judge.base.trained:
        raise BundleError(
            "this adapter was trained on the weights of a bundle, which are no base model that loading could "
            "find again; write standalone(judge)"
        )
    judge = judge if adapted else standalone(judge)
    plain = _plain(metrics)

    def write_parts(partial: Path) -> None:
        _write_weights(judge, partial)
        _write_card(partial, card, plots)

    def describe(files: Mapping[str, FileRecord]) -> Manifest:
        return Manifest(
            spec=_found_from_anywhere(judge.spec) if adapted else judge.spec,
            template=judge.processor.template,
            rendered=judge.processor.rendered,
            weights="adapter" if adapted else "model",
            base_revision=judge.base.revision,
            base_sha256=judge.base.weights_sha256,
            calibration=calibration,
            data_fingerprint=data_fingerprint,
            metrics=plain,
            versions=_versions(quantized=judge.spec.quantize is not None),
            files=files,
            origin=origin,
            training_inputs=training_inputs,
        )

    return _write_whole(target, write_parts, describe)


def write_dual_bundle(
    folder: Path | str,
    judge: DualJudge,
    *,
    calibration: CalibrationRecord | None = None,
    card: str,
    origin: ImportRecord | None = None,
) -> Manifest:
    """Write a dual encoder as a bundle, as `write_bundle` does, in the type of its weights.

    Raises:
        BundleError: `folder` holds something other than a bundle or is inside one.
    """
    target = Path(folder)
    check_replaceable(target)

    def write_parts(partial: Path) -> None:
        _write_dual_weights(judge, partial)
        _write_card(partial, card, NO_PLOTS)

    def describe(files: Mapping[str, FileRecord]) -> Manifest:
        return Manifest(
            spec=judge.spec,
            template=None,
            rendered=None,
            weights="model",
            base_revision=None,
            base_sha256=judge.weights_sha256,
            calibration=calibration,
            data_fingerprint="",
            metrics={},
            versions=_versions(quantized=False),
            files=files,
            origin=origin,
        )

    return _write_whole(target, write_parts, describe)


def _write_whole(
    target: Path,
    write_parts: Callable[[Path], None],
    describe: Callable[[Mapping[str, FileRecord]], Manifest],
) -> Manifest:
    with quiet(), write_folder_whole(target) as partial:
        write_parts(partial)
        manifest = describe(hash_files(partial))
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        inspect_bundle(partial)
        _keep_added(target, partial)
    return manifest


def amend_bundle(
    folder: Path | str,
    *,
    calibration: CalibrationRecord | None,
    metrics: Mapping[str, Any],
    card: str,
    plots: Mapping[str, bytes] = NO_PLOTS,
    out: Path | str | None = None,
) -> Manifest:
    """Replace what a bundle says of itself; its weights stay. Whole or not at all, as `write_bundle`.

    Args:
        out: where the amended bundle is written, and `folder` left as it is; None is `folder`.

    Raises:
        BundleError: `folder` holds no intact bundle, `metrics` are no JSON, or a plot is no picture; the
            target is in the Hub's cache, or holds something other than a bundle.
    """
    source = Path(folder)
    target = source if out is None else Path(out)
    if out is None:
        _refuse_cache(target)
    else:
        check_replaceable(target)
    before = read_manifest(source)
    verify_files(source, before)
    plain = _plain(metrics)
    with write_folder_whole(target) as partial:
        for path in before.files:
            if path != CARD and not path.startswith(f"{PLOTS}/"):
                (_link if out is None else _copy)(source / path, partial / path)
        _write_card(partial, card, plots)
        manifest = replace(before, calibration=calibration, metrics=plain, files=hash_files(partial))
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _keep_added(target, partial)
    return manifest


def push_judge(
    judge: Judge,
    name: str,
    *,
    calibration: CalibrationRecord | None = None,
    data_fingerprint: str = "",
    metrics: Mapping[str, Any] | None = None,
    card: str = PLAIN_CARD,
    private: bool = False,
) -> HubRepository:
    """Upload a judge as a bundle that records what is given here, as in `write_bundle`, and nothing else.

    `push_bundle` uploads a bundle with everything that it records already.

    Raises:
        BundleError: as `write_bundle` and `push_bundle`.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(
            bundle,
            judge,
            calibration=calibration,
            data_fingerprint=data_fingerprint,
            metrics=metrics or {},
            card=card,
        )
        return push_bundle(bundle, name, private=private)


def _refuse_cache(target: Path) -> None:
    if in_hub_cache(target):
        raise BundleError(
            f"{target} is in the cache of the Hub, which must not change; choose another folder"
        )


def check_replaceable(target: Path) -> None:
    """Raise `BundleError` if a bundle there would replace other files or be inside another bundle."""
    _refuse_cache(target)
    check_outside_bundles(target)
    if not target.exists():
        return
    try:
        foreign = unlisted_files(target, read_manifest(target))
    except BundleError as error:
        raise BundleError(f"{target} exists and is no bundle; choose another folder or remove it") from error
    if foreign:
        raise BundleError(
            f"{target} holds {foreign[0]}, which is not part of the bundle there and would be lost; "
            "choose another folder or move the file"
        )


def _found_from_anywhere(spec: JudgeSpec) -> JudgeSpec:
    """The specification with a base model's folder as an absolute path."""
    folder = Path(spec.base_model)
    return replace(spec, base_model=str(folder.absolute())) if folder.is_dir() else spec


def _write_weights(judge: Judge, folder: Path) -> None:
    backbone: Any = judge.backbone
    if isinstance(backbone, PeftModel):
        # Adapters touch no embeddings, so PEFT need not ask the hub whether the vocabulary changed.
        backbone.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    else:
        backbone.save_pretrained(folder / "model")
    judge.processor.save(folder / "processor")
    _save_weights(judge.head, folder / "head.safetensors")


def _write_dual_weights(judge: DualJudge, folder: Path) -> None:
    (folder / "model").mkdir()
    _save_weights(judge.model, folder / "model" / "model.safetensors")
    judge.model.config.to_json_file(folder / "model" / "config.json", use_diff=False)
    if judge.tokenizer is not None:
        judge.tokenizer.save(folder / "processor")
    if judge.head is not None:
        _save_weights(judge.head, folder / "head.safetensors")


def _save_weights(module: nn.Module, path: Path) -> None:
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, path
    )


def _write_card(folder: Path, card: str, plots: Mapping[str, bytes]) -> None:
    (folder / CARD).write_text(card, encoding="utf-8")
    for name, data in plots.items():
        path = f"{PLOTS}/{name}"
        with naming(folder):
            check_path(path)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _keep_added(old: Path, new: Path) -> None:
    """Take over what belongs to the Hub's clone that a bundle lies in, above all its Git repository."""
    for name in HOST_PATHS:
        if (old / name).is_dir():
            shutil.copytree(old / name, new / name, symlinks=True, copy_function=_link)
        elif (old / name).is_file():
            _link(old / name, new / name)


def _link(source: Path | str, target: Path | str) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(metrics), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"the metrics cannot be written as JSON: {error}") from error
    return plain


def _versions(*, quantized: bool) -> dict[str, str]:
    packages = ["prefrm", "torch", "transformers", "peft"]
    if quantized:
        packages.append("bitsandbytes")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
