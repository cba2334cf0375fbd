import subprocess
import sys
from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.quickstart import folder
from prefrm.quickstart.folder import MARKER, make_room

# Has the folder, says so, and waits; the module alone, since its package imports torch.
HOLDER = """
import importlib.util, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("folder", sys.argv[1])
folder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folder)
with folder.make_room(Path(sys.argv[2])):
    print("here", flush=True)
    time.sleep(60)
"""


def killed_run(out: Path) -> None:
    """What is there when a run is killed while it builds its data."""
    with make_room(out):
        pass
    (out / "data" / ".building").mkdir(parents=True)
    (out / "data" / ".building" / "train.parquet").write_text("half")


def test_a_new_and_an_empty_folder_are_marked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new" / "run", tmp_path / "empty"):
        with make_room(out):
            pass
        assert [path.name for path in out.iterdir()] == [MARKER]


def test_a_run_that_was_killed_is_replaced_and_what_is_foreign_stays(tmp_path: Path) -> None:
    killed_run(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("the only copy")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "report.json").write_text("{}")
    with make_room(tmp_path):
        pass
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [MARKER, "labels", "labels/report.json", "notes.txt"]


@pytest.mark.parametrize("name", ["report.json", "data/dataset.json", "thesis.tex"])
def test_what_no_quickstart_wrote_is_refused_and_stays(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("the only copy")
    with pytest.raises(ConfigError, match="--out"), make_room(tmp_path):
        pass
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_linked_folder_keeps_its_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out = tmp_path / "run"
    out.symlink_to("disk")
    killed_run(out)
    with make_room(out):
        pass
    assert out.is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == [MARKER]


def test_a_linked_part_loses_only_its_link(tmp_path: Path) -> None:
    with make_room(tmp_path / "run"):
        pass
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "photos").write_text("mine")
    (tmp_path / "run" / "data").symlink_to(tmp_path / "elsewhere")
    with make_room(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == [MARKER]
    assert (tmp_path / "elsewhere" / "photos").read_text() == "mine"


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    killed_run(Path("."))
    with make_room(Path(".")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_a_file_or_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="is no folder"), make_room(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_another_run_has_is_refused_until_that_one_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder.__file__), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None and running.stdout.readline() == "here\n"
            (tmp_path / "report.json").write_text("{}")
            with (
                pytest.raises(ConfigError, match=r"another quickstart is writing into .*--out"),
                make_room(tmp_path),
            ):
                pass
            assert (tmp_path / "report.json").is_file()
        finally:
            running.kill()
    with make_room(tmp_path):
        assert not (tmp_path / "report.json").exists()


def test_a_run_that_fails_gives_its_folder_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), make_room(tmp_path):
        _ = 1 / 0
    with make_room(tmp_path):
        pass
