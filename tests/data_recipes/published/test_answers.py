"""Recipes of answers to a question: its context is the image, and the right text is preferred."""

from pathlib import Path
from typing import Any

import pytest

from tests.data_recipes.sources import (
    build,
    groups_of,
    image,
    preferences,
    write_image,
    write_json,
    write_jsonl,
)
from tests.data_recipes.sources import write_parquet as write_table

QUESTION, GOOD, BAD = "How many cats are there?", "Two cats.", "I see a dog."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("x", "y"):
        write_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def answers(out: Path, split: str = "train") -> dict[tuple[str, str, str], tuple[float, float]]:
    assert {group.context for group in groups_of(out, split)} <= {(image("x"),), (image("y"),)}
    return preferences(out, GOOD, BAD, content=str, split=split)


@pytest.mark.parametrize(
    ("id", "category", "response", "ranking"),
    [
        ("LRVInstruction-000000007746", "general", [GOOD, BAD], [0, 1]),
        ("hallucination_pair-10032", "hallucination", [BAD, GOOD], [1, 0]),
        ("mathverse_1063", "reasoning", [GOOD, BAD], [0, 1]),
    ],
)
def test_vl_rewardbench_rank_0_is_better_in_both_orders(
    folder: Path, id: str, category: str, response: list[str], ranking: list[int]
) -> None:
    row = {
        "id": id,
        "query": QUESTION,
        "response": response,
        "image": "images/x.png",
        "human_ranking": ranking,
        "models": ["VisualGLM-6b", "Qwen-VL-Chat"],
        "judge": "human",
        "rationale": "",
        "query_source": "LRVInstruction",
        "ground_truth": "",
    }
    # An id may stand twice, with other answers.
    again = row | {"response": ["Three.", "Four."], "human_ranking": [1, 0]}
    build("vl_rewardbench", folder / "out", source=write_json(folder / "data.json", [row, again]))
    first, second = groups_of(folder / "out", "test")
    found = preferences(folder / "out", GOOD, BAD, "Three.", "Four.", content=str, split="test")
    assert found == {(QUESTION, GOOD, BAD): (1.0, 1.0), (QUESTION, "Three.", "Four."): (0.0, 1.0)}
    assert first.context == second.context == (image("x"),)
    assert first.tags == {"category": category, "source": "LRVInstruction"}


def test_vl_rewardbench_of_the_hub(tmp_path: Path) -> None:
    row = {"id": "1", "query": QUESTION, "response": [BAD, GOOD], "human_ranking": [1, 0]}
    for split in ("train", "test"):
        path = tmp_path / "in" / f"{split}-00000-of-00001.parquet"
        write_table(path, [{**row, "image": image("x")}], images=("image",))
    built = build("vl_rewardbench", tmp_path / "out", source=tmp_path / "in")
    assert built.groups == {"test": 1}
    assert answers(tmp_path / "out", "test") == {(QUESTION, GOOD, BAD): (1.0, 1.0)}


def test_multimodal_rewardbench(folder: Path) -> None:
    def row(id: str, first: str, second: str, better: str, text: str | None = QUESTION) -> dict[str, Any]:
        return {
            "ID": id,
            "Text": text,
            "Image": "images/x.png",
            "Output1": first,
            "Output2": second,
            "Better": better,
            "Category": "vqa",
        }

    rows = [
        row("MMBench_1", BAD, GOOD, "Output2"),
        row("visitbench_1", GOOD, BAD, "Output1", "What is it?"),
        row("nocaps_1", GOOD, BAD, "Output1", None),
        row("MMBench_2", GOOD, BAD, "tie"),
    ]
    source = write_json(folder / "all_data.json", rows)
    built = build("multimodal_rewardbench", folder / "out", source=source)
    assert answers(folder / "out", "test") == {
        (QUESTION, GOOD, BAD): (1.0, 1.0),
        ("What is it?", GOOD, BAD): (1.0, 1.0),
    }
    assert built.info.left_out == {"no question": 1, "bad row": 1}
    built = build("multimodal_rewardbench", folder / "few", source=source, visitbench="no")
    assert built.groups == {"test": 1}


def test_rlaif_v_prefers_chosen_and_one_question_has_many_images(tmp_path: Path) -> None:
    rows = [
        {
            "ds_name": "RLAIF-V",
            "image": image(name),
            "question": QUESTION,
            "chosen": chosen,
            "rejected": rejected,
            "origin_dataset": "VQAv2",
            "idx": 0,
        }
        for name, chosen, rejected in [("x", GOOD, BAD), ("y", BAD, GOOD)]
    ]
    path = write_table(tmp_path / "train-00000.parquet", rows, images=("image",))
    build("rlaif_v", tmp_path / "out", source=path)
    preferred = {
        group.context: group.candidates[c.i if c.p == 1.0 else c.j]
        for group in groups_of(tmp_path / "out")
        for c in group.comparisons
    }
    assert preferred == {(image("x"),): GOOD, (image("y"),): BAD}


def test_mm_rlhf_leaves_out_questions_about_videos(folder: Path) -> None:
    rows = [
        {"prompt": f"<image>\n{QUESTION}", "image": "images/x.png", "chosen": GOOD, "rejected": BAD},
        {"prompt": "What happens?", "video": "video/x", "chosen": GOOD, "rejected": BAD},
    ]
    write_jsonl(folder / "dpo_pairs.jsonl", rows)
    write_jsonl(folder / "data.jsonl", [{"id": 1, "responses": {}}])
    built = build("mm_rlhf", folder / "out", source=folder)
    assert answers(folder / "out") == {(QUESTION, GOOD, BAD): (1.0, 1.0)}
    assert built.info.left_out == {"about a video": 1}
