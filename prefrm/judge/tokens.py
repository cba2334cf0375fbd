"""Text to token ids: a template rendered once with the base model's chat template, and filled in for a group.

Prompts, criteria and texts come from outside, so nothing in them may become a control token: text that spells
one, such as an image placeholder, is cut inside the spelling and tokenized as ordinary text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest
from typing import Any

from prefrm.errors import ConfigError, RecordError
from prefrm.judge.images import ImageInput
from prefrm.judge.labels import Labels
from prefrm.prompts import RenderedTemplate, Template
from prefrm.prompts.places import CANDIDATE, CONTEXT, CRITERION, MARK, PROMPT, SUFFIX, Piece, readable
from prefrm.records import SURROGATE

__all__ = ["FilledTemplate", "Part", "TokenLayout", "render"]

Part = list[int] | ImageInput
"""A run of token ids, or an image in the place of its tokens."""
Text = tuple[str, bool]
"""A text, and whether it comes from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledTemplate:
    """The tokens around the candidates of one group.

    In reading order, by attention:

        joint   `opening`, candidate, `second`, candidate, `closing`
        alone   `opening`, candidate, `closing`
        late    `opening`, candidate, `closing`, one of `suffixes`, `question`

    The chat template's own text (roles, system prompt, image delimiters) is part of these runs.

    Attributes:
        opening: before the first candidate, with the context images.
        second: between two candidates.
        closing: after the last candidate. Of a late template, as far as the suffix; of others, with the path
            of the answers.
        suffixes: of a late template, with what the chat template writes after them but for the last token.
        question: of a late template, that last token.
        readouts: `closing` as far as each readout, which is the last token of each.
        images_first: whether the candidates stand before the prompt, and `closing` is tokenized in one piece.
        prompt_tokens: number of tokens of the prompt; with the images first, of all of `closing`.
        criterion_tokens: number of tokens of the criterion.
    """

    opening: tuple[Part, ...]
    second: list[int]
    closing: list[int]
    suffixes: tuple[list[int], ...]
    question: list[int]
    readouts: tuple[list[int], ...]
    images_first: bool
    prompt_tokens: int
    criterion_tokens: int


