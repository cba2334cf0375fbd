"""Candidates of every kind, contexts and criteria go through the same pipeline as images do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_recipes.pipeline import Judgement, SourceOptions, Text, dataset
from data_recipes.plan import Built
from data_recipes.readers import Row, read_source
from data_recipes.recipe import Recipe, Source
from prefrm.errors import DataError
from tests.data_recipes.sources import (
    BROKEN,
    groups_of,
    image,
    video,
    write_image,
    write_jsonl,
    write_parquet,
)


def _judge(row: Row, options: SourceOptions) -> Judgement:
    first, second = row["first"], row["second"]
    if row.get("kind") == "text":
        first, second = Text(first), Text(second)
    return Judgement(
        prompt=row["prompt"],
        first=first,
        second=second,
        p=row.get("p", 1.0),
        context=row.get("context", ()),
        criterion=row.get("criterion", ""),
    )


RECIPE: Recipe = dataset(
    name="kinds",
    summary="rows of any kind",
    source=Source(),
    read=lambda options: read_source(options.source),
    judge=_judge,
)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    for name in ("a", "b", "c", "source", "other", "broken"):
        write_image(tmp_path / f"{name}.png")
    write_image(tmp_path / "copy.png", "source")
    for name in "vwx":
        (tmp_path / f"{name}.mp4").write_bytes(video(name))
    (tmp_path / "cut.mp4").write_bytes(video("v")[:-200])

    def build(*rows: dict[str, Any], shares: tuple[float, float] = (0.0, 0.0), **options: Any) -> Built:
        source = write_jsonl(tmp_path / "rows.jsonl", rows)
        validation, test = shares
        return RECIPE.build(
            tmp_path / "out", source=source, validation=validation, test=test, overwrite=True, **options
        )

    return build


def row(first: str, second: str, prompt: str = "x", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "first": first, "second": second, **more}


def test_videos_are_kept_as_they_are_and_damaged_ones_are_named(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    built = build(row("v.mp4", "w.mp4"), row("./x.mp4", "w.mp4"), row("v.mp4", "cut.mp4"))
    (group,) = groups_of(tmp_path / "out")
    assert (group.group().kind, set(group.candidates)) == ("video", {video(name) for name in "vwx"})
    assert built.info.left_out == {"broken video": 1}
    assert "cut.mp4: the video is truncated" in built.left_out[0]


def test_texts_are_candidates_and_no_paths(build: Callable[..., Built], tmp_path: Path) -> None:
    built = build(
        row("a.png", "No: ü.", kind="text", context=["source.png"]),
        row("No: ü.", "Perhaps.", kind="text", context=["source.png"]),
        row("Yes.", " ", kind="text", context=["source.png"]),
        row("Yes.", "Yes.", kind="text", context=["source.png"]),
    )
    (group,) = groups_of(tmp_path / "out")
    assert set(group.candidates) == {"a.png", "No: ü.", "Perhaps."}
    assert group.context == (image("source"),)
    assert built.info.left_out == {"broken text": 1, "identical candidates": 1}


def test_candidates_of_two_kinds_and_contexts_that_are_no_images_are_left_out(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    built = build(
        row("a.png", "b.png"),
        row("a.png", "v.mp4"),
        row("a.png", "b.png", context=["v.mp4"]),
        row("a.png", "b.png", context=["source.png", "broken.png"]),
    )
    assert built.groups == {"train": 1}
    assert built.info.left_out == {"broken image": 2, "candidates of different kinds": 1}
    assert "v.mp4 is a video; the context of a prompt is images" in built.left_out[0]
    assert "broken.png: the image's header" in built.left_out[1]


def test_what_was_asked_is_the_prompt_with_its_context_and_criterion(
    build: Callable[..., Built], tmp_path: Path
) -> None:
    """Prompts are equal up to letter case, and contexts by their bytes, not by their paths."""
    build(
        row("a.png", "b.png", context=["source.png"]),
        row("b.png", "a.png", "X", context=["copy.png"]),
        row("a.png", "b.png", context=["other.png"]),
        row("a.png", "b.png", context=["source.png", "other.png"]),
        row("a.png", "b.png", context=["other.png", "source.png"]),
        row("a.png", "b.png"),
        row("b.png", "a.png", criterion="quality"),
    )
    found = {(g.context, g.criterion): g.comparisons[0].weight for g in groups_of(tmp_path / "out")}
    source, other = image("source"), image("other")
    assert found == {
        ((source,), ""): 2.0,
        ((other,), ""): 1.0,
        ((source, other), ""): 1.0,
        ((other, source), ""): 1.0,
        ((), ""): 1.0,
        ((), "quality"): 1.0,
    }


def questions(count: int) -> list[dict[str, Any]]:
    """One question about each of many images, always with the same two answers."""
    return [
        row("A star.", "A disc.", "Describe the image.", kind="text", context=[f"c{n}.png"])
        for n in range(count)
    ]


def test_questions_are_split_by_their_images(build: Callable[..., Built], tmp_path: Path) -> None:
    """Neither a common question nor a common answer ties two images together; an image does."""
    for n in range(40):
        write_image(tmp_path / f"c{n}.png")
    rows = [*questions(40), *({**one, "prompt": "Is it red?"} for one in questions(40))]
    built = build(*rows, shares=(0.2, 0.2))
    assert set(built.groups) == {"train", "validation", "test"} and sum(built.groups.values()) == 80
    homes: dict[bytes, set[str]] = {}
    for split in built.groups:
        for group in groups_of(tmp_path / "out", split):
            homes.setdefault(group.context[0], set()).add(split)
    assert len(homes) == 40 and all(len(splits) == 1 for splits in homes.values())


def test_a_context_image_is_in_one_dataset_only(build: Callable[..., Built], tmp_path: Path) -> None:
    """Also where it is a candidate in the other one."""
    build(row("a.png", "b.png", "make it red", context=["source.png"]))
    other = (tmp_path / "out").rename(tmp_path / "apart")
    built = build(
        row("c.png", "other.png", "make it blue", context=["copy.png"]),
        row("source.png", "c.png", "a star"),
        row("c.png", "other.png", "make it red"),
        apart_from=[other],
    )
    assert built.info.left_out == {f"also in {other}": 2}
    assert [group.prompt for group in groups_of(tmp_path / "out")] == ["make it red"]


def test_a_video_in_a_row_is_kept(tmp_path: Path) -> None:
    rows = [row("", "") | {"first": {"bytes": video("v"), "path": "v.mp4"}, "second": {"bytes": BROKEN}}]
    rows += [row("", "") | {"first": {"bytes": video("v"), "path": None}, "second": {"bytes": video("w")}}]
    source = write_parquet(tmp_path / "rows.parquet", rows)
    built = RECIPE.build(tmp_path / "out", source=source, validation=0, test=0)
    assert set(groups_of(tmp_path / "out")[0].candidates) == {video("v"), video("w")}
    assert built.info.left_out == {"broken image": 1}


def test_a_text_that_is_none_is_a_bad_row(build: Callable[..., Built]) -> None:
    with pytest.raises(DataError, match="expected a text; received None"):
        build(row(None, "x", kind="text"))  # type: ignore[arg-type]
