"""Recipes of edits: the context of an instruction is the source image, and the right edit is preferred."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import DataError
from tests.data_recipes.sources import build, groups_of, image, preferences, write_image, write_json
from tests.data_recipes.sources import write_parquet as write_table

a, b, c, d, source = map(image, ["a", "b", "c", "d", "source"])


def contexts(out: Path, split: str = "train") -> set[tuple[bytes, ...]]:
    return {group.context for group in groups_of(out, split)}


def feature(name: str) -> dict[str, Any]:
    """An image in a list with the Image feature."""
    return {"bytes": image(name), "path": None}


def test_genai_bench_edits(tmp_path: Path) -> None:
    rows = [
        {
            "source_prompt": "a cat",
            "target_prompt": "a red cat",
            "instruct_prompt": "make it red",
            "source_image": source,
            "left_model": "MagicBrush",
            "left_output_image": left,
            "right_model": "InfEdit",
            "right_output_image": right,
            "vote_type": vote,
        }
        for left, right, vote in [(a, b, "leftvote"), (b, c, "rightvote"), (a, d, "bothbad_vote")]
    ]
    images = ("source_image", "left_output_image", "right_output_image")
    write_table(tmp_path / "in" / "image_edition" / "test-00000-of-00001.parquet", rows, images=images)
    build("genai_bench", tmp_path / "out", source=tmp_path / "in", task="edit")
    assert preferences(tmp_path / "out", *"abcd", split="test") == {
        ("make it red", "a", "b"): (1.0, 1.0),
        ("make it red", "b", "c"): (0.0, 1.0),
        ("make it red", "a", "d"): (0.5, 1.0),
    }
    assert contexts(tmp_path / "out", "test") == {(source,)}


def json_row(first: str, second: str, **more: Any) -> dict[str, Any]:
    """A row of EditReward's training JSON, whose overall scores contradict the order of the paths."""
    return {
        "prompt": "let a herd of sheep block the taxi",
        "choice_dist": None,
        "confidence": None,
        "path_src": "images/source.png",
        "path1": f"images/{first}.png",
        "path2": f"images/{second}.png",
        "model1": "MagicBrush",
        "model2": "Pix2PixZero",
        "model1_dim1_score": 2,
        "model2_dim1_score": 4,
        "model1_overall_score": 0.08,
        "model2_overall_score": 0.9,
        **more,
    }


def test_editreward_json_prefers_path1_whatever_the_scores(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "source"):
        write_image(tmp_path / "images" / f"{name}.png")
    rows = [json_row("b", "a"), json_row("b", "c", tie_case=False), json_row("c", "a", tie_case=True)]
    build("editreward", tmp_path / "out", source=write_json(tmp_path / "pairs.json", rows))
    prompt = "let a herd of sheep block the taxi"
    assert preferences(tmp_path / "out", *"abc") == {
        (prompt, "a", "b"): (0.0, 1.0),
        (prompt, "b", "c"): (1.0, 1.0),
        (prompt, "a", "c"): (0.5, 1.0),
    }
    assert contexts(tmp_path / "out") == {(source,)}


def test_editreward_data_of_the_hub(tmp_path: Path) -> None:
    rows = [
        {
            "key": "k",
            "instruction": "make it red",
            "source_img": source,
            "left_output_image": left,
            "right_output_image": right,
            "left_overall_score": 2.0,
            "right_overall_score": 8.0,
            "vote_type": vote,
        }
        for left, right, vote in [
            (a, b, "leftvote"),
            (b, c, "rightvote"),
            (a, d, "tie"),
            (a, c, None),
            (b, d, "upvote"),
        ]
    ]
    images = ("source_img", "left_output_image", "right_output_image")
    path = write_table(tmp_path / "train-00000-of-00001.parquet", rows, images=images)
    built = build("editreward", tmp_path / "out", source=path)
    assert preferences(tmp_path / "out", *"abcd") == {
        ("make it red", "a", "b"): (1.0, 1.0),
        ("make it red", "b", "c"): (0.0, 1.0),
        ("make it red", "a", "d"): (0.5, 1.0),
    }
    assert built.info.left_out == {"not labelled": 1, "bad row": 1}
    assert contexts(tmp_path / "out") == {(source,)}


def bench_row(
    id: str | None, ranking: str, *candidates: bytes, instruction: str = "make it red"
) -> dict[str, Any]:
    """A row of TIGER-Lab's EditReward-Bench."""
    filled = dict(zip(("candidate_1", "candidate_2", "candidate_3", "candidate_4"), candidates, strict=False))
    return {
        "id": id,
        "instruction": instruction,
        "dataset": f"{len(candidates)}pair",
        "ranking": ranking,
        "source_image": source,
        **dict.fromkeys(("candidate_1", "candidate_2", "candidate_3", "candidate_4")),
        **filled,
        "overall_score_1": 1.0,
        "overall_score_2": 8.0,
    }


