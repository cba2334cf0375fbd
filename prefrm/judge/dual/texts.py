"""A prompt as the tokens that a text encoder reads."""

import html
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer

from prefrm.errors import RecordError
from prefrm.manifest import TextReading

__all__ = ["TOKENIZER", "TextTokenizer"]

TOKENIZER = "tokenizer.json"
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextTokenizer:
    """Tokens of one text at a time, which needs no padding unless the encoder was trained with it.

    Args:
        tokenizer: adds the start and the end of a text by itself.
        reading: how texts are read.
    """

    def __init__(self, tokenizer: Tokenizer, reading: TextReading) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(reading.tokens)
        self._reading = reading

    @classmethod
    def load(cls, folder: Path, reading: TextReading) -> "TextTokenizer":
        """The tokenizer in a folder that `save` wrote."""
        return cls(Tokenizer.from_file(str(folder / TOKENIZER)), reading)

    def save(self, folder: Path) -> None:
        """Write it into a folder, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / TOKENIZER))

    @property
    def size(self) -> int:
        """All ids of tokens are below. Some may be of no token."""
        return 1 + max(self._tokenizer.get_vocab().values(), default=-1)

    def __call__(self, text: str) -> torch.Tensor:
        """int64 [L], L tokens. Raises `RecordError` if the text is not valid Unicode."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RecordError(f"the prompt is not valid text: {error}") from error
        ids = self._tokenizer.encode(self._cleaned(text)).ids
        if (pad_id := self._reading.pad_id) is not None:
            ids += [pad_id] * (self._reading.tokens - len(ids))
        return torch.tensor(ids)

    def _cleaned(self, text: str) -> str:
        match self._reading.clean:
            case "html":
                return html.unescape(html.unescape(text)).strip()
            case "lower":
                return text.lower()
            case "canonical":
                return " ".join(text.lower().translate(NO_PUNCTUATION).split())
        return text
