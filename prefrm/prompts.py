"""Versioned prompt templates: what a judge is asked, and the tokens with which it answers.

A template never changes once a judge was trained with it; a new wording is a new template with a
new id. Rendering with a chat template and tokenizing belong to `prefrm.judge.processor`.
"""

from dataclasses import dataclass
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["TEMPLATES", "RenderedTemplate", "Template", "default_template", "get_template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of one reading, in the order in which a judge reads it: of two images, or of one.

    The prompt stands before the images, so that everything up to and including the first image is
    the same for all comparisons of that image in that slot.

    Attributes:
        id: name and version; a bundle records it together with the texts.
        instruction: what stands before the prompt.
        first: what stands between the prompt and the (first) image.
        second: what stands between the two images; None shows one image.
        again: what stands between the last image and the prompt, where it is stated a second time;
            None states it once. A causal model reads the first statement before it has seen an image;
            the tokens of the second can look at them, which small models need.
        question: what stands last.
        answers: of a question about two images: the answer that names the image shown first, the one
            that names the second, and, where there is a third, the one that says that neither is
            better. Each must be a single token. Of one image, nothing is answered: () .
    """

    id: str
    instruction: str
    first: str
    second: str | None = None
    again: str | None = None
    question: str
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = (0,) if self.images == 1 else (2, 3)
        if len(self.answers) not in counts:
            raise ConfigError(
                f"a template of {self.images} image(s) has {' or '.join(map(str, counts))} answers; "
                f"received {len(self.answers)}"
            )

    @property
    def images(self) -> int:
        """How many images are shown: 2 or 1."""
        return 1 if self.second is None else 2

    @property
    def ties(self) -> bool:
        """Whether an answer says that neither is better."""
        return len(self.answers) == 3

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """One user turn, as every chat template of `transformers` takes it: text and image items."""
        image = {"type": "image"}
        texts = [self.question if self.again is None else self.again + prompt + self.question]
        if self.second is not None:
            texts.insert(0, self.second)
        content = [{"type": "text", "text": f"{self.instruction}{prompt}{self.first}"}]
        for text in texts:
            content += [image, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedTemplate:
    """The texts around the prompt and the images, as a base model's chat template renders a `Template`.

    A chat template is a program of the checkpoint. It runs once, when a judge is made of a base model. A
    bundle records these texts, so that nothing runs when it is loaded.

    Attributes:
        before: what stands before the prompt.
        between: what stands between the prompt and the first image, between the images, and after the last
            one: one text more than there are images.
        after: what stands after the second statement of the prompt; None if it is stated once.
    """

    before: str
    between: tuple[str, ...]
    after: str | None = None

    def fits(self, template: Template) -> bool:
        """Whether these texts show as many images and state the prompt as often as `template`."""
        return len(self.between) == template.images + 1 and (self.after is None) == (template.again is None)


# Spelled out one by one: a judge depends on every letter, so nothing here may follow a change elsewhere.
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
        Template(
            id="match-or-tie-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            question="\nWhich image matches the prompt better, 1 or 2? Answer 0 if neither does.",
            answers=("1", "2", "0"),
        ),
        Template(
            id="match-or-tie-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            again="\nPrompt:\n",
            question="\nWhich image matches better, 1 or 2, or 0?",
            answers=("1", "2", "0"),
        ),
        Template(
            id="rate-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            question="\nHow well does image 1 match the prompt?",
        ),
        Template(
            id="rate-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            again="\nPrompt:\n",
            question="\nHow well does image 1 match?",
        ),
    )
}


def default_template(*, images: int, ties: bool = False) -> str:
    """The id of the first template that shows so many images, with or without an answer for a tie."""
    return next(t.id for t in TEMPLATES.values() if t.images == images and t.ties == ties)


def get_template(template_id: str) -> Template:
    """The template of that id. Raises `ConfigError` that lists the ids there are."""
    if template_id not in TEMPLATES:
        raise ConfigError(f"there is no template {template_id!r}; templates: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template_id]
