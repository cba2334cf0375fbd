"""RichHF-18K: all scores are higher for the better image; prompts are those of Pick-a-Pic."""

import struct
from pathlib import Path

from tests.data_recipes.sources import build, preferences, write_image, write_parquet
from tests.data_recipes.tfrecords import example, field


def record(name: str, overall: float, artifact: float) -> bytes:
    """A record of the published schema."""
    scores = {
        "aesthetics_score": 0.5,
        "artifact_score": artifact,
        "misalignment_score": 0.5,
        "overall_score": overall,
    }
    return example(
        filename=field(1, field(1, f"train/{name}.png".encode())),
        artifact_map=field(1, field(1, b"a heatmap")),
        misalignment_map=field(1, field(1, b"a heatmap")),
        prompt_misalignment_label=field(1, field(1, b"1 0")),
        **{name: field(2, field(1, struct.pack("<f", score))) for name, score in scores.items()},
    )


def write(folder: Path) -> dict[str, str]:
    """The options of a build."""
    scores = [("a", 0.75, 0.25), ("b", 0.5, 0.75), ("c", 0.75, 0.5), ("broken", 1.0, 1.0), ("lost", 1.0, 1.0)]
    labels = folder / "labels"
    labels.mkdir()
    (labels / "train.tfrecord").write_bytes(b"".join(record(*one) for one in scores))
    (labels / "dev.tfrecord").write_bytes(record("d", 0.25, 1.0) + record("e", 0.5, 0.0))
    for name in ("a", "b", "c", "d", "e", "broken"):
        write_image(folder / "images" / "train" / f"{name}.png")
    pairs = [("a", "b", "a cat"), ("b", "c", "a cat"), ("z", "broken", "a cat"), ("d", "e", "a dog")]
    rows = [
        {
            "caption": caption,
            "image_0_uid": first,
            "image_1_uid": second,
            "label_0": 1.0,
            "jpg_0": b"",
            "jpg_1": b"",
        }
        for first, second, caption in pairs
    ]
    write_parquet(folder / "pickapic" / "train-00000-of-00001.parquet", rows)
    return {"source": str(labels), "prompts": str(folder / "pickapic"), "images": str(folder / "images")}


def test_images_that_share_a_prompt_of_pickapic(tmp_path: Path) -> None:
    built = build("richhf", tmp_path / "out", **write(tmp_path))
    assert preferences(tmp_path / "out", *"abc") == {
        ("a cat", "a", "b"): (1.0, 1.0),
        ("a cat", "a", "c"): (0.5, 1.0),
        ("a cat", "b", "c"): (0.0, 1.0),
    }
    assert preferences(tmp_path / "out", *"de", split="validation") == {("a dog", "d", "e"): (0.0, 1.0)}
    assert built.info.splits["train"].left_out == {"broken image": 1, "no prompt": 1}


def test_an_artifact_score_is_higher_for_fewer_artifacts(tmp_path: Path) -> None:
    build("richhf", tmp_path / "out", axis="artifact", **write(tmp_path))
    assert preferences(tmp_path / "out", *"abc") == {
        ("a cat", "a", "b"): (0.0, 1.0),
        ("a cat", "a", "c"): (0.0, 1.0),
        ("a cat", "b", "c"): (1.0, 1.0),
    }
