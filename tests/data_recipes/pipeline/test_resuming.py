"""A build that is killed goes on, and neither kills nor the number of processes change what it writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_recipes.pipeline import scan, spool
from data_recipes.pipeline.spool import Spool
from data_recipes.plan import InterruptedBuild
from prefrm.errors import DatasetError
from tests.data_recipes.sources import build, image, write_image, write_json, write_parquet, write_tar

OPTIONS = {"image_1": "a", "image_2": "b", "preferred": "image_1"}


def source(folder: Path, rows: int) -> Path:
    pairs = [{"prompt": f"p {n % 50}", "a": image(f"{n}"), "b": image(f"{n} b")} for n in range(rows)]
    return write_parquet(folder / "rows.parquet", pairs, row_group_size=100)


class Killed(BaseException):
    """Ends a build as SIGKILL does: nothing is cleaned up."""


@pytest.mark.parametrize("moments", [(1, 2), (3,)])
def test_a_build_goes_on_behind_the_rows_that_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, ...]
) -> None:
    monkeypatch.setattr(scan, "ROWS", 20)
    rows = source(tmp_path, 100)
    whole = build("table", tmp_path / "whole", source=rows, **OPTIONS)
    for moment in moments:

        def kill(stage: str, done: int, total: int | None, at: list[int] = [moment]) -> None:  # noqa: B006
            at[0] -= stage == "rows"
            if at[0] == 0:
                raise Killed

        with pytest.raises(Killed):
            build("table", tmp_path / "out", source=rows, progress=kill, **OPTIONS)
    seen: list[int] = []
    again = build(
        "table",
        tmp_path / "out",
        source=rows,
        progress=lambda stage, done, total: seen.append(done) if stage == "rows" else None,
        **OPTIONS,
    )
    assert again.info == whole.info
    assert seen == list(range(20 * (sum(moments) + 1), 101, 20))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "train.parquet"]


def test_a_split_that_is_complete_is_not_written_again(tmp_path: Path) -> None:
    rows = source(tmp_path, 100)
    whole = build("table", tmp_path / "whole", source=rows, shares=(0.2, 0.2), **OPTIONS)

    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "test":
            raise Killed

    with pytest.raises(Killed):
        build("table", tmp_path / "out", source=rows, shares=(0.2, 0.2), progress=kill, **OPTIONS)
    stages: set[str] = set()
    again = build(
        "table",
        tmp_path / "out",
        source=rows,
        shares=(0.2, 0.2),
        progress=lambda stage, done, total: stages.add(stage),
        **OPTIONS,
    )
    assert stages == {"test"}
    assert again.info == whole.info


@pytest.mark.parametrize("changed", ["source", "options"])
def test_what_a_build_of_other_data_left_is_not_used(tmp_path: Path, changed: str) -> None:
    rows = source(tmp_path, 40)

    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "train":
            raise Killed

    with pytest.raises(Killed):
        build("table", tmp_path / "out", source=rows, progress=kill, **OPTIONS)
    options = dict(OPTIONS)
    if changed == "source":
        source(tmp_path, 60)
    else:
        options["preferred"] = "image_2"
    again = build("table", tmp_path / "out", source=rows, **options)
    assert again.info == build("table", tmp_path / "whole", source=rows, **options).info


def test_what_was_read_is_kept_when_a_part_cannot_be_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar is damaged behind its first rows, and then whole."""
    monkeypatch.setattr(scan, "ROWS", 10)
    members = {}
    for n in range(30):
        members |= {f"{n}.jpg_0.jpg": image(f"{n}"), f"{n}.jpg_1.jpg": image(f"{n} b")}
        members |= {f"{n}.label_{k}.txt": f"{1.0 - k}".encode() for k in (0, 1)}
        members |= {f"{n}.original_prompt.txt": f"p {n}".encode()}
    tar = write_tar(tmp_path / "0.tar", members)
    whole, time_ns = tar.read_bytes(), tar.stat().st_mtime_ns
    half = len(whole) // 1024 * 512
    tar.write_bytes(whole[:half] + b"?" * (len(whole) - half))
    os.utime(tar, ns=(time_ns, time_ns))
    with pytest.raises(InterruptedBuild, match="what was read is kept; run the same command again to resume"):
        build("pickapic", tmp_path / "out", source=tar)
    tar.write_bytes(whole)
    os.utime(tar, ns=(time_ns, time_ns))
    seen: list[int] = []
    built = build(
        "pickapic",
        tmp_path / "out",
        source=tar,
        progress=lambda stage, done, total: seen.append(done) if stage == "rows" else None,
    )
    assert (built.groups, seen[-2:]) == ({"train": 30}, [20, 30])


def test_a_full_disk_is_named_and_a_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = source(tmp_path, 400)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "PRAGMAS", f"PRAGMA max_page_count = 40; {spool.PRAGMAS}")
        with pytest.raises(
            InterruptedBuild, match=r"no space left on the disk of .*out: .* run the same command again"
        ):
            build("table", tmp_path / "out", source=rows, **OPTIONS)
    assert build("table", tmp_path / "out", source=rows, **OPTIONS).info.splits["train"].strict == 400


def test_a_spool_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    rows = source(tmp_path, 40)

    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "train":
            raise Killed

    with pytest.raises(Killed):
        build("table", tmp_path / "out", source=rows, progress=kill, **OPTIONS)
    (database,) = (tmp_path / "out").rglob(spool.FILE)
    for path in database.parent.glob(f"{spool.FILE}*"):
        path.write_bytes(b"x" * 5000)
    assert build("table", tmp_path / "out", source=rows, **OPTIONS).info.splits["train"].strict == 40


def test_an_image_file_that_changes_while_the_dataset_is_built_is_noticed(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    rows = [{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}]
    path = write_json(tmp_path / "rows.json", rows)

    def change(stage: str, done: int, total: int | None) -> None:
        if stage == "train":
            write_image(tmp_path / "a.png", "another")

    with pytest.raises(DatasetError, match=r"a\.png changed while the dataset was built; build it again"):
        build("trl", tmp_path / "out", source=path, progress=change)


def test_two_builds_into_one_folder_are_refused(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool", ["a"])
    with first.transaction(), pytest.raises(DatasetError, match="another build is running in"):
        Spool(tmp_path / "spool", ["a"])
    first.close()


PROGRAM = """
import sys
from data_recipes.pipeline import scan, spool
from tests.data_recipes.sources import build
if __name__ == "__main__":
    built = build("table", sys.argv[2], source=sys.argv[1], image_1="a", image_2="b", preferred="image_1",
    processes=2,
                  progress=lambda stage, done, total: print(stage, done, flush=True))
    print("done", built.info.fingerprints["train"])
"""


@pytest.mark.slow
def test_a_build_in_several_processes_that_is_killed_leaves_none_behind_and_ends_the_same(
    tmp_path: Path,
) -> None:
    rows = source(tmp_path, 900)
    whole = build("table", tmp_path / "whole", source=rows, **OPTIONS)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(rows), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line == "rows 256\n")
        children = _children(process.pid)
        process.send_signal(signal.SIGKILL)
    assert children
    deadline = time.monotonic() + 30
    while any(map(_alive, children)):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = result.stdout.splitlines()
    assert int(lines[0].split()[1]) >= 384
    assert lines[-1] == f"done {whole.info.fingerprints['train']}"


def _children(pid: int) -> list[int]:
    """Processes below a process, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    below = [child for child, parent in parents.items() if parent == pid]
    return below + [child for one in below for child in _children(one)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
