"""Builders of generative judges, whose verdict is read off the logits of a vision-language model.

A judge is the model as it was published and a question. The source has all of it but the wording, which a
person gives as a file (`prefrm.prompts.files`): of two images a verdict is read, of one a utility.
"""

from prefrm.errors import ConfigError
from prefrm.imports.backbones import build_judge
from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.keys import move, renamed
from prefrm.imports.reading import read_checkpoint
from prefrm.imports.wordings import given_template
from prefrm.judge import JudgeSpec
from prefrm.prompts import Template, get_template

__all__ = ["build_paco", "build_unifiedreward", "build_unifiedreward_edit", "build_vqascore"]

MIN_LABEL_MASS = 0.5
"""Below, the model is likelier to say something else than any of the answers."""
VQASCORE_TEMPLATE = "shows-v1"
EVERYTHING = move(r".+", r"\g<0>")
"""Weights of a whole model: what is missing or unknown is found where it is filled."""


def build_unifiedreward(request: ImportRequest) -> Imported:
    """The pairwise ranking of UnifiedReward 1.0 and 2.0 (arXiv 2503.05236): which of two images is better."""
    return _imported(request, given_template(request, images=2, context=False), "verdict")


def build_unifiedreward_edit(request: ImportRequest) -> Imported:
    """UnifiedReward's pairwise ranking of edits, whose source stands before both (`{context}`)."""
    return _imported(request, given_template(request, images=2, context=True), "verdict")


def build_paco(request: ImportRequest) -> Imported:
    """PaCo-Reward (arXiv 2512.04784): whether an image is consistent with a reference (`{context}`)."""
    return _imported(request, _asking_yes_or_no(given_template(request, images=1, context=True)), "scalar")


def build_vqascore(request: ImportRequest) -> Imported:
    """VQAScore (arXiv 2404.01291) with any vision-language model: whether it sees the prompt in an image."""
    template = request.template or get_template(VQASCORE_TEMPLATE)
    return _imported(request, _asking_yes_or_no(template), "scalar")


def _imported(request: ImportRequest, template: Template, head: str) -> Imported:
    spec = JudgeSpec(
        base_model=request.published.name,
        head=head,
        template=template.id,
        attention=template.attention,
        ties=template.ties,
        min_label_mass=MIN_LABEL_MASS,
    )
    spec.check_template(template)
    checkpoint = read_checkpoint(request.source)
    weights = renamed(checkpoint, [EVERYTHING])
    judge = build_judge(spec, template, checkpoint, weights, request.source)
    return Imported(judge=judge, sha256=checkpoint.sha256)


def _asking_yes_or_no(template: Template) -> Template:
    if template.attention != "alone" or not template.answers:
        raise ConfigError(
            f"template {template.id!r} must ask about one image, with a yes and a no after {{answer}}"
        )
    return template