def test_editreward_bench_rankings_and_contradictory_duplicates(tmp_path: Path) -> None:
    rows = [
        bench_row("1", "C>A>B", a, b, c),
        bench_row("2", "A=B=Bad", a, b, instruction="make it blue"),
        # The same row stands twice, with opposite rankings.
        bench_row("3", "A>B", c, d, instruction="add a hat"),
        bench_row("3", "B>A", c, d, instruction="add a hat"),
        bench_row("4", "B>A=C>D", a, b, c, d, instruction="remove it"),
        bench_row("5", "A>A", a, b),
        # Rankings of other candidates under one id, and without any, are not compared with each other.
        bench_row("7", "A>B", a, b, instruction="zoom in"),
        bench_row("7", "A>B", c, d, instruction="zoom in"),
        bench_row(None, "A>B", a, d, instruction="zoom in"),
        bench_row("6", "", a, b),
    ]
    images = ("source_image", "candidate_1", "candidate_2", "candidate_3", "candidate_4")
    path = write_table(tmp_path / "in" / "2pair" / "editreward_2pair.parquet", rows, images=images)
    built = build("editreward_bench", tmp_path / "out", source=path.parent.parent)
    assert preferences(tmp_path / "out", *"abcd", split="test") == {
        ("make it red", "a", "b"): (1.0, 1.0),
        ("make it red", "a", "c"): (0.0, 1.0),
        ("make it red", "b", "c"): (0.0, 1.0),
        ("make it blue", "a", "b"): (0.5, 1.0),
        ("add a hat", "c", "d"): (0.5, 2.0),
        ("remove it", "a", "b"): (0.0, 1.0),
        ("remove it", "a", "c"): (0.5, 1.0),
        ("remove it", "a", "d"): (1.0, 1.0),
        ("remove it", "b", "c"): (1.0, 1.0),
        ("remove it", "b", "d"): (1.0, 1.0),
        ("remove it", "c", "d"): (1.0, 1.0),
        ("zoom in", "a", "b"): (1.0, 1.0),
        ("zoom in", "c", "d"): (1.0, 1.0),
        ("zoom in", "a", "d"): (1.0, 1.0),
    }
    counts = built.info.splits["test"]
    assert (counts.contradictory, counts.left_out) == (1, {"bad row": 1, "not labelled": 1})
    tags = {group.prompt: group.tags for group in groups_of(tmp_path / "out", "test")}
    assert tags["make it blue"] == {"dataset": "2pair", "verdict": "Bad"}


def test_editscore_bench_prefers_the_first_output_in_each_dimension(tmp_path: Path) -> None:
    rows = [
        {
            "key": ["k1", "k2"],
            "instruction": "make it red",
            "input_image": {"bytes": source, "path": None},
            "output_images": [feature(first), feature(second)],
            "task_type": "color_alter",
            "dimension": dimension,
        }
        for first, second, dimension in [
            ("b", "a", "overall"),
            ("a", "b", "prompt_following"),
            ("b", "a", "consistency"),
        ]
    ]
    path = write_table(tmp_path / "bench.parquet", rows)
    built = build("editscore_bench", tmp_path / "overall", source=path)
    assert preferences(tmp_path / "overall", "a", "b", split="test") == {
        ("make it red", "a", "b"): (0.0, 1.0)
    }
    assert built.info.left_out == {}
    build("editscore_bench", tmp_path / "all", source=path, axis="all")
    for criterion, p in (("", 0.0), ("prompt following", 1.0), ("consistency", 0.0)):
        found = preferences(tmp_path / "all", "a", "b", criterion=criterion, split="test")
        assert found == {("make it red", "a", "b"): (p, 1.0)}
    assert contexts(tmp_path / "all", "test") == {(source,)}
    assert {tuple(g.tags.items()) for g in groups_of(tmp_path / "all", "test")} == {
        (("task", "color_alter"),)
    }


def test_mmrb2_edits_of_the_hub_and_of_the_repository(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "source"):
        write_image(tmp_path / "images" / f"{name}.png")
    asked = [
        ("make it red <image_0>", ["source"], "a", "b", "B"),
        ("put <image_0> on <image_1>", ["c", "source"], "a", "b", "A"),
    ]
    hub = [
        {
            "pair_id": f"edit_{n}",
            "prompt_text": text,
            "prompt_images": [feature(name) for name in images],
            "response_a_images": [feature(first)],
            "response_b_images": [feature(second)],
            "chosen": chosen,
            "human_annotations": "[6, 5, 4]",
        }
        for n, (text, images, first, second, chosen) in enumerate(asked)
    ]
    write_table(tmp_path / "hub" / "edit" / "test-00000-of-00001.parquet", hub)

    def path(name: str) -> list[str]:
        return ["image", f"images/{name}.png"]

    contents = [[["text", "make it red"], path("source")]]
    contents += [[["text", "put"], path("c"), ["text", "on"], path("source")]]
    pairs = [
        {
            "id": f"edit_{n}",
            "prompt_content": content,
            "response_a": {"response_content": [path(first)]},
            "response_b": {"response_content": [path(second)]},
            "chosen": chosen,
        }
        for n, (content, (_, _, first, second, chosen)) in enumerate(zip(contents, asked, strict=True))
    ]
    write_json(tmp_path / "edit.json", {"pairs": pairs})
    for place in (tmp_path / "hub", tmp_path):
        out = tmp_path / f"out-{place.name}"
        build("mmrb2", out, source=place, task="edit")
        assert preferences(out, "a", "b", split="test") == {
            ("make it red", "a", "b"): (0.0, 1.0),
            ("put [image 1] on [image 2]", "a", "b"): (1.0, 1.0),
        }
        assert contexts(out, "test") == {(source,), (c, source)}


def test_an_edit_without_its_source_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png")
    with pytest.raises(DataError, match=r"1 broken image, such as .*source\.png: cannot be read"):
        build(
            "editreward", tmp_path / "out", source=write_json(tmp_path / "pairs.json", [json_row("a", "b")])
        )
