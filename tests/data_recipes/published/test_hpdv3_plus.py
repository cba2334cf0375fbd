"""HPDv3++: path1 is preferred, two axes disagree about a pair, and paths start above the JSON files."""

from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from tests.data_recipes.sources import build, preferences, write_image, write_json


def row(prompt: str, path1: str, path2: str) -> dict[str, str]:
    """A row of the published schema."""
    return {
        "path1": f"images/qwen_image/{path1}.png",
        "path2": f"images/qwen_image/{path2}.png",
        "prompt": prompt,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    aesthetics = [row("a cat", "a", "b"), row("a cat", "c", "a"), row("a cat", "a", "broken")]
    write_json(folder / "train" / "train_aes.json", [*aesthetics, row("a dog", "a", "c")])
    # The same pair the other way round.
    write_json(folder / "train" / "train_tf.json", [row("a cat", "b", "a")])
    write_json(folder / "test" / "test_aes.json", [row("a dog", "d", "e")])
    write_json(folder / "test" / "test_tf.json", [row("a dog", "e", "d")])
    # Images that the repository does not have.
    write_json(folder / "train" / "stage1_ref.json", [row("a cow", "hpdv3/1", "hpdv3/2")])
    for name in ("a", "b", "c", "d", "e", "broken"):
        write_image(folder / "images" / "qwen_image" / f"{name}.png")
    return folder


def test_each_axis_is_a_dataset(source: Path, tmp_path: Path) -> None:
    built = build("hpdv3_plus", tmp_path / "aes", source=source)
    build("hpdv3_plus", tmp_path / "tf", source=source, axis="alignment")
    assert preferences(tmp_path / "aes", *"abc") == {
        ("a cat", "a", "b"): (1.0, 1.0),
        ("a cat", "a", "c"): (0.0, 1.0),
    }
    assert preferences(tmp_path / "aes", *"de", split="test") == {("a dog", "d", "e"): (1.0, 1.0)}
    assert preferences(tmp_path / "tf", *"ab") == {("a cat", "a", "b"): (0.0, 1.0)}
    assert preferences(tmp_path / "tf", *"de", split="test") == {("a dog", "d", "e"): (0.0, 1.0)}
    train = built.info.splits["train"]
    assert (train.left_out, train.first_wins) == ({"broken image": 1, "in the test split": 1}, 1.0)


def test_a_file_is_of_one_axis(source: Path, tmp_path: Path) -> None:
    file = source / "test" / "test_tf.json"
    assert build("hpdv3_plus", tmp_path / "out", source=file, axis="alignment").groups == {"test": 1}
    with pytest.raises(ConfigError, match=r"axis=aesthetics is in .*, not test_tf\.json"):
        build("hpdv3_plus", tmp_path / "other", source=file)
