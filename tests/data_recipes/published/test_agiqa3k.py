"""AGIQA-3K: a higher mean opinion score is better, and the two axes disagree."""

import csv
import math
from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from tests.data_recipes.sources import build, groups_of, preferences, write_image

HEADER = ("name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align")
PROMPT = "a cat, hyper detail, anime style"
ROWS = [
    ("a.png", PROMPT, "hyper detail", "", "anime style", "1.5", "0.3", "3.0", "0.6"),
    ("b.png", PROMPT, "hyper detail", "", "anime style", "2.5", "0.4", "2.0", "0.8"),
    ("c.png", PROMPT, "hyper detail", "", "anime style", "2.5", "0", "3.0", "0"),
    ("broken.png", PROMPT, "hyper detail", "", "anime style", "4.0", "0.1", "4.0", "0.1"),
    ("d.png", PROMPT, "hyper detail", "", "anime style", "", "", "", ""),  # not rated
    ("e.png", "a dog", "", "", "", "1.0", "0.1", "1.0", "0.1"),  # alone
]


def write(folder: Path) -> Path:
    for name in ("a", "b", "c", "d", "e", "broken"):
        write_image(folder / "images" / f"{name}.png")
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    return folder


def test_images_of_a_prompt_are_compared_by_one_axis(tmp_path: Path) -> None:
    source, images = write(tmp_path), tmp_path / "images"
    built = build("agiqa3k", tmp_path / "alignment", source=source, images=images)
    assert preferences(tmp_path / "alignment", *"abcd") == {
        (PROMPT, "a", "b"): (1.0, 1.0),
        (PROMPT, "a", "c"): (0.5, 1.0),
        (PROMPT, "b", "c"): (0.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "only candidate of its prompt": 1}
    (group,) = groups_of(tmp_path / "alignment")
    assert group.tags == {"style": "anime style"}
    build("agiqa3k", tmp_path / "quality", source=source, images=images, axis="quality")
    assert preferences(tmp_path / "quality", *"abc") == {
        (PROMPT, "a", "b"): (0.0, 1.0),
        (PROMPT, "a", "c"): (0.0, 1.0),
        (PROMPT, "b", "c"): (0.5, 1.0),
    }
    build("agiqa3k", tmp_path / "all", source=source, images=images, axis="all")
    for axis in ("alignment", "quality"):
        by_axis = preferences(tmp_path / "all", *"abcd", criterion=axis)
        assert by_axis == preferences(tmp_path / axis, *"abcd")
    with pytest.raises(ConfigError, match="axis must be one of alignment, quality, all; received 'taste'"):
        build("agiqa3k", tmp_path / "no", source=source, axis="taste")


def test_soft_labels_are_those_of_a_rater(tmp_path: Path) -> None:
    source = write(tmp_path)
    with source.joinpath("data.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("e.png", PROMPT, "", "", "", "1", "0", "1", "0"))
    build("agiqa3k", tmp_path / "out", source=source, images=tmp_path / "images", labels="soft")
    found = preferences(tmp_path / "out", *"abcde")
    # Phi(1 / sqrt(0.6^2 + 0.8^2)): the standard normal distribution at 1.
    assert math.isclose(found[PROMPT, "a", "b"][0], 0.841344746069, rel_tol=1e-9)
    assert found[PROMPT, "a", "c"] == (0.5, 1.0)
    # Both deviations are 0.
    assert found[PROMPT, "c", "e"] == (1.0, 1.0)
