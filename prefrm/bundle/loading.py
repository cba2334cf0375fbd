"""Loading a bundle: every file is checked before any is loaded, and every failure is one line."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from PIL import Image

from prefrm.errors import BundleError, ConfigError
from prefrm.judge import Judge, JudgeProcessor, build_head
from prefrm.judge.backbones import SHIPPED, BaseModel, family_of, find_base, load_backbone
from prefrm.judge.dual import DualJudge, TextTokenizer, head_width, read_affine, read_towers
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.judge.weights import load_weights, read_weights_like
from prefrm.manifest import (
    DualSpec,
    JudgeSpec,
    Manifest,
    bundle_folder,
    inspect_bundle,
    naming,
    verify_files,
)
from prefrm.quiet import quiet
from prefrm.winmatrix import TrainingCheck

__all__ = ["Bundle", "DualBundle", "check_targets", "load_bundle", "load_dual_bundle"]

# Pixels along a side of the images with which a processor is tried.
TRIED_SIDE = 64
# The second is cut off.
TRIED_PROMPTS = ("a red cube", "a red cube " * 2**10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle: the judge in evaluation mode, and what its manifest says."""

    judge: Judge
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DualBundle:
    """A loaded bundle of a dual encoder, and what its manifest says."""

    judge: DualJudge
    manifest: Manifest


def load_bundle(
    folder: Path | str, device: torch.device | str = "auto", dtype: torch.dtype | str = "auto"
) -> Bundle:
    """Check every file of a bundle against its manifest, then load the judge.

    Args:
        folder: of the bundle, or `hf://org/name[@revision]`.
        device: as in `Judge.from_base`.
        dtype: as in `Judge.from_base`.

    Raises:
        BundleError: a file is missing, altered, not listed or of a refused kind, a weight is missing, of
            another shape or unexpected, the base model of an adapter is absent or has other weights, the
            Hub has no such bundle, or it holds a dual encoder.
        ConfigError: the device is not there, or `dtype` is none.
        MissingExtraError: its base model is quantized and bitsandbytes is not installed.
    """
    root = bundle_folder(folder)
    manifest = inspect_bundle(root)
    spec = manifest.spec
    if isinstance(spec, DualSpec):
        raise BundleError(
            f"{root} holds a dual encoder, which cannot be used here; take a judge on a backbone"
        )
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    verify_files(root, manifest)
    with naming(root), quiet():
        return Bundle(judge=_load(root, manifest, spec, dtype).to(device).eval(), manifest=manifest)


def load_dual_bundle(
    folder: Path | str, device: torch.device | str = "auto", dtype: torch.dtype | str = "auto"
) -> DualBundle:
    """Check every file of a bundle against its manifest, then load the dual encoder.

    Arguments and errors are those of `load_bundle`; a `BundleError` if it holds a judge on a backbone. The
    dtype "auto" is float32 on every device: exp(logit_scale), often 100, multiplies what bfloat16 rounds.
    """
    root = bundle_folder(folder)
    manifest = inspect_bundle(root)
    spec = manifest.spec
    if isinstance(spec, JudgeSpec):
        raise BundleError(f"{root} holds a {spec.head} judge, which is not a dual encoder")
    device = resolve_device(device)
    dtype = resolve_dtype(torch.float32 if dtype == "auto" else dtype, device)
    verify_files(root, manifest)
    with naming(root), quiet():
        return DualBundle(judge=_load_dual(root, manifest, spec, dtype).to(device).eval(), manifest=manifest)


def _load_dual(root: Path, manifest: Manifest, spec: DualSpec, dtype: torch.dtype) -> DualJudge:
    towers = read_towers(root / "model", spec.score)
    head = None
    if spec.score != "similarity":
        head = read_affine(root / "head.safetensors", head_width(towers.config))
    tokenizer = None if spec.text is None else TextTokenizer.load(root / "processor", spec.text)
    judge = DualJudge(towers, head, tokenizer, spec, manifest.base_sha256)
    judge.model.to(dtype)
    with torch.inference_mode():
        features = judge.encode_images(torch.zeros(1, 3, spec.image.side, spec.image.side))
        for prompt in TRIED_PROMPTS:
            judge.utilities(features, judge.encode_text(prompt))
    return judge


