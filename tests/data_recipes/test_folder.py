"""Images in folders, as people lay them out, become groups without comparisons."""

from pathlib import Path

import pytest

from prefrm.errors import DatasetError
from prefrm.records import PreferenceGroup
from tests.data_recipes.sources import build, groups_of, write_image, write_jsonl


def grouped(groups: list[PreferenceGroup]) -> dict[str, int]:
    assert not any(group.comparisons or group.quality for group in groups)
    return {group.prompt: len(group.images) for group in groups}


def test_a_folder_for_each_prompt(tmp_path: Path) -> None:
    for name in (
        "a red cat/0.png",
        "a red cat/1.png",
        "two_dogs/x/0.png",
        "two_dogs/y/1.png",
        "odd/alone.png",
    ):
        write_image(tmp_path / "in" / name, name)
    write_image(tmp_path / "in" / "two_dogs" / "broken.png")
    (tmp_path / "in" / "a red cat" / "notes.md").write_text("mine")
    built = build("folder", tmp_path / "out", source=tmp_path / "in")
    assert grouped(groups_of(tmp_path / "out")) == {"a red cat": 2, "two dogs": 2}
    assert built.info.left_out == {"broken image": 1, "only image of its prompt": 1}


def test_metadata_as_imagefolder_has_it(tmp_path: Path) -> None:
    for n in range(4):
        write_image(tmp_path / "in" / f"{n}.png")
    rows = [{"file_name": f"{n}.png", "text": "a cat" if n % 2 else "a dog"} for n in range(4)]
    write_jsonl(tmp_path / "in" / "metadata.jsonl", rows)
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert grouped(groups_of(tmp_path / "out")) == {"a dog": 2, "a cat": 2}


def test_metadata_of_a_folder_as_geneval_has_it_and_prompt_txt(tmp_path: Path) -> None:
    for n in range(2):
        write_image(tmp_path / "in" / "00000" / "samples" / f"000{n}.png", f"g{n}")
        write_image(tmp_path / "in" / "00001" / f"{n}.png", f"h{n}")
    write_jsonl(tmp_path / "in" / "00000" / "metadata.jsonl", [{"tag": "counting", "prompt": "two cats"}])
    (tmp_path / "in" / "00001" / "prompt.txt").write_text("three dogs\n")
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert grouped(groups_of(tmp_path / "out")) == {"two cats": 2, "three dogs": 2}


def test_file_names_that_are_prompts(tmp_path: Path) -> None:
    for name in ("a red cat_0", "a red cat_1", "two_dogs (1)", "two_dogs (2)", "two_dogs"):
        write_image(tmp_path / "in" / f"{name}.png")
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert grouped(groups_of(tmp_path / "out")) == {"a red cat": 2, "two dogs": 3}


def test_many_images_of_a_prompt_are_several_groups(tmp_path: Path) -> None:
    for n in range(40):
        write_image(tmp_path / "in" / "a cat" / f"{n}.png")
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert sorted(len(group.images) for group in groups_of(tmp_path / "out")) == [13, 13, 14]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        build("folder", tmp_path / "out", source=write_image(tmp_path / "a.png"))
