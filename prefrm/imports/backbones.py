"""From renamed weights to a judge on a vision-language backbone.

Weights of the head have the prefix `HEAD`; all others are of the backbone, by any names that `transformers`
reads for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prefrm.errors import ConfigError
from prefrm.imports.reading import Checkpoint, read_config
from prefrm.imports.sources import Source
from prefrm.judge import Head, Judge, JudgeProcessor, JudgeSpec, build_head
from prefrm.judge.backbones import BaseModel
from prefrm.judge.weights import check_weights, fill_pretrained
from prefrm.manifest.contents import MODEL_TYPES
from prefrm.prompts import Template

__all__ = ["HEAD", "build_judge"]

HEAD = "head."
EMBEDDINGS = "embed_tokens.weight"


def build_judge(
    spec: JudgeSpec,
    template: Template,
    checkpoint: Checkpoint,
    weights: Mapping[str, torch.Tensor],
    base: Source,
) -> Judge:
    """The judge of a specification, on the CPU, its backbone in the type in which it is stored.

    Args:
        spec: of the judge; its template is replaced.
        template: the wording.
        checkpoint: where the weights come from.
        weights: of the backbone and the head.
        base: configuration, tokenizer, image processor and chat template of the backbone.

    Raises:
        ConfigError: a weight is missing, unexpected or misshapen, the vocabulary lacks a token, the base is
            of an unsupported family, or the template does not fit.
    """
    spec.check_template(template)
    # A bundle names the file of a template, and not where it was.
    spec = replace(spec, template=template.id)
    backbone = _backbone(checkpoint, weights, base.folder)
    processor = JudgeProcessor.load(base.folder, backbone.config, spec, template)
    rows = len(backbone.get_input_embeddings().weight)
    if (last := max(processor.tokenizer.get_vocab().values())) >= rows:
        raise ConfigError(
            f"{checkpoint.name} has embeddings of {rows} tokens, and the tokenizer of {base.name} has more "
            f"({last + 1}); give the base model with which this judge was trained"
        )
    with torch.device("meta"):
        head = build_head(spec, backbone.get_output_embeddings().in_features, template)
    _fill(head, checkpoint.name, weights)
    origin = BaseModel(folder=base.folder, revision=None, weights_sha256=checkpoint.digest, trained=True)
    return Judge(backbone, head, processor, spec, origin).eval()


def _backbone(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], folder: Path) -> Any:
    own = {key: tensor for key, tensor in weights.items() if not key.startswith(HEAD)}
    # The vocabulary is that of the weights, below; the base's may be padded.
    limits = {key: most for key, most in checkpoint.limits.items() if key != "vocab_size"}
    config = read_config(folder, MODEL_TYPES, limits)
    embeddings = next((tensor for key, tensor in own.items() if key.endswith(EMBEDDINGS)), None)
    if embeddings is None:
        raise ConfigError(
            f"{checkpoint.name} has no weights {EMBEDDINGS}; is it the checkpoint of this judge?"
        )
    # A checkpoint with added tokens has rows for those, and without padding.
    config.text_config.vocab_size = len(embeddings)
    return fill_pretrained(config, own, checkpoint.name, dtype=embeddings.dtype)


def _fill(head: Head, name: str, weights: Mapping[str, torch.Tensor]) -> None:
    # Published heads have no scale.
    found = {"log_scale": torch.tensor(0.0)}
    found |= {key.removeprefix(HEAD): w.float() for key, w in weights.items() if key.startswith(HEAD)}
    check_weights(name, found, head.state_dict())
    head.load_state_dict(found, assign=True)
