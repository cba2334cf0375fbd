"""HPDv3: path1 is always preferred, and the votes are not aligned with the paths."""

from pathlib import Path
from typing import Any

from tests.data_recipes.sources import build, image, preferences, write_image, write_json, write_tar


def row(
    prompt: str, path1: str, path2: str, votes: list[int] | None, confidence: float | None
) -> dict[str, Any]:
    """A row of the published schema."""
    return {
        "prompt": prompt,
        "choice_dist": votes,
        "confidence": confidence,
        "path1": f"images/{path1}.png",
        "path2": f"images/{path2}.png",
        "model1": "flux",
        "model2": "real_images",
    }


TRAIN = [
    row("a cat", "a", "b", [7, 2], 0.99),
    row("a cat", "c", "b", [1, 8], 0.97),  # the larger number is of path1, wherever it stands
    row("a cat", "c", "a", None, None),  # without votes and confidence
    row("a cat", "b", "d", [5, 5], 0.5),  # a tie, and of low confidence
    row("a cat", "broken", "d", [9, 0], 1.0),
    row("a cow", "x", "f", [9, 0], 1.0),  # its prompt is in the test split
    row("a dog", "e", "f", [9, 0], 1.0),  # and one of these images
]
TEST = [row("A cow", "e", "g", [6, 3], 0.96)]


def write(folder: Path) -> Path:
    write_json(folder / "train.json", TRAIN)
    write_json(folder / "test.json", TEST)
    write_json(folder / "benchmark" / "benchmark_Animals.json", [{"prompt": "a cat", "file_path": "x.png"}])
    return folder


def test_rows_of_the_published_files(tmp_path: Path) -> None:
    for name in "abcdefgx":
        write_image(tmp_path / "images" / f"{name}.png")
    write_image(tmp_path / "images" / "broken.png")
    built = build("hpdv3", tmp_path / "out", source=write(tmp_path))
    assert preferences(tmp_path / "out", "a", "b", "c", "d") == {
        ("a cat", "a", "b"): (round(7 / 9, 12), 9.0),
        ("a cat", "b", "c"): (round(1 / 9, 12), 9.0),
        ("a cat", "a", "c"): (0.0, 1.0),
        ("a cat", "b", "d"): (0.5, 10.0),
    }
    assert preferences(tmp_path / "out", "e", "g", split="test") == {
        ("A cow", "e", "g"): (round(6 / 9, 12), 9.0)
    }
    train = built.info.splits["train"]
    assert train.left_out == {"broken image": 1, "in the test split": 2}
    # The place in the file would tell every label.
    assert train.first_wins == 1.0
    assert (built.info.licence, built.info.splits["test"].groups) == ("MIT", 1)


def test_low_confidence_is_left_out_of_train_alone_and_images_may_be_in_a_compressed_tar(
    tmp_path: Path,
) -> None:
    members = {f"./images/{name}.png": image(name) for name in "abcdefgx"}
    archive = write_tar(tmp_path / "images.tar.gz", members)
    half = archive.stat().st_size // 2
    for piece, data in (("00", archive.read_bytes()[:half]), ("01", archive.read_bytes()[half:])):
        (tmp_path / f"pieces.tar.gz.{piece}").write_bytes(data)
    pieces = str(tmp_path / "pieces.tar.gz.*")
    built = build("hpdv3", tmp_path / "out", source=write(tmp_path), images=pieces, min_confidence=0.98)
    assert preferences(tmp_path / "out", "a", "b", "c") == {
        ("a cat", "a", "b"): (round(7 / 9, 12), 9.0),
        ("a cat", "a", "c"): (0.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {
        "broken image": 1,
        "in the test split": 2,
        "low confidence": 2,
    }
    assert "pieces.tar.gz.* has no member images/broken.png" in built.left_out[0]
    assert built.info.splits["test"].groups == 1
    # A file whose name tells no split is no test set.
    (tmp_path / "train.json").rename(tmp_path / "mine.json")
    built = build(
        "hpdv3", tmp_path / "mine", source=tmp_path / "mine.json", images=pieces, min_confidence=0.98
    )
    assert built.info.left_out["low confidence"] == 2
