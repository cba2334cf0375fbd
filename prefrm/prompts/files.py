"""Templates from text files: a person's own wording, or that of a published judge.

A file is the user's turn, word for word, with `{image}` once or twice and `{prompt}`. The images stand first,
and the prompt once after them; or the prompt stands first, and may be stated again after the images. Images
that stand first may follow a `{context}`: an image that belongs to the prompt, such as the source of an edit.
All else is literal, line breaks and other braces included. Where the judge answers, a line break and
`{answer}` end the turn. What follows on that line starts the answer, and each further line is one answer: the
image shown first, the second, and the tie if there is one; or, of one image, yes and no. `|` separates
spellings.

    {image}{image}Which image shows the caption better?
    Caption: [{prompt}]
    {answer}
    Image 1 is better
    Image 2 is better
    Both|Neither

`{space}` is a space that an editor would strip from the end of a line.
"""

import re
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import read_regular
from prefrm.prompts.template import Template

__all__ = ["FILE", "SPACE", "parse_template", "read_template", "read_text", "split_answers"]

FILE = "file:"
"""Prefix of a template file's path where a template id is expected."""
MOST_BYTES = 64 * 2**10
"""Of a file; published wordings have a few thousand."""
PLACEHOLDER = re.compile(r"\{(context|image|prompt)\}")
ANSWER, SPACE = "{answer}", "{space}"
"""The start of the answer, and a space."""
ORDERS = (
    "{image}{image}{prompt} or {image}{prompt}, perhaps after a {context}; or a {prompt} before the images "
    "and perhaps one after them"
)


def read_template(path: Path | str) -> Template:
    """The template in a text file; its id is `file:` and the file's name.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is not a template.
    """
    file = Path(path)
    return parse_template(read_text(file), id=f"{FILE}{file.name}")


def read_text(file: Path) -> str:
    """The text of a template's file. Raises `ConfigError` if it cannot be read or is not UTF-8."""
    try:
        return read_regular(file, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the template file {file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the template file {file} is not UTF-8: {error.reason}") from error


def parse_template(text: str, *, id: str) -> Template:
    """The template that a file's text describes.

    Raises:
        ConfigError: a placeholder is missing, or stands where none may.
    """
    turn, prefix, answers = split_answers(text, repr(id))
    first, *rest = PLACEHOLDER.split(turn.replace(SPACE, " "))
    names, texts = rest[::2], rest[1::2]
    images = names.count("image")
    shown = ["image"] * images
    if images not in (1, 2) or names not in (
        [*shown, "prompt"],
        ["context", *shown, "prompt"],
        ["prompt", *shown],
        ["prompt", *shown, "prompt"],
    ):
        order = "".join(f"{{{name}}}" for name in names) or "none"
        raise ConfigError(f"template {id!r} needs its placeholders in the order {ORDERS}; received {order}")
    images_first = names[0] != "prompt"
    context = texts.pop(0) if names[0] == "context" else None
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
        answer_prefix=prefix or "",
        context=context,
    )


def split_answers(text: str, name: str) -> tuple[str, str | None, tuple[str, ...]]:
    """The turns of a template's text, the start of the answer, None if it does not say, and the answers.

    Raises:
        ConfigError: `{answer}` does not stand once and at the start of a line, or an answer is empty.
    """
    turn, *rest = text.replace("\r\n", "\n").removesuffix("\n").split(ANSWER)
    if not rest:
        return turn, None, ()
    if len(rest) > 1 or not turn.endswith("\n"):
        raise ConfigError(f"template {name} has {ANSWER} once, at the start of a line, or not at all")
    prefix, *answers = rest[0].replace(SPACE, " ").split("\n")
    if "" in answers:
        raise ConfigError(f"template {name} has an empty line after {ANSWER}; each line there is an answer")
    return turn.removesuffix("\n"), prefix, tuple(answers)
