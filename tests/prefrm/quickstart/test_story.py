import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from data_recipes.shapes.prompts import split_prompts
from data_recipes.shapes.recipe import ShapesOptions
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.quickstart import serving
from prefrm.quickstart.folder import make_room
from prefrm.quickstart.serving import Address
from prefrm.quickstart.settings import PolicySettings, Settings
from prefrm.quickstart.story import tell
from prefrm.train import OptimConfig
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

SHORT = Settings(
    data=ShapesOptions(train=60, validation=12, test=24),
    judge=OptimConfig(steps=3, batch_size=1),
    policy=PolicySettings(steps=2, prompts=2, group_size=3, samples=1, watch_every=1),
    parity_groups=4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run: its folder, what it printed, its numbers."""

    out: Path
    printed: str
    facts: dict[str, Any]


def told_in_short(out: Path) -> Told:
    threads = torch.get_num_threads()
    with redirect_stdout(io.StringIO()) as printed:
        tell(out, seed=3, settings=SHORT)
    torch.set_num_threads(threads)
    return Told(
        out=out, printed=printed.getvalue(), facts=json.loads((out / "report.json").read_text("utf-8"))
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told_in_short(tmp_path_factory.mktemp("quickstart") / "run")


@pytest.mark.slow
def test_the_whole_story_in_short(told: Told) -> None:
    facts = told.facts
    assert [f"{n}/7" in told.printed for n in range(1, 8)] == [True] * 7
    assert facts["seed"] == 3
    assert 0.25 < facts["judge"]["pair_accuracy_before"] < 0.75
    assert facts["parity"] == {
        "groups": 4,
        "grpc_max_abs_diff": pytest.approx(0, abs=1e-6),
        "http_max_abs_diff": pytest.approx(0, abs=1e-6),
    }
    assert [step for step, _ in facts["policy"]["oracle_during"]] == [0, 1, 2]
    assert set(facts["policy"]["by_skill"]) == set(facts["judge"]["by_skill"])
    assert facts["policy"]["held_out_prompts"] == len(split_prompts("test"))
    seconds = dict(facts["seconds"])
    total = seconds.pop("total")
    assert list(seconds) == ["data", "judge", "evaluation", "bundle", "server", "policy", "report"]
    assert 0 < total - sum(seconds.values()) < 0.1 * total
    assert 100 < facts["peak_rss_mb"] < 4096
    report = (told.out / "report.md").read_text()
    pictures = list((told.out / "pictures").glob("*.png"))
    assert len(pictures) == 7
    assert all(f"(pictures/{picture.name})" in report for picture in pictures)
    for name in ("data/dataset.json", "judge/bundle/manifest.json", "policy/model.safetensors"):
        assert (told.out / name).is_file()


@contextmanager
def served_here(bundle: Path, folder: Path) -> Iterator[Address]:
    """The bundle behind a server of this process, which needs no seconds to import torch."""
    server = JudgeServer(Engine.from_bundle(bundle, device="cpu"), ModelInfo(name="judge"))
    with background(server) as found:
        yield Address(http=found.http, grpc=found.grpc, metrics=found.metrics, models=found.models)


@pytest.mark.slow
def test_a_second_run_replaces_the_first_and_an_equal_seed_gives_equal_numbers(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "served", served_here)
    (told.out / "notes.txt").write_text("the only copy")
    (told.out / "policy" / "stale").write_text("of the first run")
    again = told_in_short(told.out).facts
    measured = {"seconds", "peak_rss_mb"}
    assert {key: value for key, value in again.items() if key not in measured} == {
        key: value for key, value in told.facts.items() if key not in measured
    }
    assert (told.out / "notes.txt").read_text() == "the only copy"
    assert not (told.out / "policy" / "stale").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused_before_anything_is_deleted(seed: int, tmp_path: Path) -> None:
    with make_room(tmp_path):
        pass
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"received {seed}"):
        tell(tmp_path, seed=seed, settings=SHORT)
    assert (tmp_path / "report.json").is_file()


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("the only copy")
    with pytest.raises(ConfigError, match="--out"):
        tell(tmp_path, seed=0, settings=SHORT)
    assert (tmp_path / "thesis.tex").read_text() == "the only copy"
