"""Text to token ids: a template rendered once with the base model's chat template, prompts put in later.

A prompt comes from outside, so nothing in it may become a control token: text that spells one, such
as an image placeholder, is cut inside the spelling and tokenized as ordinary text.
"""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

from prefrm.errors import ConfigError, RecordError
from prefrm.prompts import RenderedTemplate, Template

__all__ = ["TokenLayout", "render"]

# Private-use characters that no chat template touches; they mark places while rendering.
PROMPT_MARK, SUFFIX_MARK = "\ue000", "\ue001"


class TokenLayout:
    """The fixed runs of tokens around a prompt and its images, and the ids of the answers.

    In reading order, by attention:

        joint   `instruction`, prompt, `first`, image, `second`, image, `again`, prompt, `question`
        alone   `instruction`, prompt, `first`, image, `again`, prompt, `question`
        late    `instruction`, prompt, `first`, image, `again`, prompt, one of `suffixes`, `question`

    With the images first, no prompt follows `instruction`, and `first` is empty. `again` and the prompt after
    it are absent where the template states the prompt once. Of a late template, `question` is the last token
    alone, and what the chat template writes before it ends each suffix. The chat template's own text (roles,
    system prompt, image delimiters) is part of these runs.

    Args:
        tokenizer: of `transformers`.
        template: the wording.
        rendered: that wording as the base model's chat template renders it (`render`).
        image_token_id: the placeholder that stands for an image.

    Raises:
        ConfigError: an answer is not a single token, or no text stands where a segment of the tree needs it.
    """

    def __init__(
        self, tokenizer: Any, template: Template, rendered: RenderedTemplate, image_token_id: int
    ) -> None:
        self.template = template
        self.image_token_id = image_token_id
        self._tokenizer = tokenizer
        image_token = tokenizer.convert_ids_to_tokens(image_token_id)
        self._closing = (rendered.between[-1], rendered.after or "")
        self.instruction = self._encode(rendered.before)
        self.first, *second, last = (self._encode(text) for text in rendered.between)
        self.second = second[0] if second else []
        self.again, self.question = (
            ([], last) if rendered.after is None else (last, self._encode(rendered.after))
        )
        if not self.instruction and not self.first:
            raise ConfigError(f"the chat template leaves no text before the first image of {template.id!r}")
        self.suffixes: list[list[int]] = []
        if template.suffixes is not None:
            if not self.question:
                raise ConfigError(f"the chat template leaves no text after the suffix of {template.id!r}")
            *close, end = self.question
            self.suffixes = [[*self._encode(text), *close] for text in template.suffixes]
            self.question = [end]
        self.answers = tuple(self._answer(answer) for answer in template.answers)
        added = tokenizer.added_tokens_decoder
        self._control = {index for index, token in added.items() if token.special} | {image_token_id}
        spellings = {re.escape(token.content) for token in added.values() if len(token.content) > 1}
        # A lookahead finds spellings that overlap, too.
        self._spelling = re.compile(f"(?={'|'.join(sorted(spellings | {re.escape(image_token)}))})")

    def prompt(self, text: str) -> list[int]:
        """The ids of a prompt, none of which is a control token, whatever the text spells.

        With the images first, those of all that follows the last image: published judges were trained on
        that text tokenized in one piece, in which a token may hold the start of the prompt and what precedes
        it.

        Raises:
            RecordError: the text is not valid Unicode, or cannot be kept free of control tokens.
        """
        before, after = self._closing if self.template.images_first else ("", "")
        cuts = [0, *(match.start() + 1 for match in self._spelling.finditer(text)), len(text)]
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        pieces[0] = before + pieces[0]
        pieces[-1] += after
        try:
            ids = [index for piece in pieces for index in self._encode(piece)]
        except (TypeError, UnicodeError) as error:
            raise RecordError(f"the prompt is not valid Unicode text: {text[:60]!r}") from error
        own = [*self._encode(before), *self._encode(after)]
        if sum(index in self._control for index in ids) > sum(index in self._control for index in own):
            raise RecordError(f"the prompt spells control tokens of the model: {text[:60]!r}")
        return ids

    def opening(self, prompt: list[int]) -> list[int]:
        """The tokens before the first image."""
        stated = [] if self.template.images_first else prompt
        return [*self.instruction, *stated, *self.first]

    def restated(self, prompt: list[int]) -> list[int]:
        """The tokens after the last image that state the prompt again, if the template does."""
        return self.again if self.template.again is None else [*self.again, *prompt]

    def readout(self, prompt: list[int]) -> list[int]:
        """The tokens after the last image, of attentions that read it and the answer in one run."""
        return prompt if self.template.images_first else [*self.restated(prompt), *self.question]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _answer(self, text: str) -> int:
        ids = self._encode(text)
        if len(ids) != 1:
            raise ConfigError(
                f"the answer {text!r} of template {self.template.id!r} is {len(ids)} tokens for this "
                "tokenizer; a verdict is read from one token, so use a template with other answers"
            )
        return ids[0]


def render(
    tokenizer: Any, template: Template, image_token_id: int, *, images_in_text: bool = False
) -> RenderedTemplate:
    """The texts that the tokenizer's chat template puts around the prompt and the images.

    This runs the chat template, which is a program of the checkpoint.

    Args:
        tokenizer: of `transformers`, with a chat template that renders image items.
        template: the wording.
        image_token_id: the placeholder that stands for an image.
        images_in_text: whether to write images into the text as that placeholder, for chat templates
            that put image items before all text.

    Raises:
        ConfigError: the chat template is absent or does not render the message as expected.
    """
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if template.suffixes is not None:
        template = replace(template, suffixes=(SUFFIX_MARK, SUFFIX_MARK))
    messages = template.messages(PROMPT_MARK)
    if images_in_text and not template.images_first:
        messages = _written(messages, image_token)
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # A chat template may raise any exception.
    except Exception as error:
        raise ConfigError(f"the tokenizer's chat template cannot render a comparison: {error}") from error
    return _cut(text + template.answer_prefix, template, image_token)


def _written(messages: list[dict[str, Any]], image_token: str) -> list[dict[str, Any]]:
    """The same messages with each image as a token of the text that it stands in."""
    texts = ["".join(item.get("text", image_token) for item in turn["content"]) for turn in messages]
    return [
        turn | {"content": [{"type": "text", "text": text}]}
        for turn, text in zip(messages, texts, strict=True)
    ]


def _cut(text: str, template: Template, image_token: str) -> RenderedTemplate:
    whole, *after = text.split(SUFFIX_MARK)
    parts = whole.split(PROMPT_MARK)
    times, shown = template.statements, template.images
    # With the images first, they stand in what precedes the prompt.
    before, *rest = ["", *parts] if template.images_first else parts
    between = rest[0].split(image_token) if rest else []
    if template.images_first:
        before, between[0] = between[0], ""
    suffixes = 0 if template.suffixes is None else 1
    if (
        len(parts) != times + 1
        or len(between) != shown + 1
        or text.count(image_token) != shown
        or len(after) != suffixes
        or (suffixes and times == 2 and rest[1])
    ):
        images = "1 image" if shown == 1 else f"{shown} images"
        images += " before" if template.images_first else " after"
        readable = text.replace(PROMPT_MARK, "<prompt>").replace(SUFFIX_MARK, "<suffix>")
        raise ConfigError(
            f"the tokenizer's chat template should render the prompt {('once', 'twice')[times - 1]} and "
            f"{images} it as {image_token!r}; it rendered {readable!r}"
        )
    last = after or rest[1:]
    return RenderedTemplate(before=before, between=tuple(between), after=last[0] if last else None)
