"""Templates in text files: what each part of a file becomes, and files that are none."""

from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.prompts import Template, parse_template, read_template

PAIR = '{image} and\n{image}Say {"best": 1} for [{prompt}].\n\n{answer}Image{space}\n1\n2\nno\n'


def parsed(text: str, **fields) -> bool:
    """Whether a text is the template of those fields."""
    plain = {"id": "t", "instruction": "", "first": "", "question": ""}
    return parse_template(text, id="t") == Template(**plain | fields)


def test_all_but_the_placeholders_is_literal():
    assert parsed(
        PAIR,
        second=" and\n",
        again='Say {"best": 1} for [',
        question="].\n",
        answers=("1", "2", "no"),
        images_first=True,
        answer_prefix="Image ",
    )


def test_one_image_needs_no_answer():
    assert parsed(
        "See {image}Rate {prompt}{space}", instruction="See ", again="Rate ", question=" ", images_first=True
    )


def test_the_prompt_may_stand_first_and_again():
    assert parsed("P {prompt} I {image} Q", instruction="P ", first=" I ", question=" Q")
    assert parsed(
        "P {prompt} 1 {image} 2 {image} p {prompt} Q\n{answer}\n1\n2",
        instruction="P ",
        first=" 1 ",
        second=" 2 ",
        again=" p ",
        question=" Q",
        answers=("1", "2"),
    )


def test_a_message_has_the_images_as_items_before_one_text():
    (message,) = parse_template(PAIR, id="t").messages("a {image} of a cat")
    image = {"type": "image"}
    text = {"type": "text", "text": 'Say {"best": 1} for [a {image} of a cat].\n'}
    assert message["content"] == [image, {"type": "text", "text": " and\n"}, image, text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{image}{image}", r"in the order .*; received \{image\}\{image\}"),
        ("words", "received none"),
        ("{image}{prompt}{image}\n{answer}\n1\n2", r"received \{image\}\{prompt\}\{image\}"),
        ("{image}{image}{image}{prompt}", "in the order"),
        ("{image}{prompt}{prompt}", "in the order"),
        ("{image}{image}{prompt}{answer}\n1\n2", "at the start of a line"),
        ("{image}{image}{prompt}\n{answer}\n{answer}\n1\n2", "has {answer} once"),
        ("{image}{image}{prompt}\n{answer}\n1\n\n2", "an empty line after"),
        ("{image}{image}{prompt}\n{answer}\n1", "has 2 or 3 answers; received 1"),
    ],
)
def test_a_file_that_is_no_template_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_template(text, id="t")


def test_a_file_names_its_template_and_not_its_folder(tmp_path: Path):
    path = tmp_path / "rank.txt"
    path.write_bytes(b"\xef\xbb\xbf" + PAIR.replace("\n", "\r\n").encode())
    template = read_template(path)
    assert template == parse_template(PAIR, id="file:rank.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not UTF-8"),
        (b"x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "rank.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"rank\.txt.*{message}"):
        read_template(path)
