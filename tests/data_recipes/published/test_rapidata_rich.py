"""Rapidata's rich feedback: a higher score is better, but a higher word score is worse; columns vary."""

import json
from pathlib import Path
from typing import Any

from tests.data_recipes.sources import BROKEN, build, image, preferences, write_parquet


def row(name: str, prompt: str, alignment: float | None, style: float) -> dict[str, Any]:
    """A row of the published schema; its word scores are the higher, the better the image is."""
    return {
        "image": BROKEN if name == "broken" else image(name),
        "prompt": prompt,
        "word_scores": json.dumps([["a", alignment], ["cat", alignment], ["[No_mistakes]", 0.0]]),
        "alignment_score_norm": 0.1,
        "coherence_score_norm": 0.2,
        "style_score_norm": 0.3,
        "alignment_heatmap": None,
        "coherence_heatmap": [[0.5, 0.0], [0.0, 0.0]],
        "alignment_score": alignment,
        "coherence_score": 2.0,
        "style_score": style,
    }


ROWS = [
    row("a", "a cat", 4.5, 2.0),
    row("b", "A cat ", 3.5, 3.0),
    row("c", "a cat", 4.5, 1.0),
    row("broken", "a cat", 5.0, 5.0),
    row("d", "a cat", None, 1.0),
    row("e", "a dog", 2.0, 2.0),
]


def test_images_whose_prompt_recurs_are_compared(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", ROWS, ("image",))
    built = build("rapidata_rich", tmp_path / "out", source=source)
    assert preferences(tmp_path / "out", *"abcd") == {
        ("a cat", "a", "b"): (1.0, 1.0),
        ("a cat", "a", "c"): (0.5, 1.0),
        ("a cat", "b", "c"): (0.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "only candidate of its prompt": 1}


def test_the_larger_variant_and_another_axis(tmp_path: Path) -> None:
    names = {"image": "image_name", "prompt": "sentence"}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in ROWS[:3]]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, ("image_name",))
    build("rapidata_rich", tmp_path / "out", source=source, axis="style")
    assert preferences(tmp_path / "out", *"abc") == {
        ("a cat", "a", "b"): (0.0, 1.0),
        ("a cat", "a", "c"): (1.0, 1.0),
        ("a cat", "b", "c"): (1.0, 1.0),
    }


def test_a_column_of_images_goes_before_one_of_their_names(tmp_path: Path) -> None:
    rows = [{**row, "image_name": f"{n}.jpg", "sentence": row["prompt"]} for n, row in enumerate(ROWS[:2])]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, ("image",))
    build("rapidata_rich", tmp_path / "out", source=source)
    assert preferences(tmp_path / "out", *"ab") == {("a cat", "a", "b"): (1.0, 1.0)}
