"""The general recipes: any table by its columns, and the form of TRL."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from prefrm.errors import ConfigError, DatasetError
from tests.data_recipes.sources import (
    build,
    groups_of,
    image,
    preferences,
    video,
    write_image,
    write_jsonl,
    write_parquet,
    write_tar,
)

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
    with pytest.raises(ConfigError, match=r"give the preference by one of|preferred must be one of"):
        build("table", tmp_path / "out", source="x.parquet", **options)


def test_numbers_of_a_csv_file_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in "abcd":
        write_image(tmp_path / f"{name}.png")
    (tmp_path / "rows.csv").write_text(
        "caption,left,right,x,y,n\n"
        "a cat,a.png,b.png,10,9,3\na cat,b.png,c.png,9,10,\na cat,c.png,d.png,,1,1\n"
    )
    built = build(
        "table",
        tmp_path / "out",
        source=tmp_path / "rows.csv",
        score_1="x",
        score_2="y",
        weight="n",
        **COLUMNS,
    )
    assert verdicts(tmp_path / "out") == [(1.0, 3.0), (0.0, 1.0)]
    assert built.info.left_out == {"not labelled": 1}


@pytest.mark.parametrize(
    "options", [{"label": "x"}, {"score_1": "x", "score_2": "y"}, {"votes_1": "x", "votes_2": "y"}]
)
def test_a_missing_number_is_no_label(tmp_path: Path, options: dict[str, str]) -> None:
    """In a table of pandas it is NaN, which is neither higher nor lower than a number."""
    nan = float("nan")
    source = table(tmp_path, [{"x": nan, "y": 1.0}, {"x": 1.0, "y": 0.0}, {"x": None, "y": nan}])
    built = build("table", tmp_path / "out", source=source, **options, **COLUMNS)
    assert verdicts(tmp_path / "out") == [(1.0, 1.0)]
    assert built.info.left_out == {"not labelled": 2}


def test_values_that_are_numbers(tmp_path: Path) -> None:
    source = table(tmp_path, [{"y": 1.0}, {"y": 2.0}, {"y": -1.0}, {"y": None}, {"y": 0.0}])
    meant = {"first": "1", "second": " 2", "tie": "-1"}
    built = build("table", tmp_path / "out", source=source, label="y", **meant, **COLUMNS)
    assert verdicts(tmp_path / "out") == [(1.0, 1.0), (0.0, 1.0), (0.5, 1.0)]
    assert built.info.left_out == {"not labelled": 2}


def test_a_label_beyond_probabilities_ends_the_build(tmp_path: Path) -> None:
    """Or the rows that prefer the second image would be left out, and those that prefer the first kept."""
    source = table(tmp_path, [{"y": 1}, {"y": 2}])
    with pytest.raises(ConfigError, match=r"rows\.parquet:1: y is 2, and .* in \[0, 1\]; list the values"):
        build("table", tmp_path / "out", source=source, label="y", **COLUMNS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label": "y", "tie": "0"}, "give label, first and second together"),
        ({"preferred": "image_1", "first": "1", "second": "2"}, "give label, first and second together"),
        (
            {"label": "y", "first": "1,x", "second": "2, x"},
            "'x' is in more than one of first, second and tie",
        ),
    ],
)
def test_values_have_one_meaning(tmp_path: Path, options: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build("table", tmp_path / "out", source="x.parquet", **options)


def test_a_column_whose_own_name_has_dots(tmp_path: Path) -> None:
    members = {"0.c.txt": b"a cat", "0.l.jpg": image("a"), "0.r.jpg": image("b"), "0.y.txt": b"0.0"}
    write_tar(tmp_path / "in" / "00.tar", members)
    columns = {"prompt": "c.txt", "image_1": "l.jpg", "image_2": "r.jpg", "label": "y.txt"}
    build("table", tmp_path / "tar", source=tmp_path / "in", **columns)
    assert verdicts(tmp_path / "tar") == [(0.0, 1.0)]
    row = {"c.txt": "a cat", "l.jpg": image("a"), "r.jpg": image("b"), "y.txt": 1.0}
    source = write_parquet(tmp_path / "rows.parquet", [row])
    build("table", tmp_path / "parquet", source=source, **columns)
    assert verdicts(tmp_path / "parquet") == [(1.0, 1.0)]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"rows\.parquet:0: there is no column 'label'; .*; the columns of rows\.parquet are caption, ",
    ):
        build("table", tmp_path / "out", source=table(tmp_path, [{}]), label="label", **COLUMNS)


def test_labels_that_are_texts_need_a_meaning(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"y is not a number but 'left one'; list the values that mean each"
    ):
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
    # Without a column for it, the prompt is how both begin.
    row = {"chosen": [*asked, *answer("b.png")], "rejected": [*asked, *answer("a.png")]}
    build("trl", tmp_path / "three", source=write_jsonl(tmp_path / "implicit.jsonl", [row]))
    for out in ("one", "two", "three"):
        assert preferences(tmp_path / out, "a", "b") == {("a cat", "a", "b"): (0.0, 1.0)}


def test_an_image_in_a_prompt_of_trl_is_its_context(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png")
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "make it red"}]
    row = {"prompt": [{"role": "user", "content": parts}], "chosen": "b.png", "rejected": "c.png"}
    build("trl", tmp_path / "out", source=write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert preferences(tmp_path / "out", "b", "c") == {("make it red", "b", "c"): (1.0, 1.0)}
    assert groups_of(tmp_path / "out")[0].context == (image("a"),)


@pytest.mark.parametrize("form", ["images", "image", "texts", "implicit", "without"])
def test_trl_with_texts_about_images(tmp_path: Path, form: str) -> None:
    """TRL's form for vision-language models; "x.png" is an answer here, and not a path."""
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    asked = [{"role": "user", "content": question}]
    chosen, rejected = (
        [{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in ("x.png", "A cat.")
    )
    pictures = {"image": image("a")} if form == "image" else {"images": [{"bytes": image("a"), "path": None}]}
    row: dict[str, Any] = {"prompt": asked, "chosen": chosen, "rejected": rejected}
    if form == "texts":
        row = {"prompt": "What is it?", "chosen": "x.png", "rejected": "A cat."}
    if form == "without":
        row, pictures = {"prompt": "What is it?", "chosen": "x.png", "rejected": "A cat."}, {}
    if form == "implicit":
        row = {"chosen": [*asked, *chosen], "rejected": [*asked, *rejected]}
    path = write_parquet(tmp_path / "train.parquet", [{**row, **pictures}])
    build("trl", tmp_path / "out", source=path)
    found = preferences(tmp_path / "out", "x.png", "A cat.", content=str)
    assert found == {("What is it?", "x.png", "A cat."): (1.0, 1.0)}
    assert groups_of(tmp_path / "out")[0].context == ((image("a"),) if pictures else ())


def test_a_path_of_a_video_in_trl_is_no_text(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(video(name))
    rows = [{"prompt": "a ball", "chosen": "b.mp4", "rejected": "a.mp4"}]
    build("trl", tmp_path / "out", source=write_jsonl(tmp_path / "rows.jsonl", rows))
    found = preferences(tmp_path / "out", "a", "b", content=video)
    assert found == {("a ball", "a", "b"): (0.0, 1.0)}


def test_a_table_of_texts_with_context_and_criterion(tmp_path: Path) -> None:
    rows = [
        {"q": "What is it?", "l": "A cat.", "r": "A dog.", "v": 0.0, "p1": image("a"), "by": "helpfulness"},
        {"q": "What is it?", "l": "A cat.", "r": "A dog.", "v": 1.0, "p1": image("a"), "by": None},
    ]
    path = write_parquet(tmp_path / "train.parquet", rows, images=("p1",))
    columns = {"prompt": "q", "text_1": "l", "text_2": "r", "label": "v", "context": "p1", "criterion": "by"}
    build("table", tmp_path / "out", source=path, **columns)
    for criterion, p in (("helpfulness", 0.0), ("", 1.0)):
        found = preferences(tmp_path / "out", "A cat.", "A dog.", content=str, criterion=criterion)
        assert found == {("What is it?", "A cat.", "A dog."): (p, 1.0)}
    assert {group.context for group in groups_of(tmp_path / "out")} == {(image("a"),)}


def test_a_table_of_videos_by_one_criterion(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(video(name))
    rows = [{"prompt": "a ball", "left": "a.mp4", "right": "b.mp4"}]
    build(
        "table",
        tmp_path / "out",
        source=write_jsonl(tmp_path / "rows.jsonl", rows),
        video_1="left",
        video_2="right",
        preferred="video_2",
        criterion_text="motion",
    )
    found = preferences(tmp_path / "out", "a", "b", content=video, criterion="motion")
    assert found == {("a ball", "a", "b"): (0.0, 1.0)}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"text_1": "a"}, "give the columns of both candidates"),
        (
            {"text_1": "a", "text_2": "b", "video_1": "c", "video_2": "d"},
            "of videos or of texts, not of both",
        ),
        ({"criterion": "a", "criterion_text": "b"}, "give criterion, a column, or criterion_text, not both"),
        ({"preferred": "text_1", "label": ""}, "preferred must be one of"),
    ],
)
def test_columns_of_candidates_that_do_not_fit_together(
    tmp_path: Path, options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build("table", tmp_path / "out", source=tmp_path, **{"label": "y", **options})
