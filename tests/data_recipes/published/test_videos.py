"""Recipes of videos: kept as they are, by the axis that was asked for, with the right one preferred."""

import csv
from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import DataError
from tests.data_recipes.sources import build, groups_of, preferences, video, write_json
from tests.data_recipes.sources import write_parquet as write_table

HEADER = "path_A,path_B,prompt,VQ,MQ,TA,fps_A,num_frames_A,fps_B,num_frames_B"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in "abcd":
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(video(name))
    return tmp_path


def videoalign(folder: Path, *rows: tuple[str, str, str, str, str, str]) -> Path:
    path = folder / "example.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        writer.writerows([*row, "24.0", "10", "24.0", "10"] for row in rows)
    return path


def named(first: str, second: str) -> tuple[str, str]:
    """Paths as in the published example.csv: only the second begins with "./"."""
    return f"videos/{first}.mp4", f"./videos/{second}.mp4"


def test_videoalign_axes_disagree_and_copies_of_a_row_count_once(videos: Path, tmp_path: Path) -> None:
    rows = [
        (*named("a", "b"), "a girl sits down", "B", "B", "A"),
        (*named("c", "a"), "a girl sits down", "same", "A", "invalid"),
        (*named("c", "d"), "an astronaut runs", "A", "same", ""),
    ]
    source = videoalign(videos, *rows * 4)
    built = build("videoalign", tmp_path / "out", source=source, axis="all")
    wanted: dict[str, dict[tuple[str, str, str], tuple[float, float]]] = {
        "visual quality": {
            ("a girl sits down", "a", "b"): (0.0, 1.0),
            ("a girl sits down", "a", "c"): (0.5, 1.0),
            ("an astronaut runs", "c", "d"): (1.0, 1.0),
        },
        "motion quality": {
            ("a girl sits down", "a", "b"): (0.0, 1.0),
            ("a girl sits down", "a", "c"): (0.0, 1.0),
            ("an astronaut runs", "c", "d"): (0.5, 1.0),
        },
        "text alignment": {("a girl sits down", "a", "b"): (1.0, 1.0)},
    }
    for criterion, expected in wanted.items():
        found = preferences(tmp_path / "out", *"abcd", content=video, criterion=criterion)
        assert found == expected
    assert built.info.left_out == {"not labelled": 8}
    build("videoalign", tmp_path / "ta", source=source, axis="TA")
    assert preferences(tmp_path / "ta", "a", "b", content=video) == wanted["text alignment"]
    with pytest.raises(DataError, match="there is no column 'Overall'"):
        build("videoalign", tmp_path / "overall", source=source, axis="overall")


def test_genai_bench_videos_are_files_of_a_folder(videos: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a dog", "left_video": "a.mp4", "right_video": "b.mp4", "vote_type": "rightvote"},
        {"prompt": "a dog", "left_video": "b.mp4", "right_video": "c.mp4", "vote_type": "tievote"},
    ]
    path = write_table(tmp_path / "in" / "video_generation" / "test-00000-of-00001.parquet", rows)
    build("genai_bench", tmp_path / "out", source=path.parent.parent, task="video", images=videos / "videos")
    assert preferences(tmp_path / "out", *"abc", content=video, split="test") == {
        ("a dog", "a", "b"): (0.0, 1.0),
        ("a dog", "b", "c"): (0.5, 1.0),
    }


def videofeedback_row(id: str, prompt: str, quality: float, alignment: int) -> dict[str, Any]:
    human = (
        f'Suppose you are an expert.\nThe text prompt is "{prompt}",\nall the frames of video are:\n<image>'
    )
    answer = (
        f"visual quality: {quality}\ntemporal consistency: 2\ndynamic degree: 3\n"
        f"text-to-video alignment: {alignment}\nfactual consistency: 1"
    )
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
    return {"id": id, "images": [f"{id}_00.jpg"], "conversations": turns}


def test_videofeedback_compares_ratings_under_one_prompt(videos: Path, tmp_path: Path) -> None:
    rows = [
        videofeedback_row("a", 'a "red" ball', 2.9, 1),
        videofeedback_row("b", 'a "red" ball', 2.1, 3),
        videofeedback_row("c", "a ball", 4, 4),
        {"id": "d", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]},
    ]
    write_json(tmp_path / "in" / "train" / "data_annotated.json", rows)
    write_json(tmp_path / "in" / "train" / "data_real.json", [videofeedback_row("d", "a ball", 4, 4)])
    options = {"source": tmp_path / "in", "images": videos / "videos"}
    built = build("videofeedback", tmp_path / "out", axis="all", **options)
    for criterion, p in (("visual quality", 1.0), ("text-to-video alignment", 0.0), ("dynamic degree", 0.5)):
        found = preferences(tmp_path / "out", "a", "b", content=video, criterion=criterion)
        assert found == {('a "red" ball', "a", "b"): (p, 1.0)}
    assert built.info.left_out == {"bad row": 1, "only candidate of its prompt": 5}


def test_videodpo_numbers_are_files_and_label_0_prefers_the_first(tmp_path: Path) -> None:
    for folder, name in (("winvideos", "a"), ("losevideos", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000003.mp4").write_bytes(video(name))
    rows = [
        {"video1": 6, "video2": 7, "frame_caption": ["a dog"], "label": 0},
        {"video1": 7, "video2": 6, "frame_caption": ["a cat"], "label": 0},
        {"video1": 7, "video2": 6, "frame_caption": ["a cow"], "label": None},
    ]
    built = build("videodpo", tmp_path / "out", source=write_json(tmp_path / "pair.json", rows))
    assert preferences(tmp_path / "out", "a", "b", content=video) == {
        ("a dog", "a", "b"): (1.0, 1.0),
        ("a cat", "a", "b"): (0.0, 1.0),
    }
    assert built.info.left_out == {"bad row": 1}
    assert {group.group().kind for group in groups_of(tmp_path / "out")} == {"video"}
