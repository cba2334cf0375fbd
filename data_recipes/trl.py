"""The recipe `trl`: preference datasets in TRL's form whose candidates are images.

    prompt              a text, or messages of which the last one of the user is taken; without this column,
                        the messages with which both chosen and rejected begin
    chosen, rejected    an Image feature, encoded bytes, the path of an image, or messages with one image in
                        them

`chosen` is preferred. The source is a folder of `datasets.save_to_disk`, a parquet, JSON or JSON Lines file,
or a dataset on the Hub. Rows whose `chosen` and `rejected` are texts are refused.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from data_recipes.pipeline import Judgement, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

IMAGE_NAMES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, columns=("prompt", "chosen", "rejected"))


def _judge(row: Row, options: SourceOptions) -> Judgement:
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" not in row and isinstance(chosen, list) and isinstance(rejected, list):
        turns = zip(chosen, rejected, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], turns))
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        prompt = row["prompt"]
    first, second = _image(chosen, "chosen"), _image(rejected, "rejected")
    return Judgement(prompt=_text(prompt), first=first, second=second, p=1.0)


def _text(prompt: Any) -> Any:
    if not isinstance(prompt, list):
        return prompt
    asked = [message["content"] for message in prompt if message["role"] == "user"]
    if not asked or isinstance(asked[-1], str):
        return asked[-1] if asked else None
    if any(part["type"] == "image" for part in asked[-1]):
        raise DataError("the prompt has an image; only prompts of text are supported")
    return "\n".join(part["text"] for part in asked[-1] if part["type"] == "text")


def _image(value: Any, name: str) -> Any:
    if isinstance(value, list):
        parts = [part for message in value for part in message["content"] if isinstance(part, dict)]
        images = [part[part["type"]] for part in parts if part["type"] in ("image", "path")]
        if len(images) != 1:
            raise DataError(f"{name} must have one image; its messages have {len(images)}")
        value = images[0]
    if isinstance(value, str) and not value.lower().endswith(IMAGE_NAMES):
        raise DataError(f"{name} is a text, {value[:40]!r}; candidates must be images")
    return value


RECIPE = dataset(
    name="trl",
    summary="a preference dataset in TRL's form: prompt, chosen and rejected, which are images",
    source=Source(needs="save_to_disk, parquet or JSON Lines files, or hf://org/name"),
    read=_read,
    judge=_judge,
)
