"""Images in folders, as people lay them out, become groups without comparisons."""

from pathlib import Path

import pytest
from PIL import Image

from data_recipes.folder import FolderOptions, find_images, first_prompts, read_parts
from prefrm.errors import DatasetError
from prefrm.media import digest
from prefrm.records import PreferenceGroup, prompt_key
from tests.data_recipes.sources import build, groups_of, image, video, write_image, write_jsonl


def grouped(groups: list[PreferenceGroup]) -> dict[str, int]:
    assert not any(group.comparisons or group.quality for group in groups)
    return {group.prompt: len(group.candidates) for group in groups}


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
    assert built.info.left_out == {"broken image": 1, "only candidate of its prompt": 1}


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


def test_folders_called_after_splits_are_no_prompts(tmp_path: Path) -> None:
    for name in ("train/a red cat/0", "train/a red cat/1", "Test/a dog_1", "Test/a dog_2", "a dog/test/0"):
        write_image(tmp_path / "in" / f"{name}.png", name)
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert grouped(groups_of(tmp_path / "out")) == {"a red cat": 2, "a dog": 3}


def test_the_first_prompts_are_shown(tmp_path: Path) -> None:
    for n in range(6):
        for k in range(2):
            write_image(tmp_path / "in" / f"cat {chr(97 + n)}" / f"{k}.png", f"{n} {k}")
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert first_prompts(tmp_path / "out") == ("prompts: 'cat a', 'cat b', 'cat c', 'cat d', 'cat e', ...")


def test_many_images_of_a_prompt_are_several_groups(tmp_path: Path) -> None:
    for n in range(40):
        write_image(tmp_path / "in" / "a cat" / f"{n}.png")
    build("folder", tmp_path / "out", source=tmp_path / "in")
    assert sorted(len(group.candidates) for group in groups_of(tmp_path / "out")) == [13, 13, 14]


def test_metadata_names_files_of_folders_below_and_missing_ones(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("train/0.png", "train/1.png", "train/.thumbnail.png", "__MACOSX/train/0.png"):
        write_image(source / name)
    names = ("train/0.png", "./train/1.png", "train/2.png")
    write_jsonl(source / "metadata.jsonl", [{"file_name": name, "caption": "a cat"} for name in names])
    built = build("folder", tmp_path / "out", source=source)
    assert grouped(groups_of(tmp_path / "out")) == {"a cat": 2}
    assert built.info.left_out == {"broken image": 1}
    assert f"{source / 'train' / '2.png'}: cannot be read: No such file" in built.left_out[0]


def test_an_empty_text_and_a_number_are_no_prompts(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("7/0.png", "7/1.png", "12.png", "13.png", "a cat_0.png", "a cat_1.png"):
        write_image(source / name)
    write_jsonl(source / "metadata.jsonl", [{"file_name": "13.png", "text": None}])
    built = build("folder", tmp_path / "out", source=source)
    assert grouped(groups_of(tmp_path / "out")) == {"a cat": 2}
    assert built.info.left_out == {"bad row": 4}
    assert any("7/0.png: no prompt found ('7' is not a valid prompt)" in line for line in built.left_out)
    assert any("prompt is missing or empty" in line for line in built.left_out)


def test_the_files_of_a_candidate_are_found_again(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_image(source / "a_Cat" / "1.png")
    Image.new("RGB", (8, 8), "red").save(source / "a_Cat" / "0.gif")
    (source / "a_Cat" / "copy.gif").write_bytes((source / "a_Cat" / "0.gif").read_bytes())
    write_image(source / "a_Cat" / "broken.png")
    build("folder", tmp_path / "out", source=source)
    (group,) = groups_of(tmp_path / "out")
    found = find_images(source)
    files = [found[prompt_key(group.prompt), digest(image or b"")] for image in group.candidates]
    assert sorted(files) == [["a_Cat/0.gif", "a_Cat/copy.gif"], ["a_Cat/1.png"]]


def test_metadata_of_names_that_no_file_can_have(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("0", "1"):
        write_image(source / "a cat" / f"{name}.png")
    for name in ("x\0.png", "x" * 300 + ".png"):
        write_jsonl(source / "metadata.jsonl", [{"file_name": name, "text": "a dog"}])
        built = build("folder", tmp_path / "out", source=source, overwrite=True)
        assert built.groups == {"train": 1} and sum(built.info.left_out.values()) == 1
    for name in ("/etc/a.png", "a/../../b.png"):
        write_jsonl(source / "metadata.jsonl", [{"file_name": name, "text": "a dog"}])
        with pytest.raises(DatasetError, match="which is not below"):
            build("folder", tmp_path / "out", source=source, overwrite=True)


def test_a_build_that_was_stopped_starts_again_if_images_were_added(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a cat" / "0.png")
    options = FolderOptions(source=str(tmp_path / "in"))
    before = read_parts(options)
    assert read_parts(options)[0].stamp == before[0].stamp
    write_image(tmp_path / "in" / "a cat" / "1.png")
    assert read_parts(options)[0].stamp != before[0].stamp


def test_what_cannot_be_a_folder_of_images_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(source: Path) -> str:
        with pytest.raises(DatasetError) as caught:
            build("folder", tmp_path / "out", source=source)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert refused(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'} does not exist"
    file = write_image(tmp_path / "a.png")
    assert refused(file) == f"{file} is not a folder"
    source = tmp_path / "in"
    (source / "a cat").mkdir(parents=True)
    (source / "a cat" / "notes.txt").write_text("mine")
    assert f"{source} has no images or videos: no file name ends with .png, .jpg" in refused(source)
    write_image(source / "a cat" / "0.png")
    write_image(source / "a dog" / "0.png")
    why = "the train split has no usable group; left out: 2 only candidate of its prompt"
    assert refused(source).startswith(f"{why}; what was read is kept; ")
    for name in ("a cat", "a dog"):
        (source / name / "0.png").write_bytes(b"x")
    assert "no usable judgement; left out: 2 broken image, such as in:0 " in refused(source)
    (source / "metadata.csv").write_text("file_name,title\na cat/0.png,x\n")
    assert "has none of the columns prompt, text, caption; it has file_name, title" in refused(source)


def test_videos_of_a_prompt_are_a_group_beside_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "a cat"
    for name in "ab":
        write_image(folder / f"{name}.png")
        (folder / f"{name}.mp4").write_bytes(video(name))
    build("folder", tmp_path / "out", source=tmp_path / "in")
    found = {group.group().kind: set(group.candidates) for group in groups_of(tmp_path / "out")}
    assert found == {"image": {image("a"), image("b")}, "video": {video("a"), video("b")}}
