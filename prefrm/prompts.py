"""Versioned prompt templates: what a judge is asked, and the tokens with which it answers.

A template never changes once a judge was trained with it; a new wording is a new template with a
new id. Rendering with a chat template and tokenizing belong to `prefrm.judge.processor`.
"""

from dataclasses import dataclass
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["DEFAULT_TEMPLATE", "TEMPLATES", "Template", "get_template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of one comparison, in the order in which a judge reads it.

    The prompt stands before the images, so that everything up to and including the first image is
    the same for all comparisons of that image in that slot.

    Attributes:
        id: name and version; a bundle records it together with the texts.
        instruction: what stands before the prompt.
        first: what stands between the prompt and the image shown first.
        second: what stands between the two images.
        again: what stands between the second image and the prompt, where it is stated a second time;
            None states it once. A causal model reads the first statement before it has seen an image;
            the tokens of the second can look at both, which small models need.
        question: what stands last; its answer is one of `answers`.
        answers: the answer that names the image shown first, and the one that names the second.
            Each must be a single token.
    """

    id: str
    instruction: str
    first: str
    second: str
    again: str | None = None
    question: str
    answers: tuple[str, str]

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """One user turn, as every chat template of `transformers` takes it: text and image items."""
        content = [
            {"type": "text", "text": f"{self.instruction}{prompt}{self.first}"},
            {"type": "image"},
            {"type": "text", "text": self.second},
            {"type": "image"},
            {
                "type": "text",
                "text": self.question if self.again is None else self.again + prompt + self.question,
            },
        ]
        return [{"role": "user", "content": content}]


TEMPLATES: dict[str, Template] = {
    template.id: template
    for template in (
        Template(
            id="match-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            question="\nWhich image matches the prompt better, 1 or 2?",
            answers=("1", "2"),
        ),
        Template(
            id="match-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            again="\nPrompt:\n",
            question="\nWhich image matches better, 1 or 2?",
            answers=("1", "2"),
        ),
    )
}
DEFAULT_TEMPLATE = "match-v1"


def get_template(template_id: str) -> Template:
    """The template of that id. Raises `ConfigError` that lists the ids there are."""
    if template_id not in TEMPLATES:
        raise ConfigError(f"there is no template {template_id!r}; templates: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template_id]
