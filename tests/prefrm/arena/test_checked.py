"""Shares of checks by dimension, against hand-derived values and published rows."""

import math

import pytest

from prefrm.arena import ArenaPrompt, Check, PromptSet
from prefrm.arena.checked import (
    CheckedImage,
    check_agreement,
    image_agreement,
    macro_mean,
    measure_checks,
    scoring_of,
)
from prefrm.errors import DataError

STYLE = Check(question="ink", dimension="Style")
SIZE = Check(question="big", dimension="Attribute", subdimension="Attribute - Size")
COLOR = Check(question="red", dimension="Attribute", subdimension="Attribute - Color")
PROMPTS = (
    ArenaPrompt(id="0", text="one", tags={"theme": "Art"}, checks=(STYLE, SIZE, COLOR)),
    ArenaPrompt(id="1", text="two", tags={"theme": "Design"}, checks=(SIZE,)),
)


def prompts(name: str = "unigenbench-en", *given: ArenaPrompt) -> PromptSet:
    return PromptSet(name=name, digest="", prompts=given or PROMPTS)


def checked(prompt: str, *verdicts: float, image: int = 0) -> CheckedImage:
    return CheckedImage(prompt=prompt, image=image, verdicts=verdicts, reason="" if verdicts else "cut off")


IMAGES = (
    checked("0", 1, 1, 1),
    checked("0", 1, 0, 1, image=1),
    checked("1", 0),
    checked("1", image=1),
)


def test_the_mean_is_over_verdicts_in_a_dimension_and_over_dimensions_above() -> None:
    found = measure_checks(prompts(), IMAGES)
    assert {name: share.value for name, share in found.dimensions.items()} == {
        "Attribute": pytest.approx(3 / 5),
        "Style": 1.0,
    }
    assert {name: (share.value, share.count) for name, share in found.subdimensions.items()} == {
        "Attribute - Color": (1.0, 2),
        "Attribute - Size": (pytest.approx(1 / 3), 3),
    }
    assert found.overall.value == pytest.approx((3 / 5 + 1) / 2)
    assert found.published == {"UniGenBench overall": found.overall}
    assert {name: share.value for name, share in found.tags["theme"].items()} == {
        "Art": pytest.approx(5 / 6),
        "Design": 0.0,
    }
    assert (found.judged, found.unparsed) == (3, 1)


def test_images_and_prompts_pass_where_every_check_holds() -> None:
    found = measure_checks(prompts(), IMAGES)
    assert (found.images.value, found.images.count) == (pytest.approx(1 / 3), 3)
    assert (found.any_image.value, found.every_image.value, found.any_image.count) == (0.5, 0.0, 2)


def test_nothing_judged_is_not_a_number() -> None:
    found = measure_checks(prompts(), [checked("0")])
    assert math.isnan(found.overall.value) and math.isnan(found.images.low)
    assert (found.dimensions, found.judged, found.unparsed) == ({}, 0, 1)


def test_intervals_count_prompts_and_not_their_images() -> None:
    many = [ArenaPrompt(id=str(n), text="x", checks=(STYLE,)) for n in range(8)]
    right = [n % 2 for n in range(8)]
    alike = [checked(str(n), right[n], image=k) for n in range(8) for k in range(4)]
    once = measure_checks(prompts("text", *many), [one for one in alike if one.image == 0])
    again = measure_checks(prompts("text", *many), alike)
    assert again.overall.value == once.overall.value == 0.5
    assert (again.overall.low, again.overall.high) == pytest.approx((once.overall.low, once.overall.high))
    assert once.overall.low < 0.2 and once.overall.high > 0.8


@pytest.mark.parametrize(
    ("row", "overall"),
    [
        ("85.00 87.50 67.20 62.26 66.88 29.77 62.30 45.75 70.90 32.18", 60.97),  # FLUX.1-dev
        ("94.70 94.15 87.93 82.60 80.08 51.59 60.96 72.94 86.57 72.13", 78.36),  # Qwen-Image
        ("88.60 89.72 68.80 61.98 67.51 32.05 59.89 58.38 67.72 34.20", 62.89),  # SD-3.5-Large
        ("87.45 72.28 44.66 35.10 46.37 10.34 48.48 26.68 30.80 0.00", 40.22),  # SDXL
    ],
)
def test_the_published_rows_of_unigenbench_have_this_mean(row: str, overall: float) -> None:
    assert round(macro_mean(map(float, row.split())), 2) == overall


