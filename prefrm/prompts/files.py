"""Templates in a person's own words, or a published judge's: a text file, or its text in a configuration.

The text is the user's turn, word for word, with `{candidate}` once or twice, for which `{image}` is another
name, and `{prompt}` before them, after them, or both. `{context}`, before the candidates, is any number of
images that belong to the prompt, such as the source of an edit, and `{criterion}` may stand anywhere. A line
with one of these two and no other placeholder is left out where a group has none; elsewhere every group needs
it. All else is literal, line breaks and other braces included. Where the judge answers, a line break and
`{answer}` end the turn. What follows on that line starts the answer, and each further line is one answer:
the candidate shown first, the second, and the tie if there is one; or, of one candidate, yes and no. `|`
separates spellings.

    {image}{image}Which image shows the caption better?
    Caption: [{prompt}]
    {answer}
    Image 1 is better
    Image 2 is better
    Both|Neither

Of a late judge, a line break and `{suffix}` end the turn, and start each of the two texts that sum up a
candidate as first and as second of a comparison:

    Prompt: {prompt}
    Image:{image}
    {suffix}
    Criterion: {criterion}
    How good is image 1?
    {suffix}
    Criterion: {criterion}
    How good is image 2?
    {answer}
    1
    2

`{space}` is a space that an editor would strip from the end of a line, and `{noun}` is "image", "video" or
"answer", by the kind of the candidates, also in the answers.
"""

import hashlib
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import read_regular
from prefrm.prompts.template import Template

__all__ = ["FILE", "INLINE", "SPACE", "parse_template", "read_template", "read_text", "split_answers"]

FILE = "file:"
"""Prefix of a template file's path where a template id is expected."""
INLINE = "text:"
"""Prefix of the id of a template that a configuration holds; digits of its text's sha256 follow."""
DIGITS = 12
MOST_BYTES = 64 * 2**10
"""Of a file; published wordings have a few thousand."""
ANSWER, SPACE, SUFFIX = "{answer}", "{space}", "{suffix}"
"""The start of the answer, a space, and the start of a text that sums up a candidate."""


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


def parse_template(text: str, *, id: str = "") -> Template:
    """The template that a text describes, by default with an id that is made of the text.

    Raises:
        ConfigError: a placeholder is missing, or stands where none may.
    """
    id = id or INLINE + hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    turns, prefix, answers = split_answers(text, repr(id))
    turn, *suffixes = turns.replace(SPACE, " ").split(f"\n{SUFFIX}")
    if len(suffixes) not in (0, 2) or SUFFIX in turn:
        raise ConfigError(
            f"template {id!r} has {SUFFIX} twice, for a candidate shown first and second, at the start of a "
            "line, or not at all"
        )
    return Template(
        id=id,
        turn=turn,
        suffixes=(suffixes[0], suffixes[1]) if suffixes else None,
        answers=answers,
        answer_prefix=prefix or "",
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
