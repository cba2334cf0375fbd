"""What groups of a training split had, and how other groups differ from it."""

from functools import reduce

import pytest

from prefrm.errors import ConfigError
from prefrm.winmatrix import TrainingCheck, TrainingInputs
from prefrm.winmatrix.training_inputs import MOST_CHARACTERS, MOST_CRITERIA, MOST_WARNINGS


def of_groups(*groups: tuple[int, str]) -> TrainingInputs:
    """Of groups with that number of context images and that criterion."""
    return reduce(TrainingInputs.merged, (TrainingInputs.of(*group) for group in groups))


EDITS = of_groups((1, ""), (1, ""))
CRITERIA = of_groups((0, "size"), (0, "hue"), (0, "hue"))
MIXED = of_groups((0, ""), (3, "hue"))
RUBRICS = of_groups(*((1, f"question {n}") for n in range(MOST_CRITERIA + 1)))
PARAGRAPH = of_groups((0, "long " * MOST_CHARACTERS), (0, ""))


@pytest.mark.parametrize(
    ("trained", "text"),
    [
        (EDITS, "1 context image and no criterion"),
        (CRITERIA, "no context image and criterion 'hue' or 'size'"),
        (MIXED, "0 to 3 context images and criterion 'hue' or no criterion"),
        (RUBRICS, "1 context image and one of many criteria"),
        (PARAGRAPH, "no context image and one of many criteria or no criterion"),
        (
            of_groups(*((2, f"{n}\n") for n in range(6))),
            "2 context images and criterion '0' or '1' or '2' or '3' or one of 2 more",
        ),
    ],
)
def test_what_groups_had_is_one_line(trained: TrainingInputs, text: str):
    assert trained.describe() == text


@pytest.mark.parametrize(
    ("trained", "images", "criterion", "expected"),
    [
        (EDITS, 1, "", []),
        (EDITS, 0, "", ["context"]),
        (EDITS, 2, "hue", ["context", "criterion"]),
        (CRITERIA, 0, "hue", []),
        (CRITERIA, 0, "Hue", ["criterion"]),
        (CRITERIA, 1, "", ["context", "criterion"]),
        (MIXED, 2, "", []),
        (MIXED, 4, "hue", ["context"]),
        (RUBRICS, 1, "another question", []),
        (RUBRICS, 1, "", ["criterion"]),
        (PARAGRAPH, 0, "", []),
    ],
)
def test_a_group_differs_where_no_training_group_was_alike(
    trained: TrainingInputs, images: int, criterion: str, expected: list[str]
):
    assert list(trained.differences(images, criterion)) == expected


def test_each_difference_is_warned_of_once_up_to_a_number(caplog: pytest.LogCaptureFixture):
    check = TrainingCheck(of_groups((1, "hue")), "mine")
    for group in [(1, "hue"), (1, ""), (1, "mood"), (0, "hue"), (5, "tone"), (0, "")] * 2:
        check(*group)
    found = [record.getMessage().split(": a group has ")[1].split(",")[0] for record in caplog.records]
    assert found == ["no criterion", "another criterion", "no context image", "5 context images"]
    for images in range(2, 2 + MOST_WARNINGS):
        check(images, "hue")
    assert len(caplog.records) == MOST_WARNINGS


@pytest.mark.parametrize(
    "change",
    [
        {"least_context": 2},
        {"least_context": -1},
        {"criteria": tuple(map(str, range(MOST_CRITERIA + 1)))},
    ],
)
def test_what_no_training_split_has_is_refused(change: dict):
    fields = {"least_context": 0, "most_context": 1, "criteria": (), "no_criterion": True}
    with pytest.raises(ConfigError, match="must be"):
        TrainingInputs(**{**fields, **change})
