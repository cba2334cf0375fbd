"""Templates: the order in which a judge reads, and that a published wording never changes."""

import hashlib
import json
from dataclasses import asdict

import pytest

from prefrm.errors import ConfigError
from prefrm.prompts import TEMPLATES, default_template, get_template

# A trained judge depends on every letter of its template: a new wording needs a new id.
PUBLISHED = {
    "match-v1": "c4fe7a13f258ee90",
    "match-twice-v1": "4e1731c16e928d0e",
    "match-or-tie-v1": "5c525814177b0320",
    "match-or-tie-twice-v1": "3103c6c2fabfdbe2",
    "rate-v1": "d1f0bb2e4e485030",
    "rate-twice-v1": "f539fc3420c2490a",
}


def test_the_prompt_stands_before_the_images_and_the_question_after_them():
    assert default_template(images=2) == "match-v1"
    template = get_template("match-v1")
    (message,) = template.messages("a red circle")
    assert message["role"] == "user"
    kinds = [item["type"] for item in message["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]
    first, _, second, _, question = (item.get("text") for item in message["content"])
    assert first == "Prompt:\na red circle\nImage 1:"
    assert second == "\nImage 2:"
    assert question.endswith("1 or 2?")
    assert template.answers == ("1", "2")


def test_a_template_may_state_the_prompt_a_second_time_after_the_images():
    (message,) = get_template("match-twice-v1").messages("a red circle")
    first, *_, last = (item.get("text") for item in message["content"])
    assert first == "Prompt:\na red circle\nImage 1:"
    assert last.startswith("\nPrompt:\na red circle\n")
    assert last.endswith("1 or 2?")


def test_a_template_of_one_image_has_no_answers():
    template = get_template(default_template(images=1))
    (message,) = template.messages("a red circle")
    assert [item["type"] for item in message["content"]] == ["text", "image", "text"]
    assert template.images == 1 and template.answers == () and not template.ties


def test_a_third_answer_is_the_tie():
    template = get_template(default_template(images=2, ties=True))
    assert template.ties and template.answers == ("1", "2", "0")


def test_an_unknown_template_is_refused_with_the_list_of_ids():
    with pytest.raises(
        ConfigError, match=r"no template 'nope'; templates: match-or-tie-twice-v1, .*, rate-v1"
    ):
        get_template("nope")


def test_published_templates_keep_their_wording():
    hashes = {
        name: hashlib.sha256(json.dumps(asdict(template), sort_keys=True).encode()).hexdigest()[:16]
        for name, template in TEMPLATES.items()
    }
    assert hashes == PUBLISHED
