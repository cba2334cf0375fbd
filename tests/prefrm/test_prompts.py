"""Templates: the order in which a judge reads, and that a published wording never changes."""

import hashlib
import json
from dataclasses import asdict

import pytest

from prefrm.errors import ConfigError
from prefrm.prompts import TEMPLATES, Template, default_template, get_template

# A trained judge depends on every letter of its template: a new wording needs a new id.
PUBLISHED = {
    "match-v1": "c4fe7a13f258ee90",
    "match-twice-v1": "4e1731c16e928d0e",
    "match-or-tie-v1": "5c525814177b0320",
    "match-or-tie-twice-v1": "3103c6c2fabfdbe2",
    "match-late-v1": "0f338c83f5662b86",
    "match-or-tie-late-v1": "39ce712c297692df",
    "rate-v1": "d1f0bb2e4e485030",
    "rate-twice-v1": "f539fc3420c2490a",
}


LATER = {"suffixes": None, "images_first": False, "answer_prefix": ""}
"""Fields that templates had not when the first were published, with what they are there."""


def content(template: Template) -> list[str]:
    """The texts of its message, with an empty one in the place of each image."""
    (message,) = template.messages("a red circle")
    assert message["role"] == "user"
    return [item.get("text", "") for item in message["content"]]


def test_the_prompt_stands_before_the_images_and_the_question_after_them():
    assert default_template(attention="joint") == "match-v1"
    first, image, second, another, question = content(get_template("match-v1"))
    assert first == "Prompt:\na red circle\nImage 1:"
    assert second == "\nImage 2:"
    assert question.endswith("1 or 2?")
    assert image == another == ""


def test_a_late_template_asks_before_the_image_and_ends_in_a_suffix():
    template = get_template(default_template(attention="late"))
    first, image, last = content(template)
    assert first == "Prompt:\na red circle" + template.question + "\nImage:"
    assert image == ""
    assert last == "\nPrompt:\na red circle" + template.suffixes[0]
    assert template.suffixes[0].replace("1", "2") == template.suffixes[1]


def test_a_template_may_state_the_prompt_a_second_time_after_the_images():
    first, *_, last = content(get_template("match-twice-v1"))
    assert first == "Prompt:\na red circle\nImage 1:"
    assert last.startswith("\nPrompt:\na red circle\n")
    assert last.endswith("1 or 2?")


def test_a_template_of_one_image_has_no_answers():
    template = get_template(default_template(attention="alone"))
    assert len(content(template)) == 3
    assert template.images == 1 and template.answers == () and not template.ties


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"second": "2:", "suffixes": ("a", "b")}, "suffixes for two slots, not both"),
        ({"suffixes": ("a", "b")}, "'late' has 2 or 3 answers; received 0"),
        ({"second": "2:", "answers": ("1",)}, "'joint' has 2 or 3 answers; received 1"),
        ({"answers": ("1", "2")}, "'alone' has 0 answers; received 2"),
        ({"images_first": True}, "has the text before the prompt in `again`"),
        ({"images_first": True, "again": "", "first": "1:"}, "neither `first` nor `suffixes`"),
    ],
)
def test_a_template_of_no_attention_is_refused(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Template(**{"id": "t", "instruction": "", "first": "", "question": ""} | fields)


@pytest.mark.parametrize("attention", ["late", "joint"])
def test_a_third_answer_is_the_tie(attention: str):
    template = get_template(default_template(attention=attention, ties=True))
    assert template.ties and template.answers == ("1", "2", "0")


def test_an_unknown_template_is_refused_with_the_list_of_ids():
    with pytest.raises(ConfigError, match=r"no template 'nope'; templates: match-late-v1, .*, rate-v1"):
        get_template("nope")


def wording(template: Template) -> str:
    """A hash of its texts; a field that a template had not when it was published is not one of them."""
    fields = {name: value for name, value in asdict(template).items() if (name, value) not in LATER.items()}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def test_published_templates_keep_their_wording():
    assert {name: wording(template) for name, template in TEMPLATES.items()} == PUBLISHED
