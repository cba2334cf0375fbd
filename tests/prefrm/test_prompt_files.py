"""Templates in text files: what each part of a file becomes, and files that are none."""

from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.prompts import Template, parse_template, read_template

PAIR = '{image} and\n{image}Say {"best": 1} for [{prompt}].\n\n{answer}Image{space}\n1\n2\nno\n'


def test_a_text_is_the_turn_word_for_word_and_its_answers():
    template = parse_template(PAIR, id="t")
    assert template == Template(
        id="t",
        turn='{image} and\n{image}Say {"best": 1} for [{prompt}].\n',
        answers=("1", "2", "no"),
        answer_prefix="Image ",
    )
    assert template.images_first and template.attention == "joint"


def test_a_context_image_stands_before_the_candidates():
    (message,) = parse_template("Source {context} edited {image} follows {prompt}?", id="t").messages(
        "it", context=1
    )
    image = {"type": "image"}
    texts = [{"type": "text", "text": text} for text in ("Source ", " edited ", " follows it?")]
    assert message["content"] == [texts[0], image, texts[1], image, texts[2]]


def test_one_image_needs_no_answer():
    template = parse_template("See {image}Rate {prompt}{space}", id="t")
    assert template.attention == "alone" and template.turn == "See {image}Rate {prompt} "


@pytest.mark.parametrize(
    ("text", "images_first", "restates"),
    [
        ("P {prompt} I {image} Q", False, False),
        ("P {prompt} I {image} p {prompt} Q", False, True),
        ("I {image} p {prompt} Q", True, True),
    ],
)
def test_the_prompt_may_stand_first_and_again(text: str, images_first: bool, restates: bool):
    template = parse_template(text, id="t")
    assert (template.images_first, template.restates) == (images_first, restates)


LATE = """Context: {context}
{prompt}{image}
{suffix}
By {criterion}:
{noun} 1?
{suffix}
By {criterion}:
{noun} 2?
{answer}Of the {noun}s:
{noun} 1
{noun} 2
"""


def test_a_late_template_has_two_suffixes_and_lines_that_may_be_absent():
    template = parse_template(LATE).named("video")
    assert template.suffixes == ("\nBy {criterion}:\nvideo 1?", "\nBy {criterion}:\nvideo 2?")
    assert (template.answer_prefix, template.answers) == ("Of the videos:", ("video 1", "video 2"))
    (message,) = template.messages("it")
    assert [item.get("text", "") for item in message["content"]] == ["it", "", "\nvideo 1?"]
    (message,) = template.messages("it", context=2, criterion="hue")
    texts = [item.get("text", "") for item in message["content"]]
    assert texts == ["Context: ", "", "", "\nit", "", "\nBy hue:\nvideo 1?"]


@pytest.mark.parametrize(
    ("text", "has", "needs"),
    [
        ("{prompt}{image}", "", ""),
        ("{context}\n{prompt}{image}\nby {criterion}", "context criterion", ""),
        ("{context}{prompt}{image}\nby {criterion}", "context criterion", "context"),
        ("{context}\n{prompt}{image} by {criterion}", "context criterion", "criterion"),
    ],
)
def test_a_line_with_another_placeholder_cannot_be_left_out(text: str, has: str, needs: str):
    template = parse_template(text)
    for name in ("context", "criterion"):
        assert getattr(template, f"has_{name}") == (name in has)
        assert getattr(template, f"needs_{name}") == (name in needs)


def test_a_message_has_the_images_as_items_before_one_text():
    (message,) = parse_template(PAIR, id="t").messages("a {image} of a cat")
    image = {"type": "image"}
    text = {"type": "text", "text": 'Say {"best": 1} for [a {image} of a cat].\n'}
    assert message["content"] == [image, {"type": "text", "text": " and\n"}, image, text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{image}{image}", r"in the order .*; received \{candidate\}\{candidate\}"),
        ("words", "received none"),
        ("{prompt}{image}{context}", r"received \{prompt\}\{candidate\}\{context\}"),
        ("{prompt}{image}\n{suffix}\na\n{answer}\n1\n2", "has {suffix} twice"),
        ("{prompt}{image}{suffix}a\n{suffix}b\n{suffix}c\n{answer}\n1\n2", "has {suffix} twice"),
        ("{image}{context}{image}{prompt}", "in the order"),
        ("{image}{prompt}{image}\n{answer}\n1\n2", r"received \{candidate\}\{prompt\}\{candidate\}"),
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