def _load(root: Path, manifest: Manifest, spec: JudgeSpec, dtype: torch.dtype) -> Judge:
    base = _find_weights(root, manifest, spec)
    # Whole weights have rows for all tokens.
    tokens = spec.readouts if manifest.weights == "adapter" else ()
    backbone = load_backbone(base.folder, dtype=dtype, quantize=spec.quantize, tokens=tokens)
    assert manifest.template is not None
    trained = manifest.training_inputs
    check = None if trained is None else TrainingCheck(trained, manifest.short_digest)
    processor = JudgeProcessor.load(
        root / "processor", backbone.config, spec, manifest.template, manifest.rendered, check
    )
    _try(processor)
    # Without memory for its weights, of which there are as many as the specification says.
    with torch.device("meta"):
        head = build_head(spec, backbone.get_output_embeddings().in_features, manifest.template)
    load_weights(head, root / "head.safetensors")
    if manifest.weights == "adapter":
        backbone = _adapted(backbone, root / "adapter")
    return Judge(backbone, head, processor, spec, base)


def _try(processor: JudgeProcessor) -> None:
    """Raise if a comparison of two small candidates cannot be prepared or is longer than the model reads."""
    images = [Image.new("RGB", (TRIED_SIDE, TRIED_SIDE))] * 2
    tree = processor.trial_tree("a red cube", images)
    if not tree.readable([(0, 1)]):
        raise ConfigError(tree.refused[0, 1])


def _adapted(backbone: Any, folder: Path) -> PeftModel:
    """The backbone with the adapter in `folder`; raises `ConfigError` if its weights are not all there."""
    config = PeftConfig.from_pretrained(str(folder))
    check_targets(config, backbone)
    config.inference_mode = True
    # First on the meta device: it has the rank that the configuration says, whatever the file holds.
    described = PeftModel(backbone, config, low_cpu_mem_usage=True)
    expected = get_peft_model_state_dict(described, save_embedding_layers=False)
    weights = read_weights_like(folder / SAFETENSORS_WEIGHTS_NAME, expected)
    # PEFT would round to the base's type what it moves from the meta device.
    adapted = PeftModel(described.unload(), config)
    set_peft_model_state_dict(adapted, weights)
    return adapted


def check_targets(config: Any, backbone: Any) -> None:
    """Raise `ConfigError` if an adapter names its layers by a regular expression of somebody else.

    Matching one can take for ever.
    """
    if (
        isinstance(config.target_modules, str)
        and config.target_modules != family_of(backbone.config).lora_targets
    ):
        raise ConfigError(
            f"the adapter names its layers by the regular expression {config.target_modules!r}; name them by "
            "the family's own (`judge.family.lora_targets`) or by a list of names"
        )


def _find_weights(root: Path, manifest: Manifest, spec: JudgeSpec) -> BaseModel:
    if manifest.weights == "model":
        return BaseModel(
            folder=root / "model",
            revision=manifest.base_revision,
            weights_sha256=manifest.base_sha256,
            trained=True,
        )
    name = spec.base_model
    is_local = manifest.base_revision is None and not name.startswith(SHIPPED)
    if is_local and not Path(name).is_dir():
        # Trained on a folder: a hub's model of the same name would be another model.
        raise BundleError(f"its adapter needs the base model in the folder {name}, which is not there")
    base = find_base(replace(spec, revision=manifest.base_revision))
    if base.weights_sha256 != manifest.base_sha256:
        raise BundleError(
            f"the base model {name} has weights {base.weights_sha256[:12]}; "
            f"the adapter was trained on {manifest.base_sha256[:12]}"
        )
    return base
