"""Builders of scalar judges on a vision-language backbone: a head beside the weights of a known family.

The source has the weights. The base has what goes with them: configuration, tokenizer, image processor and
chat template. Wordings of prompts are read from a file that a person names.

Shapes: Q readouts of a candidate, D hidden.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prefrm.errors import ConfigError
from prefrm.files import hash_file
from prefrm.imports.adapters import merge_lora
from prefrm.imports.backbones import HEAD, build_judge
from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.keys import drop, move, renamed
from prefrm.imports.reading import SAFETENSORS, Checkpoint, read_checkpoint
from prefrm.imports.sources import Source
from prefrm.imports.wordings import check_prompt_is_read, given_template
from prefrm.judge import JudgeSpec
from prefrm.manifest.contents import check_config, read_object
from prefrm.prompts import Template

__all__ = [
    "build_editreward_following",
    "build_editreward_quality",
    "build_hpsv3",
    "build_skywork_vl",
    "build_videoreward",
]

HPSV3_PIXELS = 256 * 28 * 28
"""Of every image that HPSv3 reads, whatever its own size: 256 tokens of a Qwen2-VL."""
HPSV3_TOKEN = "<|Reward|>"
HPSV3_WIDTHS = (1024, 16)
"""Of the hidden layers of its head."""
VIDEO_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
"""Visual quality, motion quality and text alignment, in the order of VideoReward's outputs."""
VIDEO_NAMES = ("model.pth", "model.safetensors", "checkpoint-11352/model.pth")
VIDEO_SETTINGS = "model_config.json"
VIDEO_PIXELS = (128 * 28 * 28, 256 * 28 * 28)
"""Least and most of a frame."""
TURN_END = "<|im_end|>\n"
"""After an assistant's turn, by the chat template of Qwen."""
BACKBONE = r"(?:visual|model|lm_head)\..+"
"""Weights of the families of Qwen: `transformers` reads the names of all its versions."""
QWEN2 = ("qwen2_vl",)
EDITREWARD_POSITIONS = {"qwen2_5_vl": "sequential", "qwen3_vl": "family"}
"""By the model type of its base."""


def build_hpsv3(request: ImportRequest) -> Imported:
    """HPSv3 (arXiv 2508.03789): mean and uncertainty of a utility, read at a token before the turn's end.

    Its code hands embeddings to the language model and no positions, so that these are sequential.
    """
    template = given_template(request, images=1, context=False)
    spec = _ranknet(request, request.published.uncertainty, "sequential")
    check_prompt_is_read(template, spec)
    check_config(request.base.folder, QWEN2)
    checkpoint = read_checkpoint(request.source, ("HPSv3.safetensors", *SAFETENSORS))
    rules = (move(r"rm_head\.(.+)", rf"{HEAD}layers.0.\1"), move(BACKBONE, r"\g<0>"))
    return _imported(checkpoint, spec, renamed(checkpoint, rules), template, request.base)


def build_editreward_following(request: ImportRequest) -> Imported:
    """The first head of EditReward, which says how well an edit follows its instruction."""
    return _editreward(request, "head_0", "head_1")


def build_editreward_quality(request: ImportRequest) -> Imported:
    """The second head of EditReward, which says how well an edited image looks."""
    return _editreward(request, "head_1", "head_0")


def _editreward(request: ImportRequest, taken: str, left: str) -> Imported:
    """EditReward (TIGER-Lab): HPSv3 with two heads, each asked in a conversation of its own.

    Its score is the mean of both heads' means. So the differences of scores are the mean of the log-odds of
    two judges, which an ensemble of them computes. On Qwen2.5-VL, and MiMo-VL, which is one, positions are
    sequential, as of HPSv3; on Qwen3-VL its code hands over the images' grids, so that they are M-RoPE's.
    """
    template = given_template(request, images=1, context=True)
    family = check_config(request.base.folder, tuple(EDITREWARD_POSITIONS))["model_type"]
    spec = _ranknet(request, "ignore", EDITREWARD_POSITIONS[family])
    check_prompt_is_read(template, spec)
    checkpoint = read_checkpoint(request.source, (*SAFETENSORS, "model.pth"))
    rules = (
        move(rf"rm_heads\.{taken}\.(.+)", rf"{HEAD}layers.0.\1"),
        drop(rf"rm_heads\.{left}\..+"),
        move(BACKBONE, r"\g<0>"),
    )
    return _imported(checkpoint, spec, renamed(checkpoint, rules), template, request.base)


