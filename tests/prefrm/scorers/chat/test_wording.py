"""Wordings: the messages that a template becomes, and templates that are refused."""

import pytest

from prefrm.errors import ConfigError
from prefrm.scorers.chat import DIALECTS
from prefrm.scorers.chat.wording import parse_wording, read_wording
from prefrm.winmatrix import Inputs


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def text(words):
    return {"type": "text", "text": words}


def test_images_first_and_the_caption_last():
    wording = parse_wording('{image}{image}Which? {"winner": 1}\nCaption: [{prompt}]\n', name="t")
    (message,) = wording.messages("a {image} of {prompt}", ["first", "second"])
    asked = 'Which? {"winner": 1}\nCaption: [a {image} of {prompt}]'
    assert message == {"role": "user", "content": [image("first"), image("second"), text(asked)]}


def test_turns_and_a_source_image():
    wording = parse_wording(
        "{system}\nJudge: {prompt}\n{user}\nBefore{context}\n{user}\n1:{image}2:{image}", name="t"
    )
    assert wording.messages("p", ["a", "b"], ["source"]) == [
        {"role": "system", "content": "Judge: p"},
        {"role": "user", "content": [text("Before"), image("source")]},
        {"role": "user", "content": [text("1:"), image("a"), text("2:"), image("b")]},
    ]


ASKED = "{prompt}\nContext:{context}\n1: {text}\n2: {text}\nBy {criterion}.\nWhich?"


def test_texts_and_lines_that_are_left_out_where_a_group_has_nothing_for_them():
    wording = parse_wording(ASKED, name="t")
    assert wording.inputs == Inputs(kinds=("text",), context=True, criterion=True)
    assert wording.messages("p", ["one", "two"]) == [{"role": "user", "content": "p\n1: one\n2: two\nWhich?"}]
    (message,) = wording.messages("p", ["one", "two"], ["a", "b"], "detail")
    asked = "\n1: one\n2: two\nBy detail.\nWhich?"
    assert message["content"] == [text("p\nContext:"), image("a"), image("b"), text(asked)]


def test_what_stands_beside_a_candidate_every_group_needs():
    wording = parse_wording("{context}{context}{image}{image}By {criterion}: {prompt}", name="t")
    assert wording.context == 2
    assert wording.inputs == Inputs(context=True, criterion=True, needs_context=True, needs_criterion=True)
    alone = parse_wording("{user}\nSource:{context}\n{user}\n{image}{prompt}", name="t")
    assert alone.context is None
    assert [len(alone.messages("p", ["a"], context)) for context in ([], ["b", "c"])] == [1, 2]


def test_the_answer_of_a_template_is_its_prefix_and_labels(tmp_path):
    file = tmp_path / "rank.txt"
    file.write_bytes("\ufeff{image}{image}{prompt}\r\n{answer}Image{space}\r\n1\r\n2\r\n".encode())
    wording = read_wording(file)
    assert (wording.prefix, wording.labels) == ("Image ", ("1", "2"))
    assert wording.messages("p", ["a", "b"])[0]["content"][2] == text("p")


RANK = "{answer}\nImage 1 is better\nImage 2 is better\nBoth|Neither\n"


@pytest.mark.parametrize("answers", [RANK, "{answer}Image{space}\n1\n2\n", "{answer}\n1\n2\n", ""])
def test_a_template_of_sentences_has_their_start_and_labels(answers):
    wording = parse_wording("{image}{image}{prompt}\n" + answers, name="t")
    rank = DIALECTS["unifiedreward-rank"].answering(wording.prefix or "", wording.labels)
    assert (rank.prefix, rank.labels, rank.opening) == ("Image ", ("1", "2"), "Image ")
    assert rank.tie == ("Both|Neither" if answers == RANK else "Both")


@pytest.mark.parametrize("answers", [("A", "B"), ("Image 2 is better", "Image 1 is better"), ("1",)])
def test_answers_that_a_dialect_does_not_read_are_refused(answers):
    with pytest.raises(ConfigError, match="sentences that it reads; the template has"):
        DIALECTS["unifiedreward-rank"].answering("", answers)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{image}{image}Which?", "needs {image}, or {text}, once or twice and {prompt}"),
        ("{image}{image}{image}{prompt}", "received 3"),
        ("{user}\n{image}{prompt}\n{system}\nno", "its last turn must be the user's"),
        ("{image}{prompt}{answer}1", "at the start of a line"),
        ("{image}{prompt}\n{answer}\n1\n\n2", "empty line"),
        ("{image}{prompt}\ue000", "private-use characters"),
        ("{candidate}{text}{prompt}", "has {text}, beside {image}"),
        ("{image}{prompt}, which {noun}?", "has {noun}, which is not filled in"),
        ("{image}{prompt}\n{suffix}\n1\n{suffix}\n2", "has {suffix}, which"),
        ("{system} be just\n{user}\n{image}{prompt}", "has {system}, which starts a turn"),
    ],
)
def test_a_template_that_asks_nothing_is_refused(words, said):
    with pytest.raises(ConfigError, match="template t") as error:
        parse_wording(words, name="t")
    assert said in str(error.value)


def test_a_template_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.txt cannot be read"):
        read_wording(tmp_path / "nowhere.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe{image}")
    with pytest.raises(ConfigError, match=r"binary\.txt is not UTF-8"):
        read_wording(tmp_path / "binary.txt")


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_every_wording_shows_what_its_dialect_needs(dialect):
    wording = dialect.wording
    candidates = ["first one", "second one"][: wording.candidates]
    asked = str(wording.messages("the caption", candidates, ["source"], "the criterion"))
    assert "the caption" in asked and all(one in asked for one in candidates)
    assert wording.inputs.context == ("source" in asked)
    assert wording.inputs.criterion == ("the criterion" in asked)
