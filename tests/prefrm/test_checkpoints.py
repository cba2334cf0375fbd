import logging
import shutil
from pathlib import Path

import pytest

from prefrm.checkpoints import Checkpoints, step_of


def write(checkpoints: Checkpoints, step: int) -> None:
    with checkpoints.writing(step) as folder:
        (folder / "state.json").write_text(f"step {step}")
        (folder / "weights.safetensors").write_bytes(bytes(step))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [step_of(path) for path in checkpoints.found()]


def test_only_the_newest_stay(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None
    # By number and not by name.
    for step in (9, 10, 100_000_000):
        write(checkpoints, step)
    assert steps(checkpoints) == [100_000_000, 10]
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest / "state.json").read_text() == "step 100000000"


@pytest.mark.parametrize("damage", ["altered", "missing", "no manifest", "half a manifest", "a list"])
def test_a_broken_checkpoint_is_passed_over_and_can_be_written_again(
    checkpoints: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(checkpoints, 1)
    write(checkpoints, 2)
    broken = checkpoints.found()[0]
    manifest = broken / "manifest.json"
    if damage == "altered":
        (broken / "weights.safetensors").write_bytes(b"other")
    elif damage == "missing":
        (broken / "weights.safetensors").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("[]" if damage == "a list" else manifest.read_text()[:30])
    with caplog.at_level(logging.WARNING):
        newest = checkpoints.newest()
    assert newest is not None
    assert step_of(newest) == 1
    assert f"{broken} is passed over" in caplog.text
    write(checkpoints, 2)
    assert checkpoints.newest() == broken


def test_what_was_never_finished_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)

    def interrupted() -> None:
        with checkpoints.writing(2) as folder:
            (folder / "state.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert steps(checkpoints) == [1]
    checkpoints.drop_after(1)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    checkpoints.remove()
    assert not checkpoints.folder.exists()
    checkpoints.remove()


def test_later_checkpoints_can_be_dropped(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)
    write(checkpoints, 2)
    checkpoints.drop_after(1)
    assert steps(checkpoints) == [1]


def test_a_kill_while_they_are_removed_leaves_none(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkpoints, 1)
    write(checkpoints, 2)
    remove = shutil.rmtree

    def killed(path: Path, **options: object) -> None:
        if path.exists():
            remove(path / "step-00000002")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.remove()
    assert checkpoints.found() == []
    write(checkpoints, 3)
    checkpoints.remove()
    assert list(checkpoints.folder.parent.iterdir()) == []
