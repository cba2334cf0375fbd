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
    """The wording of one reading, and by its texts the attention that it is for (`attention`).

    The prompt stands before the images, so that what precedes the first image is the same for all candidates.

    Attributes:
        id: name and version; a bundle records it together with the texts.
        instruction: text before the prompt.
        first: text between the prompt and the (first) image; of a late template, after `question`.
        second: text between the two images of a joint template.
        again: text between the last image and the prompt, where it is stated a second time; None states it
            once. A causal model reads the first statement before it has seen an image; the tokens of the
            second can look at them, which small models need.
        question: text before the answer; of a late template, which asks before it shows an image, after
            the prompt.
        suffixes: of a late template, the texts that follow a candidate as first and as second of a
            comparison.
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
    suffixes: tuple[str, str] | None = None
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.suffixes is not None and self.second is not None:
            raise ConfigError(
                "a template has a text before a second image or suffixes for two slots, not both"
            )
        counts = (0,) if self.attention == "alone" else (2, 3)
        if len(self.answers) not in counts:
            raise ConfigError(
                f"a template for attention {self.attention!r} has {' or '.join(map(str, counts))} answers; "
                f"received {len(self.answers)}"
            )

    @property
    def attention(self) -> str:
        """What candidates see of each other, as in `JudgeSpec`: "late", "joint" or "alone"."""
        if self.suffixes is not None:
            return "late"
        return "alone" if self.second is None else "joint"

    @property
    def images(self) -> int:
        """Number of images in one message."""
        return 1 if self.second is None else 2

    @property
    def ties(self) -> bool:
        """Whether an answer says that neither is better."""
        return len(self.answers) == 3

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """One user turn, as every chat template of `transformers` takes it: text and image items.

        Of a late template, that of a candidate with the suffix of the first slot.
        """
        image = {"type": "image"}
        again = "" if self.again is None else self.again + prompt
        if self.suffixes is None:
            before, after = self.first, again + self.question
        else:
            before, after = self.question + self.first, again + self.suffixes[0]
        texts = [after] if self.second is None else [self.second, after]
        content = [{"type": "text", "text": f"{self.instruction}{prompt}{before}"}]
        for text in texts:
            content += [image, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedTemplate:
    """The texts around the prompt and the images, as a base model's chat template renders a `Template`.

    A chat template is a program of the checkpoint. It runs once, when a judge is made of a base model. A
    bundle records these texts, so that nothing runs when it is loaded.

    Attributes:
        before: text before the prompt.
        between: texts between the prompt and the first image, between the images, and after the last
            one: one text more than there are images.
        after: text after the second statement of the prompt, or, of a late template, after the suffix; None
            if there is neither.
    """

    before: str
    between: tuple[str, ...]
    after: str | None = None

    def fits(self, template: Template) -> bool:
        """Whether these texts are of a template with as many images and statements of the prompt."""
        once = template.again is None and template.suffixes is None
        return len(self.between) == template.images + 1 and (self.after is None) == once


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
            id="match-late-v1",
            instruction="Prompt:\n",
            question="\nWhich image matches better, 1 or 2?",
            first="\nImage:",
            again="\nPrompt:\n",
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
            answers=("1", "2"),
        ),
        Template(
            id="match-or-tie-late-v1",
            instruction="Prompt:\n",
            question="\nWhich image matches better, 1 or 2, or 0?",
            first="\nImage:",
            again="\nPrompt:\n",
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
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


def default_template(*, attention: str, ties: bool = False) -> str:
    """The id of the first template for that attention, with or without an answer for a tie."""
    return next(t.id for t in TEMPLATES.values() if t.attention == attention and t.ties == ties)


def get_template(template_id: str) -> Template:
    """The template of that id. Raises `ConfigError` that lists the ids there are."""
    if template_id not in TEMPLATES:
        raise ConfigError(f"there is no template {template_id!r}; templates: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template_id]
