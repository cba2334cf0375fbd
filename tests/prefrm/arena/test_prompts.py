"""Formats of prompt sets, on literal rows of their sources."""

import hashlib
from pathlib import Path

import pytest

from prefrm.arena import ArenaPrompt, read_prompts
from prefrm.errors import ConfigError


def written(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_file_has_a_prompt_in_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a red square\r\n\n  two blue circles \n")
    found = read_prompts(path)
    assert found.name == "text"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.prompts == (
        ArenaPrompt(id="0", text="a red square"),
        ArenaPrompt(id="1", text="two blue circles"),
    )


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_a_file_without_a_prompt_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no prompt"):
        read_prompts(written(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "absent.txt")
