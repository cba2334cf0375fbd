"""A build that is killed goes on, and neither kills nor the number of processes change what it writes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_recipes.pipeline import scan, spool
from data_recipes.pipeline.spool import Spool
from data_recipes.plan import InterruptedBuild
from prefrm.errors import DatasetError
from tests.data_recipes.sources import (
    build,
    image,
    preferences,
    write_image,
    write_json,
    write_parquet,
    write_tar,
)

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

    with pytest.raises(
        InterruptedBuild, match=r"a\.png changed while the dataset was built; what was read is"
    ):
        build("trl", tmp_path / "out", source=path, progress=change)
    build("trl", tmp_path / "out", source=path)
    assert preferences(tmp_path / "out", "another", "b") == {("x", "another", "b"): (1.0, 1.0)}


def kill_at_train(stage: str, done: int, total: int | None) -> None:
    if stage == "train":
        raise Killed


def test_image_files_that_are_mended_or_changed_before_a_build_resumes_are_read_again(tmp_path: Path) -> None:
    for name in ("a", "c", "d", "e"):
        write_image(tmp_path / f"{name}.png")
    write_image(tmp_path / "inline.png", "broken")
    pairs = [("x", "a", "b"), ("x", "a", "c"), ("y", "d", "e"), ("z", "f", "e")]
    rows = [{"prompt": p, "chosen": f"{one}.png", "rejected": f"{two}.png"} for p, one, two in pairs]
    path = write_json(tmp_path / "rows.json", rows)
    with pytest.raises(Killed):
        build("trl", tmp_path / "out", source=path, progress=kill_at_train)
    write_image(tmp_path / "b.png")
    write_image(tmp_path / "c.png", "another c")
    again = build("trl", tmp_path / "out", source=path)
    assert (again.info.left_out, len(again.left_out)) == ({"broken image": 1}, 1)
    assert preferences(tmp_path / "out", "a", "b", "another c", "d", "e") == {
        ("x", "a", "b"): (1.0, 1.0),
        ("x", "a", "another c"): (1.0, 1.0),
        ("y", "d", "e"): (1.0, 1.0),
    }
    assert again.info == build("trl", tmp_path / "whole", source=path).info


def test_a_split_that_is_finished_is_written_again_if_its_images_are_others(tmp_path: Path) -> None:
    for split in ("test", "train"):
        rows = [{"prompt": split, "chosen": f"{split}.png", "rejected": f"{split} 2.png"} for _ in range(2)]
        write_json(tmp_path / "in" / f"{split}.json", rows)
        for name in (f"{split}", f"{split} 2"):
            write_image(tmp_path / "in" / f"{name}.png")
    stages: list[str] = []

    def kill_at_test(stage: str, done: int, total: int | None) -> None:
        if stage == "test":
            raise Killed

    with pytest.raises(Killed):
        build("trl", tmp_path / "out", source=tmp_path / "in", progress=kill_at_test)
    write_image(tmp_path / "in" / "train.png", "another")
    build("trl", tmp_path / "out", source=tmp_path / "in", progress=lambda stage, *_: stages.append(stage))
    assert {"train", "test"} <= {*stages}
    assert preferences(tmp_path / "out", "another", "train 2") == {
        ("train", "another", "train 2"): (1.0, 2.0)
    }


def lose_rows(folder: Path) -> dict[str, Any]:
    (folder / "rows.parquet").rename(folder / "away")
    return {}


@pytest.mark.parametrize(
    ("make_error", "message"),
    [
        (lambda folder: {"shares": (0.0, 1e-9)}, "too few prompts: none falls into the test split"),
        (lambda folder: {"apart_from": [folder / "absent"]}, "absent"),
        (lose_rows, "rows.parquet does not exist"),
    ],
    ids=["empty split", "no dataset to be apart from", "no source"],
)
def test_rows_are_not_read_again_after_an_error_behind_them(
    tmp_path: Path, make_error: Callable[[Path], dict[str, Any]], message: str
) -> None:
    rows = source(tmp_path, 40)
    with pytest.raises(Killed):
        build("table", tmp_path / "out", source=rows, progress=kill_at_train, **OPTIONS)
    wrong = make_error(tmp_path)
    with pytest.raises(InterruptedBuild, match=f"{message}.*; what was read is kept; run the same command"):
        build("table", tmp_path / "out", source=rows, **wrong, **OPTIONS)
    if not rows.exists():
        (tmp_path / "away").rename(rows)
    stages: set[str] = set()
    options = {"source": rows, "shares": (0.2, 0.2), "seed": 5, **OPTIONS}
    again = build("table", tmp_path / "out", progress=lambda stage, *_: stages.add(stage), **options)
    assert stages == {"train", "validation", "test"}
    assert again.info == build("table", tmp_path / "whole", **options).info


def test_a_finished_split_that_is_no_longer_wanted_is_not_in_the_dataset(tmp_path: Path) -> None:
    rows = source(tmp_path, 40)

    def kill_at_test(stage: str, done: int, total: int | None) -> None:
        if stage == "test":
            raise Killed

    with pytest.raises(Killed):
        build("table", tmp_path / "out", source=rows, shares=(0.2, 0.2), progress=kill_at_test, **OPTIONS)
    build("table", tmp_path / "out", source=rows, shares=(0.0, 0.2), **OPTIONS)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        "test.parquet",
        "train.parquet",
    ]


@pytest.mark.parametrize("row_bytes", [2**23, 1], ids=["a job of rows", "a job for each row"])
def test_a_source_is_of_another_format_only_if_none_of_its_first_rows_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_bytes: int
) -> None:
    monkeypatch.setattr(scan, "ROWS", 4)
    monkeypatch.setattr(scan, "ROW_BYTES", row_bytes)
    bad = {"prompt": "", "a": image("a"), "b": image("b")}
    good = [{"prompt": f"p {n}", "a": image(f"{n}"), "b": image(f"{n} b")} for n in range(3)]
    rows = write_parquet(tmp_path / "rows.parquet", [bad, *good])
    assert build("table", tmp_path / "out", source=rows, **OPTIONS).info.left_out == {"bad row": 1}
    rows = write_parquet(tmp_path / "bad.parquet", [bad] * 4 + good)
    with pytest.raises(DatasetError, match=r"no row has the format that the recipe reads: bad\.parquet:0"):
        build("table", tmp_path / "bad", source=rows, **OPTIONS)
    assert not (tmp_path / "bad" / ".building").exists()


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