def test_geneval_counts_whole_images_by_task() -> None:
    first = Check(question="a dog?", dimension="two_object")
    two = ArenaPrompt(id="0", text="a dog and a cat", tags={"task": "two_object"}, checks=(first, first))
    one = ArenaPrompt(id="1", text="a dog", tags={"task": "single_object"}, checks=(first,))
    found = measure_checks(
        prompts("geneval", two, one), [checked("0", 1, 0), checked("0", 1, 1), checked("1", 1)]
    )
    assert found.published["GenEval overall"].value == pytest.approx((1 / 2 + 1) / 2)


def test_geneval2_has_both_means_of_probabilities() -> None:
    count = Check(question="how many?", dimension="count", answer="four")
    one = ArenaPrompt(id="0", text="four cats", checks=(count, count))
    found = measure_checks(prompts("geneval2", one), [checked("0", 0.9, 0.4), checked("0", 1, 0, image=1)])
    assert found.published["Soft-TIFA AM"].value == pytest.approx((0.65 + 0.5) / 2)
    assert found.published["Soft-TIFA GM"].value == pytest.approx(0.6 / 2)


def test_a_question_of_dpg_bench_fails_with_its_parent_and_so_do_its_children() -> None:
    root, child, grandchild = (
        Check(question="?", dimension="entity", parents=parents) for parents in ((), (0,), (1,))
    )
    item = ArenaPrompt(id="a", text="x", checks=(root, child, grandchild, root))
    found = measure_checks(prompts("dpg-bench", item), [checked("a", 0, 1, 1, 1)])
    assert found.published["DPG-Bench score"].value == pytest.approx(1 / 4)
    assert found.overall.value == pytest.approx(3 / 4)


@pytest.mark.parametrize("image", [checked("0", 1), checked("7", 1)])
def test_verdicts_of_another_set_are_refused(image: CheckedImage) -> None:
    with pytest.raises(DataError, match="another prompt set"):
        measure_checks(prompts(), [image])


def test_two_judges_agree_by_dimension_where_both_have_verdicts() -> None:
    other = (checked("0", 1, 0.4, 0.6), checked("0", image=1), checked("1", 0))
    found = check_agreement(prompts(), {"a": IMAGES}, {"a": other})
    assert {name: (share.value, share.count) for name, share in found.items()} == {
        "": (pytest.approx(3 / 4), 4),
        "Attribute": (pytest.approx(2 / 3), 3),
        "Style": (1.0, 1),
    }


def test_images_are_paired_by_their_model_and_agree_where_all_holds_or_not() -> None:
    own = {"a": [checked("0", 1, 1, 1), checked("1", 0)], "b": [checked("0", 1, 0, 1), checked("1", 1)]}
    other = {"a": [checked("0", 1), checked("1", 1)], "b": [checked("0", 0)], "c": [checked("1", 1)]}
    found = image_agreement(own, other)
    assert (found.value, found.count, found.prompts) == (pytest.approx(2 / 3), 3, 2)
    assert found.low < 2 / 3 < found.high
    nothing = image_agreement(own, {"a": [checked("0")]})
    assert (math.isnan(nothing.value), nothing.count) == (True, 0)


def test_a_row_of_json_keeps_an_image() -> None:
    for image in IMAGES:
        assert CheckedImage.from_row(image.to_row()) == image


@pytest.mark.parametrize(
    ("name", "count"),
    [("unigenbench-zh-long", 1), ("geneval", 1), ("geneval2", 2), ("text", 0), ("dpg-bench", 1)],
)
def test_published_numbers_by_the_name_of_a_set(name: str, count: int) -> None:
    assert len(scoring_of(name)) == count
