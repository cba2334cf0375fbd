"""Loading a bundle: every file is checked before any is read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME

from prefrm.bundle.manifest import Manifest, read_manifest, verify_files
from prefrm.errors import BundleError, ConfigError
from prefrm.judge import Judge, JudgeProcessor, build_head
from prefrm.judge.backbones import SHIPPED, BaseModel, find_base, load_backbone
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.judge.weights import check_weights, load_weights, read_weights
from prefrm.quiet import quiet

__all__ = ["Bundle", "load_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle: the judge in evaluation mode, and what its manifest says."""

    judge: Judge
    manifest: Manifest


def load_bundle(
    folder: Path | str, device: torch.device | str = "auto", dtype: torch.dtype | str = "auto"
) -> Bundle:
    """Check every file of a bundle against its manifest, then load the judge.

    Args:
        device: as in `Judge.from_base`.
        dtype: as in `Judge.from_base`.

    Raises:
        BundleError: a file is missing, altered, not listed or of a refused kind, a weight is missing, of
            another shape or unexpected, or the base model of an adapter is absent or has other weights.
        ConfigError: the device is not there, or `dtype` is none.
        MissingExtraError: its base model is quantized and bitsandbytes is not installed.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    verify_files(root, manifest)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    try:
        base = _find_weights(root, manifest)
        with quiet():
            backbone = load_backbone(base.folder, dtype=dtype, quantize=manifest.spec.quantize)
            processor = JudgeProcessor.load(
                root / "processor", backbone.config, manifest.spec, manifest.template, manifest.stride
            )
            head = build_head(manifest.spec, backbone.get_output_embeddings().in_features)
            if manifest.weights == "adapter":
                backbone = _adapted(backbone, root / "adapter")
        load_weights(head, root / "head.safetensors")
    except (ConfigError, OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"{root}: {error}") from error
    judge = Judge(backbone, head, processor, manifest.spec, base).to(device).eval()
    return Bundle(judge=judge, manifest=manifest)


def _adapted(backbone: Any, folder: Path) -> PeftModel:
    """The backbone with the adapter in `folder`; raises `ConfigError` if its weights are not all there."""
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    adapted = PeftModel(backbone, config)
    weights = read_weights(folder / SAFETENSORS_WEIGHTS_NAME)
    check_weights(folder, weights, get_peft_model_state_dict(adapted, save_embedding_layers=False))
    set_peft_model_state_dict(adapted, weights)
    return adapted


def _find_weights(root: Path, manifest: Manifest) -> BaseModel:
    if manifest.weights == "model":
        return BaseModel(
            folder=root / "model",
            revision=manifest.base_revision,
            weights_sha256=manifest.base_sha256,
            trained=True,
        )
    name = manifest.spec.base_model
    is_local = manifest.base_revision is None and not name.startswith(SHIPPED)
    if is_local and not Path(name).is_dir():
        # Trained on a folder: a hub's model of the same name would be another model.
        raise BundleError(f"its adapter needs the base model in the folder {name}, which is not there")
    base = find_base(replace(manifest.spec, revision=manifest.base_revision))
    if base.weights_sha256 != manifest.base_sha256:
        raise BundleError(
            f"the base model {name} has weights {base.weights_sha256[:12]}; "
            f"the adapter was trained on {manifest.base_sha256[:12]}"
        )
    return base
