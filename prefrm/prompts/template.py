"""Templates as data: what a judge is asked, and what a base model's chat template makes of it."""

from dataclasses import dataclass
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["RenderedTemplate", "Template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of one reading, and by its texts the attention that it is for (`attention`).

    By default the prompt stands before the images, so that what precedes the first image is the same for all
    candidates. Published judges are often asked the other way round (`images_first`).

    Attributes:
        id: name and version; a bundle records it together with the texts.
        instruction: text before the prompt; with `images_first`, before the first image.
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
        images_first: whether the images stand before the prompt, which is then stated once, between `again`
            and `question`.
        answer_prefix: start of the assistant's turn, which the answer continues.
    """

    id: str
    instruction: str
    first: str
    second: str | None = None
    again: str | None = None
    question: str
    suffixes: tuple[str, str] | None = None
    answers: tuple[str, ...] = ()
    images_first: bool = False
    answer_prefix: str = ""

    def __post_init__(self) -> None:
        if self.images_first and (self.again is None or self.first or self.suffixes is not None):
            raise ConfigError(
                "a template with the images first has the text before the prompt in `again`, and neither "
                "`first` nor `suffixes`"
            )
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

    @property
    def statements(self) -> int:
        """Number of times that the prompt is stated."""
        return 1 if self.images_first or self.again is None else 2

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        """One user turn, as every chat template of `transformers` takes it: text and image items.

        Of a late template, that of a candidate with the suffix of the first slot.
        """
        again = "" if self.again is None else self.again + prompt
        if self.suffixes is None:
            before, after = self.first, again + self.question
        else:
            before, after = self.question + self.first, again + self.suffixes[0]
        opening = self.instruction if self.images_first else f"{self.instruction}{prompt}{before}"
        content = [{"type": "text", "text": opening}]
        for text in [after] if self.second is None else [self.second, after]:
            content += [{"type": "image"}, {"type": "text", "text": text}]
        if self.images_first:
            # As the clients of published judges write a message: chat templates may mark an empty text.
            content = [item for item in content if item.get("text") != ""]
        return [{"role": "user", "content": content}]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedTemplate:
    """The texts around the prompt and the images, as a base model's chat template renders a `Template`.

    A chat template is a program of the checkpoint. It runs once, when a judge is made of a base model. A
    bundle records these texts, so that nothing runs when it is loaded.

    Attributes:
        before: text before the prompt; with the images first, before the first image.
        between: texts between the prompt and the first image (empty with the images first), between the
            images, and after the last one: one text more than there are images.
        after: text after the last statement of the prompt, where that follows the images, or, of a late
            template, after the suffix; None if there is neither. It ends with the answer's prefix.
    """

    before: str
    between: tuple[str, ...]
    after: str | None = None

    def fits(self, template: Template) -> bool:
        """Whether these texts are of a template with as many images and texts."""
        once = template.again is None and template.suffixes is None
        return len(self.between) == template.images + 1 and (self.after is None) == once
