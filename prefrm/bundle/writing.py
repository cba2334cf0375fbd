"""Writing a bundle: whole or not at all."""

import copy
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file

from prefrm.bundle.manifest import (
    MANIFEST,
    Calibration,
    Manifest,
    check_outside_bundles,
    check_path,
    hash_files,
    read_manifest,
    unlisted_files,
    verify_files,
)
from prefrm.errors import BundleError
from prefrm.files import write_folder_whole
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.quantization import dequantize, is_quantized
from prefrm.quiet import quiet

__all__ = ["amend_bundle", "write_bundle"]

CARD = "README.md"
PLOTS = "plots"
NO_PLOTS: Mapping[str, bytes] = {}


def write_bundle(
    folder: Path | str,
    judge: Judge,
    *,
    calibration: Calibration | None,
    data_fingerprint: str,
    metrics: Mapping[str, Any],
    card: str,
    plots: Mapping[str, bytes] = NO_PLOTS,
    merge: bool = False,
) -> Manifest:
    """Write `judge` as a bundle, whole or not at all; an earlier bundle in `folder` is replaced.

    A PEFT adapter is written alone, and loading then needs the same base model; with `merge` it is
    merged into a copy of the backbone, and the bundle stands alone. A judge without an adapter is
    written whole. What is whole is never quantized. The judge itself is not changed.

    Args:
        metrics: held-out metrics, finite numbers and text in dicts and lists.
        card: the text of `README.md`.
        plots: encoded pictures by file name; the card finds them in `plots/`.

    Raises:
        BundleError: `folder` holds something that is no bundle or is inside one, `metrics` are no JSON, a
            plot is no picture, or an adapter without `merge` was trained on a merged bundle and not on its
            base model.
    """
    target = Path(folder)
    _check_replaceable(target)
    merge = merge or not isinstance(judge.backbone, PeftModel)
    if not merge and judge.base.trained:
        raise BundleError(
            "this adapter was trained on the weights of a bundle, which are no base model that loading could "
            "find again; pass merge=True"
        )
    plain = _plain(metrics)
    with quiet(), write_folder_whole(target) as partial:
        _write_weights(judge, partial, merge=merge)
        _write_card(partial, card, plots)
        manifest = Manifest(
            spec=replace(judge.spec, quantize=None) if merge else _found_from_anywhere(judge.spec),
            template=judge.processor.template,
            stride=judge.processor.stride,
            weights="model" if merge else "adapter",
            base_revision=judge.base.revision,
            base_sha256=judge.base.weights_sha256,
            calibration=calibration,
            data_fingerprint=data_fingerprint,
            metrics=plain,
            versions=_versions(quantized=not merge and judge.spec.quantize is not None),
            files=hash_files(partial),
        )
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def amend_bundle(
    folder: Path | str,
    *,
    calibration: Calibration | None,
    metrics: Mapping[str, Any],
    card: str,
    plots: Mapping[str, bytes] = NO_PLOTS,
) -> Manifest:
    """Replace what a bundle says of itself; its weights stay. Whole or not at all, as `write_bundle`.

    Raises:
        BundleError: `folder` holds no intact bundle, `metrics` are no JSON, or a plot is no picture.
    """
    target = Path(folder)
    before = read_manifest(target)
    verify_files(target, before)
    plain = _plain(metrics)
    with write_folder_whole(target) as partial:
        for path in before.files:
            if path != CARD and not path.startswith(f"{PLOTS}/"):
                _link(target / path, partial / path)
        _write_card(partial, card, plots)
        manifest = replace(before, calibration=calibration, metrics=plain, files=hash_files(partial))
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _check_replaceable(target: Path) -> None:
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


def _write_weights(judge: Judge, folder: Path, *, merge: bool) -> None:
    if merge:
        _whole(judge).save_pretrained(folder / "model")
    else:
        # Adapters touch no embeddings, so PEFT need not ask the hub whether the vocabulary changed.
        adapted: Any = judge.backbone
        adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    judge.processor.save(folder / "processor")
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in judge.head.state_dict().items()}
    save_file(head, folder / "head.safetensors")


def _whole(judge: Judge) -> Any:
    """The backbone as a plain `transformers` model in the judge's dtype, the adapter merged into it."""
    backbone: Any = judge.backbone
    adapted = isinstance(backbone, PeftModel)
    if is_quantized(judge.model):
        # On the CPU: what fits an accelerator in four bits need not fit there in sixteen.
        copied = copy.deepcopy(backbone).to("cpu")
        return _plain_base(copied).merge_and_unload() if adapted else dequantize(copied)
    return copy.deepcopy(backbone).merge_and_unload() if adapted else backbone


def _plain_base(adapted: Any) -> Any:
    """The same adapter on the dequantized base; PEFT would quantize again what it merges.

    Takes `adapted` apart.
    """
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    plain = PeftModel(dequantize(adapted.unload()), adapted.active_peft_config)
    set_peft_model_state_dict(plain, weights)
    return plain


def _write_card(folder: Path, card: str, plots: Mapping[str, bytes]) -> None:
    (folder / CARD).write_text(card, encoding="utf-8")
    for name, data in plots.items():
        path = f"{PLOTS}/{name}"
        check_path(path)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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