def build_skywork_vl(request: ImportRequest) -> Imported:
    """Skywork-VL-Reward: a linear value head at the end of a conversation about an image.

    The template's answer prefix is the assistant's whole answer; its turn is closed here. The bias of the
    head cancels in every comparison and is left out.
    """
    template = given_template(request, images=1, context=False)
    if not template.answer_prefix or template.answers:
        raise ConfigError(
            f"{request.published.name} judges an answer about the image: its template needs one after "
            "{answer}, on the same line, and no others"
        )
    template = replace(template, answer_prefix=template.answer_prefix + TURN_END)
    parts = [
        read_checkpoint(request.source),
        read_checkpoint(request.source, ("value_head.safetensors",)),
    ]
    checkpoint = Checkpoint(
        name=request.source.name,
        tensors={name: tensor for part in parts for name, tensor in part.tensors.items()},
        sha256={name: sha256 for part in parts for name, sha256 in part.sha256.items()},
    )
    rules = (
        move(r"(?:.+\.)?summary\.weight", f"{HEAD}weight_D"),
        drop(r"(?:.+\.)?summary\.bias"),
        move(BACKBONE, r"\g<0>"),
    )
    weights = renamed(checkpoint, rules)
    # It is stored as a matrix of one row.
    weights |= {name: w.squeeze(0) for name, w in weights.items() if name.startswith(HEAD)}
    spec = JudgeSpec(base_model=request.published.name, head="scalar")
    return _imported(checkpoint, spec, weights, template, request.source)


def build_videoreward(request: ImportRequest) -> Imported:
    """VideoReward (VideoAlign, arXiv 2501.13918) of a still image, which is a video of two equal frames.

    Its overall score is the sum of three ratings, each divided by its standard deviation over the training
    videos; their means cancel in every comparison.
    """
    template = given_template(request, images=1, context=False)
    spec = JudgeSpec(
        base_model=request.published.name,
        head="scalar",
        readouts=VIDEO_TOKENS,
        positions="sequential",
        min_pixels=VIDEO_PIXELS[0],
        max_pixels=VIDEO_PIXELS[1],
    )
    check_prompt_is_read(template, spec)
    check_config(request.base.folder, QWEN2)
    checkpoint = read_checkpoint(request.source, VIDEO_NAMES)
    path, settings = _video_settings(request.source)
    rules = (
        move(r"base_model\.model\.rm_head\.weight", f"{HEAD}weight_D"),
        move(rf"base_model\.model\.({BACKBONE})", r"\1"),
    )
    weights = merge_lora(renamed(checkpoint, rules), settings["peft_lora_config"], checkpoint.name)
    deviations_Q = _deviations(settings["inference_config"])
    weights |= {
        name: _rows(w, checkpoint.name).float() / deviations_Q[:, None]
        for name, w in weights.items()
        if name.startswith(HEAD)
    }
    imported = _imported(checkpoint, spec, weights, template, request.base)
    return replace(imported, sha256={**imported.sha256, path.name: hash_file(path)})


def _ranknet(request: ImportRequest, uncertainty: str | None, positions: str) -> JudgeSpec:
    """HPSv3 and what follows it."""
    return JudgeSpec(
        base_model=request.published.name,
        head="scalar",
        mlp=HPSV3_WIDTHS,
        uncertainty=uncertainty,
        readouts=(HPSV3_TOKEN,),
        positions=positions,
        min_pixels=HPSV3_PIXELS,
        max_pixels=HPSV3_PIXELS,
    )


def _imported(
    checkpoint: Checkpoint,
    spec: JudgeSpec,
    weights: Mapping[str, torch.Tensor],
    template: Template,
    base: Source,
) -> Imported:
    return Imported(judge=build_judge(spec, template, checkpoint, weights, base), sha256=checkpoint.sha256)


def _video_settings(source: Source) -> tuple[Path, Mapping[str, Any]]:
    """VideoReward's `model_config.json`, which is in the folder of the weights or in that around it."""
    path = source.folder / VIDEO_SETTINGS
    if not path.exists():
        path = source.folder.parent / VIDEO_SETTINGS
    settings = read_object(path)
    for section in ("peft_lora_config", "inference_config"):
        if not isinstance(settings.get(section), dict):
            raise ConfigError(f"{path} must have a section {section}")
    return path, settings


def _rows(head: torch.Tensor, source: str) -> torch.Tensor:
    """A head [Q, D] of one row for each readout, or of one for all."""
    if head.ndim != 2 or len(head) not in (1, len(VIDEO_TOKENS)):
        raise ConfigError(
            f"{source}: rm_head.weight is {list(head.shape)}; one row or {len(VIDEO_TOKENS)} are expected"
        )
    return head.expand(len(VIDEO_TOKENS), -1)


def _deviations(settings: Mapping[str, Any]) -> torch.Tensor:
    """Standard deviations [Q] of the ratings over the training videos."""
    names = ("VQ_std", "MQ_std", "TA_std")
    values = [settings.get(name) for name in names]
    if not all(isinstance(value, float | int) and value > 0 for value in values):
        raise ConfigError(f"inference_config must have positive {', '.join(names)}; received {values}")
    return torch.tensor(values)
