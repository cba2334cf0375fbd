"""What the wording that a person gives for a published judge must have, by how that judge was trained."""

from prefrm.errors import ConfigError
from prefrm.imports.importing import ImportRequest
from prefrm.judge import JudgeSpec
from prefrm.prompts import Template

__all__ = ["check_prompt_is_read", "given_template"]

PROMPT = "\0"
"""Stands for a prompt, where its place is looked for."""


def given_template(request: ImportRequest, *, images: int, context: bool) -> Template:
    """The wording of the request.

    Args:
        request: of a judge whose row requires a template.
        images: how many candidates one question shows.
        context: whether it shows an image that belongs to the prompt before them.

    Raises:
        ConfigError: the wording shows other images.
    """
    template = request.template
    assert template is not None
    if template.candidates != images or template.has_context != context:
        expected = "{context}" * context + "{image}" * images
        received = "{context}" * template.has_context + "{image}" * template.candidates
        raise ConfigError(
            f"{request.published.name} was trained with {expected}; template {template.id!r} has {received}"
        )
    return template


def check_prompt_is_read(template: Template, spec: JudgeSpec) -> None:
    """Raise `ConfigError` if the last readout precedes the prompt, which then has no influence on it."""
    spec.check_template(template)
    text = "".join(item.get("text", "") for item in template.messages(PROMPT)[0]["content"])
    if text.rfind(spec.readouts[-1]) < text.index(PROMPT):
        raise ConfigError(f"template {template.id!r} needs {spec.readouts[-1]} after {{prompt}}")
