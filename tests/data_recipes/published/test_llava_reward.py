"""LLaVA-Reward: ranked pairs are strict, equal rates of rated pairs tie, and paths are the authors'."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import ConfigError
from tests.data_recipes.sources import build, preferences, write_image, write_json

AUTHORS = "/scr/shijie/ImageReward/images"


def row(prompt: Any, chosen: str, c_rate: int, rejected: str, r_rate: int) -> dict[str, Any]:
    """A row of the published schema."""
    return {
        "prompt_id": "000904-0035",
        "prompt": prompt,
        "chosen_path": f"{AUTHORS}/{chosen}.png",
        "c_rate": c_rate,
        "reject_path": f"data/sample_test/sample_img/{rejected}.png",
        "r_rate": r_rate,
    }


RANKING = [
    row(["a cat ", "a cat "], "a", 7, "b", 6),
    row("a cat", "c", 6, "b", 6),  # equal rates, but ranked
    row("a cat", "c", 4, "a", 7),  # rated against its rank
    row("a cat", "broken", 7, "a", 1),
    row(["a cat", "a dog"], "a", 7, "b", 1),  # swapped captions
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "ImageReward"
    write_json(folder / "ranking" / "train.json", RANKING)
    rated = [row("a cat", "b", 7, "a", 6), row("a cat", "c", 6, "a", 6)]  # the second pair is a tie
    write_json(folder / "fidelity" / "train.json", rated)
    for name in ("a", "b", "c", "broken"):
        write_image(tmp_path / "images" / f"{name}.png")
    return folder


def test_pairs_of_an_axis(source: Path, tmp_path: Path) -> None:
    images = str(tmp_path / "images")
    built = build("llava_reward", tmp_path / "rank", source=source, images=images)
    assert preferences(tmp_path / "rank", *"abc") == {
        ("a cat", "a", "b"): (1.0, 1.0),
        ("a cat", "b", "c"): (0.0, 1.0),
        ("a cat", "a", "c"): (0.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "two prompts": 1}
    built = build("llava_reward", tmp_path / "fidelity", source=source, images=images, axis="fidelity")
    assert preferences(tmp_path / "fidelity", *"abc") == {
        ("a cat", "a", "b"): (0.0, 1.0),
        ("a cat", "a", "c"): (0.5, 1.0),
    }
    assert (built.info.splits["train"].strict, built.info.splits["train"].ties) == (1, 1)


def test_a_file_is_of_one_axis(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"axis=ranking is in ranking/, not in .*fidelity"):
        build("llava_reward", tmp_path / "out", source=source / "fidelity" / "train.json")
