"""Templates from text files: a person's own wording, or that of a published judge.

A file is the user's turn, word for word, with `{image}` once or twice and `{prompt}`. The images stand first,
and the prompt once after them; or the prompt stands first, and may be stated again after the images. All else
is literal, line breaks and other braces included. Where the judge answers, a line break and `{answer}` end
the turn. What follows on that line starts the answer, and each further line is one answer: the image shown
first, the second, and the tie if there is one.

    {image}{image}Which image shows the caption better?
    Caption: [{prompt}]
    {answer}Image{space}
    1
    2

`{space}` is a space that an editor would strip from the end of a line.
"""

import re
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import read_regular
from prefrm.prompts.template import Template

__all__ = ["FILE", "parse_template", "read_template"]

FILE = "file:"
"""What precedes the path of a template's file in the place of a template's id."""
MOST_BYTES = 64 * 2**10
"""Of a file; published wordings have a few thousand."""
PLACEHOLDER = re.compile(r"\{(image|prompt)\}")
ANSWER, SPACE = "{answer}", "{space}"
ORDERS = "{image}{image}{prompt}, {image}{prompt}, or a {prompt} before the images and perhaps one after them"


def read_template(path: Path | str) -> Template:
    """The template in a text file; its id is `file:` and the file's name.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is not a template.
    """
    file = Path(path)
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the template file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the template file {file} is not UTF-8: {error.reason}") from error
    return parse_template(text, id=f"{FILE}{file.name}")


def parse_template(text: str, *, id: str) -> Template:
    """The template that a file's text describes.

    Raises:
        ConfigError: a placeholder is missing, or stands where none may.
    """
    turn, prefix, answers = _answers(text.replace("\r\n", "\n"), id)
    first, *rest = PLACEHOLDER.split(turn.replace(SPACE, " "))
    names, texts = rest[::2], rest[1::2]
    images = names.count("image")
    shown = ["image"] * images
    if images not in (1, 2) or names not in (
        [*shown, "prompt"],
        ["prompt", *shown],
        ["prompt", *shown, "prompt"],
    ):
        order = "".join(f"{{{name}}}" for name in names) or "none"
        raise ConfigError(f"template {id!r} needs its placeholders in the order {ORDERS}; received {order}")
    images_first = names[0] == "image"
    before = "" if images_first else texts.pop(0)
    between = texts[: images - 1]
    after, *closing = texts[images - 1 :]
    return Template(
        id=id,
        instruction=first,
        first=before,
        second=between[0] if between else None,
        again=after if closing else None,
        question=closing[0] if closing else after,
        answers=answers,
        images_first=images_first,
        answer_prefix=prefix,
    )


def _answers(text: str, id: str) -> tuple[str, str, tuple[str, ...]]:
    """The user's turn, the start of the assistant's, and the answers."""
    turn, *rest = text.removesuffix("\n").split(ANSWER)
    if not rest:
        return turn, "", ()
    if len(rest) > 1 or not turn.endswith("\n"):
        raise ConfigError(f"template {id!r} has {ANSWER} once, at the start of a line, or not at all")
    prefix, *answers = rest[0].replace(SPACE, " ").split("\n")
    if "" in answers:
        raise ConfigError(f"template {id!r} has an empty line after {ANSWER}; each line there is an answer")
    return turn.removesuffix("\n"), prefix, tuple(answers)
