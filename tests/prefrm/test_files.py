from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.files import require_writable_file, require_writable_folder


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
        ("nowhere/x.png", "nowhere is not a folder; make it first"),
        ("file/x.png", "file is not a folder; make it first"),
        ("x" * 300, "cannot be written: File name too long; choose another place"),
        ("/proc/x.png", "cannot be written: No such file or directory; choose another place"),
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
    with pytest.raises(ConfigError, match=r"--out .* cannot be written: .*; choose another place"):
        require_writable_folder(tmp_path / place, "--out")
    assert (tmp_path / "file").read_text() == "mine"