class TokenLayout:
    """The fixed texts around a prompt and its candidates, and the answers.

    Args:
        tokenizer: of `transformers`.
        template: the wording.
        rendered: that wording as the base model's chat template renders it (`render`).
        image_token_id: the placeholder that stands for an image.
        readouts: control tokens at which a judge reads; () is the last position.

    Attributes:
        labels: the tokens of the answers.
        pad_id: a token that is not an image's placeholder.
        has_context, needs_context, has_criterion, needs_criterion: as of the template.

    Raises:
        ConfigError: the answers cannot be told apart, no text stands where a segment of the tree needs it, or
            a readout is not once in the text after the last candidate.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        rendered: RenderedTemplate,
        image_token_id: int,
        readouts: Sequence[str] = (),
    ) -> None:
        self.template = template
        self.image_token_id = image_token_id
        self._tokenizer = tokenizer
        image_token = tokenizer.convert_ids_to_tokens(image_token_id)
        added = tokenizer.added_tokens_decoder
        self._control = {index for index, token in added.items() if token.special} | {image_token_id}
        spellings = {re.escape(token.content) for token in added.values() if len(token.content) > 1}
        # A lookahead finds spellings that overlap, too.
        self._spelling = re.compile(f"(?={'|'.join(sorted(spellings | {re.escape(image_token)}))})")
        self._known: dict[str, list[int]] = {}
        self._images_first = template.images_first
        self.has_context, self.needs_context = template.has_context, template.needs_context
        self.has_criterion, self.needs_criterion = template.has_criterion, template.needs_criterion
        self._opening, *between, closing = rendered.runs
        self._second: Sequence[Piece] = between[0] if between else ()
        contents = [piece.content for piece in closing]
        place = contents.index(SUFFIX) if SUFFIX in contents else len(closing)
        self._closing, close = closing[:place], "".join(contents[place + 1 :])
        self._suffixes = template.marked_suffixes()
        self._close = self._encode(close)
        literals = [piece.content for piece in self._opening if piece.is_text]
        if not literals:
            raise ConfigError(f"the chat template leaves no text before the first image of {template.id!r}")
        if self._suffixes and not self._close:
            raise ConfigError(f"the chat template leaves no text after the suffix of {template.id!r}")
        self.pad_id = self._encode(literals[0])[0]
        self.labels = self._labels()
        self._ends = [self._readout(token) for token in readouts]

    def fill(self, prompt: str, criterion: str = "", context: Sequence[ImageInput] = ()) -> FilledTemplate:
        """The tokens of a group, none of whose texts becomes a control token, whatever it spells.

        With the images first, all that follows the last image is tokenized in one piece, as published judges
        were trained: a token may hold the start of the prompt and what precedes it.

        Raises:
            RecordError: a text is not valid Unicode, or cannot be kept free of control tokens.
        """
        outside = {PROMPT: _checked("prompt", prompt), CRITERION: _checked("criterion", criterion)}
        # The prompt may stand twice, and a criterion in both suffixes.
        tokens = cache(lambda text: self._tokens([text]))

        def runs(pieces: Sequence[Piece], images: int = 0) -> list[list[int]]:
            texts = self._texts(pieces, outside, images)
            if self._images_first:
                return [self._tokens(run) for run in texts]
            return [[index for text in run for index in tokens(text)] for run in texts]

        first, *others = runs(self._opening, len(context))
        after = (part for image, run in zip(context, others, strict=True) for part in (image, run))
        (second,) = runs(self._second)
        (closing,) = runs(self._closing)
        suffixes = (run for suffix in self._suffixes for run in runs(suffix))
        whole = [*closing, *self.labels.path]
        return FilledTemplate(
            opening=(first, *after),
            second=second,
            closing=whole,
            suffixes=tuple([*suffix, *self._close[:-1]] for suffix in suffixes),
            question=self._close[-1:],
            readouts=tuple(whole[: whole.index(end) + 1] for end in self._ends) or (whole,),
            images_first=self._images_first,
            prompt_tokens=len(closing if self._images_first else tokens((prompt, True))),
            criterion_tokens=len(tokens((criterion, True))),
        )

    def text(self, text: str) -> list[int]:
        """The ids of a candidate's text. Raises as `fill`."""
        return self._tokens([(_checked("text", text), True)])

    @property
    def reads(self) -> int:
        """P, the number of positions of a readout, which are the last ones: before each token of the answers'
        path, and after it."""
        return 1 + len(self.labels.path)

    @property
    def answers(self) -> tuple[int, ...]:
        """The token of each answer, where that tells it (`Labels.is_plain`)."""
        assert self.labels.is_plain
        return tuple(token for ((_, token),) in self.labels.branches)

    @property
    def criterion_level(self) -> int | None:
        """The first level of a group's tree that depends on its criterion, as in `criterion_places`; None if
        there is no place for a criterion."""
        return next((level for level, count in enumerate(self.criterion_places) if count), None)

    @property
    def criterion_places(self) -> tuple[int, int, int]:
        """Number of places of a criterion in each level of a group's tree: in the prefix, with a candidate,
        and in both suffixes of late or an answer of others."""

        def count(*runs: Sequence[Piece]) -> int:
            return sum(piece.content == CRITERION for run in runs for piece in run)

        if self._suffixes:
            return count(self._opening), count(self._closing), count(*self._suffixes)
        return count(self._opening), 0, count(self._second, self._closing)

    def _texts(self, pieces: Sequence[Piece], outside: Mapping[str, str], images: int) -> list[list[Text]]:
        """The texts of pieces, with those from outside in their places, before, between and after images."""
        absent = ("" if images else CONTEXT) + ("" if outside[CRITERION] else CRITERION)
        present = [piece.content for piece in pieces if not (piece.needs and piece.needs in absent)]
        runs: list[list[Text]] = [[]]
        for content in _repeated(present, images):
            if content == CONTEXT:
                runs.append([])
            elif content in outside:
                runs[-1].append((outside[content], True))
            elif runs[-1] and not runs[-1][-1][1]:
                # Texts that a left-out line no longer separates are one.
                runs[-1][-1] = (runs[-1][-1][0] + content, False)
            else:
                runs[-1].append((content, False))
        return runs

    def _tokens(self, texts: Sequence[tuple[str, bool]]) -> list[int]:
        """Texts that are tokenized in one piece, but for spellings of control tokens from outside."""
        if len(texts) == 1 and not texts[0][1]:
            return self._own(texts[0][0])
        pieces = [""]
        for text, is_outside in texts:
            cuts = [match.start() + 1 for match in self._spelling.finditer(text)] if is_outside else []
            head, *rest = (text[start:end] for start, end in pairwise([0, *cuts, len(text)]))
            pieces[-1] += head
            pieces += rest
        ids = [index for piece in pieces for index in self._encode(piece)]
        own = sum(self._controls(self._own(text)) for text, is_outside in texts if not is_outside)
        if self._controls(ids) > own:
            shown = "".join(text for text, is_outside in texts if is_outside)
            raise RecordError(f"a text spells control tokens of the model: {shown[:60]!r}")
        return ids

    def _controls(self, ids: list[int]) -> int:
        """Number of control tokens."""
        return sum(index in self._control for index in ids)

    def _own(self, text: str) -> list[int]:
        """The ids of a text of the template, of which there are few."""
        if text not in self._known:
            self._known[text] = self._encode(text)
        return self._known[text]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _readout(self, token: str) -> int:
        index: int = self._tokenizer.convert_tokens_to_ids(token)
        own = [i for piece in self._closing if piece.is_text for i in self._encode(piece.content)]
        if own.count(index) != 1:
            raise ConfigError(
                f"the template {self.template.id!r} must have the readout {token!r} once in its text after "
                "the image; write it where the judge is to read, or leave readouts out"
            )
        return index

    def _labels(self) -> Labels:
        spellings = [[self._encode(text) for text in texts] for texts in self.template.spellings]
        try:
            labels = Labels.of(spellings)
        except ConfigError as error:
            raise ConfigError(
                f"the answers {', '.join(map(repr, self.template.answers))} of template {self.template.id!r} "
                f"cannot be told apart for this tokenizer: {error}; use a template with other answers"
            ) from error
        if labels.path and self._suffixes:
            raise ConfigError(
                f"the answers of template {self.template.id!r} differ after {len(labels.path)} tokens for "
                "this tokenizer; a late verdict is read from one token, so use a template with other answers"
            )
        return labels


