"""`prefrm flow`: the table of methods, mistakes in one line, a run over a served judge."""

import json
from pathlib import Path

import pytest
import yaml

from prefrm.cli import run
from prefrm.config import load_config
from prefrm.flow.config import FlowConfig
from prefrm.flow.methods import METHODS

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "flow").glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """The first import of diffusers takes seconds, which are not the test's."""
    import prefrm.flow.run  # noqa: F401


def test_the_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flow", "--list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "paper", "kernel", "stochastic", "objective", "regularizer"]
    assert [row.split()[0] for row in rows] == list(METHODS)
    assert run(["flow", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list(METHODS)
    (nft,) = [row for row in listed if row["name"] == "nft"]
    assert nft["objective"] == "least_squares" and nft["settings"]["objective"]["lam"] == 1.0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configurations_are_read(path: Path) -> None:
    config = load_config(FlowConfig, path)
    assert config.row().name in METHODS
    first = path.read_text().splitlines()[0]
    assert f"prefrm flow configs/flow/{path.name}" in first
    # --set judge=... of the first line, as a person types it.
    assert load_config(FlowConfig, path, ["judge=grpc://judge:8001/judge"]).judge


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a configuration"),
        (["{folder}/none.yaml"], "cannot be read"),
        (["{config}", "--set", "method=grpo"], "method must be one of"),
        (["{config}", "--set", "optim.lr=fast"], "optim.lr must be a number"),
        (["{config}", "--set", "policy.model=nobody/nothing-here"], "cannot be loaded"),
        (["{config}", "--set", "policy.arguments.hight=3"], "does not take hight"),
        (["{config}", "--set", "settings.rollout.kernel=ode"], 'goes with the stochastic rule "none"'),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = tmp_path / "flow.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    filled = [one.format(folder=tmp_path, config=config) for one in arguments]
    assert run(["flow", *filled]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prefrm: ") and message in line


def settings(folder: Path) -> dict[str, object]:
    return {
        "output": str(folder / "run"),
        "device": "cpu",
        "method": "flow_grpo",
        "rewards": {"truth": {"scorer": "oracle"}},
        "policy": {"model": "shapes-flow", "steps": 3, "rank": 4, "alpha": 8},
        "prompts": {"world": "shapes", "count": 10},
        "rollout": {"prompts": 2, "group": 2, "batch": 4},
        "optim": {"iterations": 1},
        "evaluation": {"prompts": 1, "images": 2},
    }


def test_a_run_prints_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "flow.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    assert run(["flow", str(config)]) == 0
    truth, oracle, adapter, report = capsys.readouterr().out.splitlines()
    assert truth.startswith("truth: ") and oracle.startswith("oracle: ") and oracle.endswith(" after")
    assert adapter == f"adapter: {tmp_path / 'run' / 'lora'}"
    assert Path(report.removeprefix("report: ")).exists()
