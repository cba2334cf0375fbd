"""The general recipes: any table by its columns, and TRL's form with images as answers."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from prefrm.errors import ConfigError, DatasetError
from tests.data_recipes.sources import build, image, preferences, write_image, write_jsonl, write_parquet

COLUMNS = {"prompt": "caption", "image_1": "left", "image_2": "right"}


def table(folder: Path, values: list[dict[str, Any]]) -> Path:
    """Rows about a against b, b against c, ..."""
    names = "abcdefgh"
    rows = [
        {"caption": "a cat", "left": image(names[n]), "right": image(names[n + 1]), **value}
        for n, value in enumerate(values)
    ]
    return write_parquet(folder / "rows.parquet", rows, images=("left",))


def verdicts(out: Path) -> list[tuple[float, float]]:
    return [said for _, said in sorted(preferences(out, *"abcdefgh").items())]


def test_a_label_is_a_number(tmp_path: Path) -> None:
    source = table(
        tmp_path,
        [{"y": 1.0, "n": 4}, {"y": 0.0, "n": 1}, {"y": 0.5, "n": 1}, {"y": 0.3, "n": 2}, {"y": None, "n": 1}],
    )
    built = build("table", tmp_path / "out", source=source, label="y", weight="n", **COLUMNS)
    assert verdicts(tmp_path / "out") == [(1.0, 4.0), (0.0, 1.0), (0.5, 1.0), (0.3, 2.0)]
    assert built.info.left_out == {"not labelled": 1}


def test_a_label_is_a_value(tmp_path: Path) -> None:
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote", "invalid", None]
    source = table(tmp_path, [{"vote": {"type": vote}} for vote in votes])
    meant = {"first": "leftvote", "second": "rightvote", "tie": "tievote,bothbad_vote"}
    built = build("table", tmp_path / "out", source=source, label="vote.type", **meant, **COLUMNS)
    assert verdicts(tmp_path / "out") == [(1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert built.info.left_out == {"not labelled": 2}


def test_scores_and_votes(tmp_path: Path) -> None:
    pairs = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (0.0, 0.0)]
    source = table(tmp_path, [{"x": [a, b]} for a, b in pairs])
    build("table", tmp_path / "scores", source=source, score_1="x.0", score_2="x.1", **COLUMNS)
    assert verdicts(tmp_path / "scores") == [(1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.5, 1.0)]
    built = build("table", tmp_path / "votes", source=source, votes_1="x.0", votes_2="x.1", **COLUMNS)
    assert verdicts(tmp_path / "votes") == [(0.75, 4.0), (0.25, 4.0), (0.5, 4.0)]
    assert built.info.left_out == {"no votes": 1}


def test_the_winner_has_always_the_same_place(tmp_path: Path) -> None:
    source = table(tmp_path, [{}, {}])
    built = build("table", tmp_path / "out", source=source, preferred="image_2", **COLUMNS)
    assert verdicts(tmp_path / "out") == [(0.0, 1.0), (0.0, 1.0)]
    assert built.info.splits["train"].first_wins == 0.0


@pytest.mark.parametrize(
    "options", [{}, {"label": "y", "preferred": "image_1"}, {"score_1": "x"}, {"preferred": "left"}]
)
def test_who_is_preferred_is_said_once(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"who is preferred by one of|preferred must be one of"):
        build("table", tmp_path / "out", source="x.parquet", **options)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"rows\.parquet:0: there is no column 'label'; .*; the columns of rows\.parquet are caption, ",
    ):
        build("table", tmp_path / "out", source=table(tmp_path, [{}]), label="label", **COLUMNS)


def test_labels_that_are_texts_need_a_meaning(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"label 'left one' is not a number; say what it means"):
        build("table", tmp_path / "out", source=table(tmp_path, [{"y": "left one"}]), label="y", **COLUMNS)


def test_trl_as_saved_by_datasets_and_as_messages(tmp_path: Path) -> None:
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "chosen": datasets.Image(), "rejected": datasets.Image()}
    )
    rows = {"prompt": ["a cat"], "chosen": [{"bytes": image("b")}], "rejected": [{"bytes": image("a")}]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "saved"))
    build("trl", tmp_path / "one", source=tmp_path / "saved")

    def answer(path: str) -> list[dict[str, Any]]:
        return [{"role": "assistant", "content": [{"type": "image", "image": path}]}]

    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    asked = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    row = {"prompt": asked, "chosen": answer("b.png"), "rejected": answer("a.png")}
    build("trl", tmp_path / "two", source=write_jsonl(tmp_path / "rows.jsonl", [row]))
    for out in ("one", "two"):
        assert preferences(tmp_path / out, "a", "b") == {("a cat", "a", "b"): (0.0, 1.0)}


def test_trl_with_texts_as_answers_is_refused(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "rows.jsonl", [{"prompt": "Say hello", "chosen": "Hello!", "rejected": "No"}]
    )
    with pytest.raises(DatasetError, match="chosen is a text, 'Hello!'; judges compare images"):
        build("trl", tmp_path / "out", source=source)
