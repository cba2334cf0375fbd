"""Writing a bundle: whole or not at all."""

import copy
import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file

from prefrm.bundle.manifest import MANIFEST, Calibration, Manifest, hash_files
from prefrm.errors import BundleError
from prefrm.judge import Judge

__all__ = ["write_bundle"]


def write_bundle(
    folder: Path | str,
    judge: Judge,
    *,
    calibration: Calibration | None,
    data_fingerprint: str,
    metrics: Mapping[str, Any],
    card: str,
    merge: bool = False,
) -> Manifest:
    """Write `judge` as a bundle, whole or not at all; an earlier bundle in `folder` is replaced.

    A PEFT adapter is written alone, and loading then needs the same base model; with `merge` it is
    merged into a copy of the backbone, and the bundle stands alone. A judge without an adapter is
    written whole. The judge itself is not changed.

    Args:
        metrics: held-out metrics, finite numbers and text in dicts and lists.
        card: the text of `README.md`.

    Raises:
        BundleError: `folder` holds something that is no bundle, or `metrics` are no JSON.
    """
    target = Path(folder)
    if target.exists() and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} exists and is no bundle; choose another folder or remove it")
    plain = _plain(metrics)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = Manifest(
            spec=judge.spec,
            template=judge.processor.template,
            weights=_write_parts(judge, partial, merge=merge, card=card),
            base_revision=judge.base.revision,
            base_sha256=judge.base.weights_sha256,
            calibration=calibration,
            data_fingerprint=data_fingerprint,
            metrics=plain,
            versions=_versions(),
            files=hash_files(partial),
        )
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write_parts(judge: Judge, folder: Path, *, merge: bool, card: str) -> str:
    adapted = isinstance(judge.backbone, PeftModel)
    backbone: Any = judge.backbone
    if adapted and not merge:
        # Adapters touch no embeddings, so PEFT need not ask the hub whether the vocabulary changed.
        backbone.save_pretrained(folder / "adapter", save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    else:
        whole = copy.deepcopy(backbone).merge_and_unload() if adapted else backbone
        whole.save_pretrained(folder / "model")
    judge.processor.save(folder / "processor")
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in judge.head.state_dict().items()}
    save_file(head, folder / "head.safetensors")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return "adapter" if adapted and not merge else "model"


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(metrics), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"the metrics cannot be written as JSON: {error}") from error
    return plain


def _move(partial: Path, target: Path) -> None:
    # A folder cannot replace a folder in one step: the old one steps aside first.
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _versions() -> dict[str, str]:
    packages = ("prefrm", "torch", "transformers", "peft")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
