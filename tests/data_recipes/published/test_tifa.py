"""TIFA: images of a text are compared by the mean of two raters, and a third of the pairs are ties."""

from pathlib import Path
from typing import Any

from tests.data_recipes.sources import build, groups_of, preferences, write_image, write_json


def annotation(text_id: str, model: str, text: str, scores: list[int]) -> dict[str, Any]:
    """An entry of the published file."""
    return {
        "text_id": text_id,
        "image_path": f"{text_id}_{model}.png",
        "text": text,
        "human_scores": scores,
        "human_avg": sum(scores) / 2,
    }


ROWS = [
    annotation("coco_1", "vq", "a cat", [5, 2]),  # one rater prefers it to the others; the mean does not
    annotation("coco_1", "dalle", "a cat", [4, 4]),
    annotation("coco_1", "sd", "a cat", [3, 4]),
    annotation("coco_1", "broken", "a cat", [5, 5]),
    annotation("drawbench_7", "vq", "a dog", [1, 1]),
]


def test_the_mean_of_the_raters_decides(tmp_path: Path) -> None:
    names = [row["image_path"].removesuffix(".png") for row in ROWS]
    for name in names:
        write_image(tmp_path / "images" / f"{name}.png", "broken" if "broken" in name else name)
    entries = {name: row for name, row in zip(names, ROWS, strict=True)}
    write_json(tmp_path / "human_annotations.json", entries)
    write_json(tmp_path / "questions.json", [{"id": 1}])  # the repository has other files
    built = build("tifa", tmp_path / "out", source=tmp_path, images=tmp_path / "images")
    assert preferences(tmp_path / "out", "coco_1_vq", "coco_1_dalle", "coco_1_sd") == {
        ("a cat", "coco_1_vq", "coco_1_dalle"): (0.0, 1.0),
        ("a cat", "coco_1_vq", "coco_1_sd"): (0.5, 1.0),
        ("a cat", "coco_1_dalle", "coco_1_sd"): (1.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "only candidate of its prompt": 1}
    (group,) = groups_of(tmp_path / "out")
    assert (group.tags, sorted(group.quality or ())) == ({"source": "coco"}, [3.5, 3.5, 4.0])
