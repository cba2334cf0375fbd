"""A judge's specification refuses what no judge can be built from."""

import pytest

from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec
from prefrm.prompts import get_template, parse_template


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_model": ""}, "base_model is empty"),
        ({"kind": "sound"}, "kind must be one of image, video, text; received 'sound'"),
        ({"frames": 8}, "frames is of kind video; received 8 and kind 'image'"),
        ({"kind": "text", "frame_rate": 2.0}, "frame_rate is of kind video; received 2.0 and kind 'text'"),
        ({"kind": "video", "frames": 0}, r"frames must be in \[1, 256\]; received 0"),
        ({"kind": "video", "frame_rate": 0.0}, "frame_rate must be positive and finite; received 0.0"),
        ({"kind": "text", "template": "rate-v1"}, "take .*'fit-late-v1'"),
        (
            {"kind": "text", "template": "match-late-v1"},
            "'match-late-v1' asks about images .* compares texts; take .*'fit-late-v1'",
        ),
        ({"kind": "video", "head": "scalar", "template": "shows-v1"}, "compares videos; .*'fit-alone-v1'"),
        ({"head": "nope"}, "head must be one of verdict, scalar, embedding; received 'nope'"),
        ({"attention": "isolated"}, "of the verdict head must be late or joint; received 'isolated'"),
        ({"template": "nope"}, "no template 'nope'"),
        (
            {"template": "match-v1"},
            "'match-v1' is for attention 'joint'.*attention=late .*; "
            "set attention: joint, or take a template such as 'match-late-v1'",
        ),
        ({"attention": "joint", "template": "match-late-v1"}, "'match-late-v1' is for .*'match-v1'"),
        (
            {"template": "rate-v1"},
            "'rate-v1' is for attention 'alone'.*the verdict head.*; take .*'match-late-v1'",
        ),
        ({"head": "scalar", "template": "match-v1"}, "the scalar head.*such as 'rate-v1'"),
        ({"template": "match-late-v1", "ties": True}, "no answer for a tie;.*'match-or-tie-late-v1'"),
        ({"attention": "joint", "template": "match-or-tie-v1"}, "has an answer for a tie;.*'match-v1'"),
        ({"head": "scalar", "attention": "late"}, "of the scalar head must be alone; received 'late'"),
        ({"head": "embedding", "ties": True}, "the embedding head has no ties"),
        ({"embedding_dim": 3}, "embedding_dim must be even and at least 2; received 3"),
        ({"normalize": False}, "normalize is of the embedding head; received head 'verdict'"),
        ({"mlp": (4,)}, r"of the scalar head; received \[4\] of the verdict head"),
        ({"head": "scalar", "mlp": (4, 0)}, r"mlp is a list of positive widths .*\[4, 0\]"),
        ({"head": "scalar", "uncertainty": "ignore"}, "uncertainty needs a scalar head with mlp"),
        ({"head": "scalar", "mlp": (4,), "uncertainty": "no"}, "ignore, integrate or null; received 'no'"),
        ({"readouts": ("<a>",)}, "a verdict is read last"),
        ({"head": "scalar", "readouts": ("<a>", "<a>")}, "readouts must be different tokens"),
        ({"head": "embedding", "readouts": ("<a>", "<b>")}, "several readouts need the scalar head"),
        ({"positions": "mrope"}, "positions must be family or sequential; received 'mrope'"),
        ({"quantize": "int3"}, "quantize must be nf4 or null; received 'int3'"),
        ({"min_label_mass": 1.5}, r"min_label_mass must be in \[0, 1\]; received 1.5"),
        ({"head": "scalar", "min_label_mass": 0.5}, "needs answers, which template 'rate-v1' has not"),
        ({"min_pixels": 0}, "min_pixels must be at least 1; received 0"),
        ({"max_pixels": -1}, "max_pixels must be at least 1; received -1"),
        ({"min_pixels": 9, "max_pixels": 8}, r"min_pixels \(9\) is larger than max_pixels \(8\)"),
    ],
)
def test_bad_values_are_named(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        JudgeSpec(**{"base_model": "some/model", **fields})


def test_the_default_template_of_videos_and_texts_has_a_place_for_a_criterion():
    video = JudgeSpec(base_model="some/model", kind="video")
    assert (video.template, video.frames, video.frame_rate) == ("fit-late-v1", 8, None)
    by_rate = JudgeSpec(base_model="some/model", kind="video", frame_rate=2.0)
    assert (by_rate.frames, by_rate.frame_rate) == (256, 2.0)
    answer = JudgeSpec(base_model="some/model", kind="text", attention="joint", ties=True)
    assert (answer.template, answer.frames) == ("fit-or-tie-v1", None)
    assert "Which answer fits better" in get_template(answer.template, answer.kind).turn


def test_a_utility_is_read_from_answers_or_by_weights():
    template = parse_template("{image}Is it {prompt}?\n{answer}\nyes\nno", id="t")
    JudgeSpec(base_model="some/model", head="scalar").check_template(template)
    for fields in (
        {"head": "embedding"},
        {"head": "scalar", "mlp": (8,)},
        {"head": "scalar", "readouts": ("r",)},
    ):
        with pytest.raises(ConfigError, match="'t' has answers to read a utility from; take head: scalar"):
            JudgeSpec(base_model="some/model", **fields).check_template(template)