def _repeated(contents: list[str], images: int) -> list[str]:
    """The contents with that number of context images, of which two are there, and what separates these."""
    if CONTEXT not in contents:
        return contents
    first, last = contents.index(CONTEXT), len(contents) - 1 - contents[::-1].index(CONTEXT)
    shown = [*contents[first:last] * (images - 1), CONTEXT] if images else []
    return [*contents[:first], *shown, *contents[last + 1 :]]


def _checked(name: str, text: str) -> str:
    """The text itself. Raises `RecordError` if it cannot be encoded."""
    if SURROGATE.search(text):
        raise RecordError(f"the {name} is not valid Unicode text: {text[:60]!r}")
    return text


def render(
    tokenizer: Any,
    template: Template,
    image_token_id: int,
    *,
    images: bool = True,
    images_in_text: bool = False,
) -> RenderedTemplate:
    """The conversation that the tokenizer's chat template makes of a template.

    This runs the chat template, which is a program of the checkpoint.

    Args:
        tokenizer: of `transformers`, with a chat template that renders image items.
        template: the wording.
        image_token_id: the placeholder that stands for an image.
        images: whether candidates are images. Others, texts and videos, bring their own delimiters.
        images_in_text: whether to write images into the text as that placeholder, for chat templates
            that put image items before all text.

    Raises:
        ConfigError: the chat template is absent or does not render the message as expected.
    """
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    messages = template.marked_messages(images=images)
    shown = [x for x in MARK.findall(template.marked) if x == CONTEXT or (images and x == CANDIDATE)]
    if images_in_text and not template.images_first:
        messages = _written(messages, image_token)
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # A chat template may raise any exception.
    except Exception as error:
        raise ConfigError(f"the tokenizer's chat template cannot render a comparison: {error}") from error
    parts = (text + template.answer_prefix).split(image_token)
    marked = "".join(x for both in zip_longest(parts, shown, fillvalue="") for x in both)
    rendered = RenderedTemplate(text=marked)
    if len(parts) != len(shown) + 1 or not rendered.fits(template):
        raise ConfigError(
            f"the tokenizer's chat template should render {readable(''.join(MARK.findall(template.marked)))} "
            f"in this order, with each image as {image_token!r} ({len(shown)} in all); it rendered "
            f"{readable(text)!r}"
        )
    return rendered


def _written(messages: list[dict[str, Any]], image_token: str) -> list[dict[str, Any]]:
    """The same messages with each image as a token of the text that it stands in."""
    texts = ["".join(item.get("text", image_token) for item in turn["content"]) for turn in messages]
    return [
        turn | {"content": [{"type": "text", "text": text}]}
        for turn, text in zip(messages, texts, strict=True)
    ]
