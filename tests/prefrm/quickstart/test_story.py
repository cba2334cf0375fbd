import json
from pathlib import Path

import pytest

from data_recipes.shapes.recipe import ShapesOptions
from prefrm.config import load_config
from prefrm.errors import ConfigError, ServerUnavailableError
from prefrm.quickstart.judging import training_settings
from prefrm.quickstart.serving import served
from prefrm.quickstart.settings import PolicySettings, Settings
from prefrm.quickstart.story import tell
from prefrm.train import OptimConfig, TrainConfig

SHORT = Settings(
    data=ShapesOptions(train=60, validation=12, test=24),
    judge=OptimConfig(steps=3, batch_size=8),
    policy=PolicySettings(steps=2, prompts=2, group_size=3, samples=1, watch_every=1),
    parity_groups=4,
)


@pytest.mark.slow
def test_the_whole_story_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(tmp_path / "run", seed=3, settings=SHORT)
    told = capsys.readouterr().out
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [f"{n}/7" in told for n in range(1, 8)] == [True] * 7
    assert facts["seed"] == 3
    assert 0.25 < facts["judge"]["pair_accuracy_before"] < 0.75
    assert facts["parity"] == {
        "groups": 4,
        "grpc_max_abs_diff": pytest.approx(0, abs=1e-6),
        "http_max_abs_diff": pytest.approx(0, abs=1e-6),
    }
    assert [step for step, _ in facts["policy"]["oracle_during"]] == [0, 1, 2]
    assert set(facts["policy"]["by_skill"]) == set(facts["judge"]["by_skill"])
    assert facts["seconds"]["total"] > facts["seconds"]["policy"] > 0
    assert 100 < facts["peak_rss_mb"] < 4096
    report = (tmp_path / "run" / "report.md").read_text()
    pictures = list((tmp_path / "run" / "pictures").glob("*.png"))
    assert len(pictures) == 7
    assert all(f"(pictures/{picture.name})" in report for picture in pictures)
    for name in ("data/dataset.json", "judge/bundle/manifest.json", "policy/model.safetensors"):
        assert (tmp_path / "run" / name).is_file()


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("the only copy")
    with pytest.raises(ConfigError, match="--out"):
        tell(tmp_path, seed=0, settings=SHORT)
    assert (tmp_path / "thesis.tex").read_text() == "the only copy"


def test_a_server_that_does_not_start_is_one_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerUnavailableError, match="no-bundle is no folder"),
        served(tmp_path / "no-bundle", tmp_path / "server"),
    ):
        pass


def test_the_shipped_config_trains_what_the_quickstart_trains(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    shipped = load_config(TrainConfig, root / "configs" / "train" / "shapes.yaml")
    told = training_settings(tmp_path, tmp_path, Settings().judge, seed=0)
    assert shipped.optim == told.optim
    assert shipped.adapter == told.adapter
    assert shipped.export == told.export
    assert (root / shipped.judge.base_model).resolve() == Path(told.judge.base_model).resolve()
