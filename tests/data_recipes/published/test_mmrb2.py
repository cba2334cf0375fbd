"""Multimodal RewardBench 2: annotations from 4 on favour A, and the label follows their mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import DatasetError
from tests.data_recipes.sources import BROKEN, build, groups_of, image, preferences, write_image, write_json
from tests.data_recipes.sources import write_parquet as write_table

ROWS: list[tuple[str, str, str, str | None, list[int]]] = [
    ("a cat", "a", "b", "A", [6, 3, 3]),  # the mean says A, the majority B
    ("a cat", "b", "c", "B", [1, 2, 1]),
    ("a dog", "d", "e", "A", [4, 5, 6]),
    ("a dog", "d", "broken", "A", [6, 6, 6]),
    ("a dog", "d", "c", None, []),
]
CHOSEN = {
    ("a cat", "a", "b"): (1.0, 1.0),
    ("a cat", "b", "c"): (0.0, 1.0),
    ("a dog", "d", "e"): (1.0, 1.0),
}


def encoded(name: str) -> dict[str, Any]:
    """An image in a list with the Image feature."""
    return {"bytes": BROKEN if name == "broken" else image(name), "path": None}


def hub_row(
    n: int, prompt: str, a: list[str], b: list[str], chosen: str | None, marks: list[int]
) -> dict[str, Any]:
    """A row of the Hub's configuration t2i."""
    return {
        "pair_id": f"t2i_{n}",
        "prompt_text": prompt,
        "prompt_images": [],
        "response_a_text": "<image_0>",
        "response_a_images": [encoded(name) for name in a],
        "response_a_model": "flux",
        "response_b_text": "<image_0>",
        "response_b_images": [encoded(name) for name in b],
        "response_b_model": "flux",
        "chosen": chosen,
        "human_annotations": json.dumps(marks),
        "prompt_metadata": "{}",
        "prompt_source": "evalmuse",
    }


def test_rows_of_the_hub(tmp_path: Path) -> None:
    rows = [
        hub_row(n, prompt, [a], [b], chosen, marks) for n, (prompt, a, b, chosen, marks) in enumerate(ROWS)
    ]
    rows.append(hub_row(9, "a cow", ["a", "b"], ["c"], "A", [6, 6, 6]))  # a text-to-image side has one image
    write_table(tmp_path / "in" / "t2i" / "test-00000-of-00001.parquet", rows)
    write_table(tmp_path / "in" / "edit" / "test-00000-of-00001.parquet", [{"pair_id": "edit_0"}])
    built = build("mmrb2", tmp_path / "out", source=tmp_path / "in", shares=(0.1, 0.1))
    assert preferences(tmp_path / "out", *"abcde", split="test") == CHOSEN
    assert built.groups == {"test": 2}
    assert built.info.splits["test"].left_out == {"bad row": 1, "broken image": 1, "not labelled": 1}
    assert {tuple(group.tags.items()) for group in groups_of(tmp_path / "out", "test")} == {
        (("source", "evalmuse"),)
    }
    votes = build("mmrb2", tmp_path / "votes", source=tmp_path / "in", labels="annotators")
    assert preferences(tmp_path / "votes", *"abcde", split="test") == {
        ("a cat", "a", "b"): (round(1 / 3, 12), 3.0),
        ("a cat", "b", "c"): (0.0, 3.0),
        ("a dog", "d", "e"): (1.0, 3.0),
    }
    assert votes.info.splits["test"].left_out == {"bad row": 1, "broken image": 1, "no votes": 1}


def json_row(n: int, prompt: str, a: str, b: str, chosen: str | None, marks: list[int]) -> dict[str, Any]:
    """A row of t2i.json."""
    return {
        "id": f"t2i_{n}",
        "prompt_content": [["text", prompt]],
        "prompt_source": "evalmuse",
        "prompt_metadata": {},
        "response_a": {"model_name": "flux", "response_content": [["image", f"images/{a}.png"]]},
        "response_b": {"model_name": "flux", "response_content": [["image", f"images/{b}.png"]]},
        "chosen": chosen,
        "human_annotations": marks,
    }


def test_rows_of_the_repository(tmp_path: Path) -> None:
    rows = [json_row(n, *row) for n, row in enumerate(ROWS)]
    without = [{k: v for k, v in row.items() if k != "prompt_content"} for row in rows]
    write_json(tmp_path / "t2i_response_only.json", {"pairs": without})
    for name in ("a", "b", "c", "d", "e", "broken"):
        write_image(tmp_path / "images" / f"{name}.png")
    with pytest.raises(DatasetError, match="there is no column 'prompt_content'"):
        build("mmrb2", tmp_path / "out", source=tmp_path / "t2i_response_only.json")
    write_json(tmp_path / "t2i.json", {"pairs": rows})
    write_json(tmp_path / "edit.json", {"pairs": [{"id": "edit_0"}]})
    build("mmrb2", tmp_path / "out", source=tmp_path)
    assert preferences(tmp_path / "out", *"abcde", split="test") == CHOSEN
