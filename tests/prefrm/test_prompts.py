"""Templates: the order in which a judge reads, and that a published wording never changes."""

import hashlib
import json
from dataclasses import asdict

import pytest

from prefrm.errors import ConfigError
from prefrm.prompts import TEMPLATES, Template, default_template, get_template

# A trained judge depends on every letter of its template: a new wording needs a new id.
PUBLISHED = {
    "match-v1": "fefdb5aac02df44f",
    "match-twice-v1": "ccc2cf442680ee20",
    "match-or-tie-v1": "fc4d66afaa7b8bda",
    "match-or-tie-twice-v1": "4102317db1ea445f",
    "match-late-v1": "0180035ea3b5dd36",
    "match-or-tie-late-v1": "09dba622f94037b2",
    "rate-v1": "f4590e388d7bb586",
    "rate-twice-v1": "724f44d66b812e61",
    "rate-token-v1": "961d22233b7077db",
    "shows-v1": "bfbae980e5cc37fc",
    "fit-late-v1": "b76f08d553a52b61",
    "fit-or-tie-late-v1": "8992f0b0ab382176",
    "fit-v1": "b6580b9eef07e341",
    "fit-or-tie-v1": "53bd6dbd1e54d40d",
    "fit-alone-v1": "db2de1d7fa036757",
}


TWO = "{prompt}{candidate}{candidate}"


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
    assert first == "Prompt:\na red circle\nWhich image matches better, 1 or 2?\nImage:"
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
    assert template.candidates == 1 and template.answers == () and not template.ties


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"turn": TWO, "suffixes": ("a", "b")}, "suffixes for two slots, not both"),
        ({"suffixes": ("a", "b")}, "'late' has 2 or 3 answers; received 0"),
        ({"turn": TWO, "answers": ("1",)}, "'joint' has 2 or 3 answers; received 1"),
        ({"answers": ("1", "2", "3")}, "'alone' has 0 or 2 answers; received 3"),
        ({"turn": TWO, "answers": ("1", "|".join("ab" * 9))}, "'t' has more than 16 spellings"),
        ({"suffixes": ("{criterion}", "b")}, r"suffixes of template 't' have \{criterion\}, in both"),
        ({"suffixes": ("{prompt}", "{prompt}")}, r"have \{criterion\}, in both, or no placeholder"),
        ({"turn": "\ue000{prompt}{candidate}"}, "'t' has private-use characters"),
    ],
)
def test_a_template_of_no_attention_is_refused(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Template(**{"id": "t", "turn": "{prompt}{candidate}"} | fields)


@pytest.mark.parametrize("attention", ["late", "joint"])
def test_a_third_answer_is_the_tie(attention: str):
    template = get_template(default_template(attention=attention, ties=True))
    assert template.ties and template.answers == ("1", "2", "0")


def test_an_unknown_template_is_refused_with_the_list_of_ids():
    with pytest.raises(ConfigError, match=r"no template 'nope'; templates: .*match-late-v1, .*, rate-v1"):
        get_template("nope")


def wording(template: Template) -> str:
    """A hash of its texts."""
    return hashlib.sha256(json.dumps(asdict(template), sort_keys=True).encode()).hexdigest()[:16]


def test_published_templates_keep_their_wording():
    assert {name: wording(template) for name, template in TEMPLATES.items()} == PUBLISHED
