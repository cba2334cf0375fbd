"""The recipe `trl`: preference datasets in TRL's form, of images, of videos, or of texts about images.

    prompt              a text, or messages of which the last one of the user is taken; without this column,
                        the messages with which both chosen and rejected begin
    chosen, rejected    an Image or Video feature, encoded bytes, the paths of two images or videos, or
                        messages with one image in them; or a text, or messages without images
    images, image       the images that the prompt is about (TRL's form for vision-language models); without
                        them, those in the messages of the prompt

`chosen` is preferred. In a row with `images` or `image`, chosen and rejected are texts. The source is a
folder of `datasets.save_to_disk`, a parquet, JSON or JSON Lines file, or a dataset on the Hub.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from data_recipes.pipeline import Judgement, SourceOptions, Text, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError
from prefrm.media import MEDIA_SUFFIXES

__all__ = ["RECIPE"]


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, columns=("prompt", "chosen", "rejected", "images", "image"))


def _judge(row: Row, options: SourceOptions) -> Judgement:
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" not in row and isinstance(chosen, list) and isinstance(rejected, list):
        turns = zip(chosen, rejected, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], turns))
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        prompt = row["prompt"]
    if isinstance(prompt, list):
        prompt = [message for message in prompt if message["role"] == "user"][-1:]
    # A text may look like the name of a file, so that names are paths only where both are.
    paths = all(isinstance(one, str) and one.lower().endswith(MEDIA_SUFFIXES) for one in (chosen, rejected))
    given = row.get("images") or ([row["image"]] if row.get("image") is not None else [])
    first, second = (
        _candidate(one, name, bool(given), paths)
        for one, name in ((chosen, "chosen"), (rejected, "rejected"))
    )
    return Judgement(
        prompt=_text(prompt) if isinstance(prompt, list) else prompt,
        first=first,
        second=second,
        p=1.0,
        context=given or (_images(prompt) if isinstance(prompt, list) else ()),
    )


def _candidate(value: Any, name: str, is_text: bool, is_path: bool) -> Any:
    """An image, a video or a text; a string is a text unless `is_path` and not `is_text`."""
    if isinstance(value, list):
        images = _images(value)
        if not images:
            return Text(_text(value))
        if len(images) > 1 or is_text:
            raise DataError(f"{name} must be a text or one image; its messages have {len(images)} images")
        return images[0]
    if isinstance(value, str) and (is_text or not is_path):
        return Text(value)
    return value


def _parts(messages: list[Any]) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message["content"]
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(messages: list[Any]) -> str:
    return "\n".join(part["text"] for part in _parts(messages) if part["type"] == "text")


def _images(messages: list[Any]) -> list[Any]:
    """The images in messages, but not the places of those in the column `images`."""
    found = (part.get(part["type"]) for part in _parts(messages) if part["type"] in ("image", "path"))
    return [image for image in found if image is not None]


RECIPE = dataset(
    name="trl",
    summary="a preference dataset in TRL's form: prompt, chosen and rejected (images, or texts about images)",
    source=Source(needs="save_to_disk, parquet or JSON Lines files, or hf://org/name"),
    read=_read,
    judge=_judge,
)
