import os
from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.files import (
    parse_json,
    read_regular,
    require_writable_file,
    require_writable_folder,
    write_file_whole,
    write_json,
    write_whole,
)


def test_a_path_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    require_writable_file(tmp_path / "old.png", "--plot")
    require_writable_file(tmp_path / "new.png", "--plot")
    require_writable_folder(tmp_path / "new" / "deep", "--out")
    require_writable_folder(tmp_path, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "is a folder; name a file"),
        ("nowhere/x.png", "nowhere is not a folder; create it first"),
        ("file/x.png", "file is not a folder; create it first"),
        ("x" * 300, "cannot be written: File name too long; choose another path"),
        ("/proc/x.png", "cannot be written: No such file or directory; choose another path"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"--plot .*{reason}"):
        require_writable_file(tmp_path / place, "--plot")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/x/y"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out .* cannot be written: .*; choose another path"):
        require_writable_folder(tmp_path / place, "--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(ConfigError, match="has more than 4 bytes"):
        read_regular(tmp_path / "file", 4)


def test_nothing_else_is_read_or_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        with pytest.raises(ConfigError, match="is not a regular file"):
            read_regular(tmp_path / name, 5)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 5)


def test_plain_json_is_parsed() -> None:
    assert parse_json(b'{"a": [1, {"b": 2.5}], "c": null}') == {"a": [1, {"b": 2.5}], "c": None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "nested more than 32 deep"),
        (b"[" * 33 + b"]" * 33, "nested more than 32 deep"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        (b"[NaN]", "NaN is not a finite"),
        (b"[1e400]", "1e400 is not a finite"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"{", "not valid JSON"),
    ],
)
def test_hostile_json_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_json(content)


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": [1, None]})
    with pytest.raises(ZeroDivisionError), write_file_whole(path) as partial:
        partial.write_text("half")
        assert path.read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'
        1 / 0  # noqa: B018
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{\n  "a": [\n    1,\n    null\n  ]\n}\n']


def test_a_file_that_cannot_be_written_is_named_instead_of_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "a.txt"):
        with pytest.raises(OSError, match=f"'{path}'$"):
            write_whole(path, "text")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]
