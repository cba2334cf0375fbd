"""The leak guard, against files of prompts and datasets of preferences."""

from pathlib import Path

import pytest
from PIL import Image

from prefrm.arena import ArenaPrompt
from prefrm.arena.overlap import Overlap, find_overlap
from prefrm.errors import ConfigError
from prefrm.media import encode_png
from prefrm.records import Comparison, PreferenceGroup, write_groups

PROMPTS = [ArenaPrompt(id=str(n), text=text) for n, text in enumerate(["A red  cube", "two dogs", "a cat"])]


def test_prompts_of_a_training_file_are_found_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    path = tmp_path / "train_prompt.txt"
    path.write_text("a cat\n a RED cube\nA red cube\na cat on a mat\n", encoding="utf-8")
    assert find_overlap(PROMPTS, path) == Overlap(source=str(path), trained=3, ids=("0", "2"))
    path.write_text("a bird\n", encoding="utf-8")
    assert find_overlap(PROMPTS, path).ids == ()


def test_every_split_of_a_dataset_counts(tmp_path: Path) -> None:
    images = tuple(encode_png(Image.new("RGB", (4, 4), (40 * n, 0, 0))) for n in range(2))
    for split, prompt in (("train", "Two dogs"), ("test", "a cat")):
        group = PreferenceGroup(
            id=split,
            prompt=prompt,
            candidates=images,
            comparisons=(Comparison.preferred(0, 1),),
        )
        write_groups([group], tmp_path, split)
    assert find_overlap(PROMPTS, tmp_path) == Overlap(source=str(tmp_path), trained=2, ids=("1", "2"))


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no prompt"):
        find_overlap(PROMPTS, tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_overlap(PROMPTS, tmp_path / "absent")
