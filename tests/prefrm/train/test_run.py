import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora.layer import Linear

from prefrm.bundle import load_bundle, read_manifest
from prefrm.client import connect
from prefrm.config import from_mapping, load_config, to_mapping
from prefrm.engine import Engine
from prefrm.errors import BundleError, ConfigError, DatasetError
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode
from prefrm.records import Comparison, PreferenceGroup, read_groups, write_groups
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, fit, run
from prefrm.train.measure import EXPORT_GROUPS
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.train.conftest import mixture_of

# The loss of the first steps, measured on the CPU with torch 2.13.
PINNED = {
    "verdict": (0.7042, 0.8928, 0.7201, 0.6966, 0.7040),
    "scalar": (0.5783, 0.5601, 0.5435, 0.5290, 0.5233),
}


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=brightness(train=12, validation=3, test=3)),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=30, batch_size=3, lr=1e-2),
        device="cpu",
    )


KINDS = {
    "image": {},
    "edit": {"template": "fit-late-v1"},
    "video": {"kind": "video", "frames": 2},
    "text": {"kind": "text"},
}


NOTHING = "no context image and no criterion"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_learns_and_its_bundle_says_so(
    config: TrainConfig, brightness: Callable[..., Path], kind: str
) -> None:
    """A server gives the matrices that were measured, too, on either wire."""
    brightness(kind, train=12, validation=3, test=3)
    spec = JudgeSpec(base_model=config.judge.base_model, **KINDS[kind])
    result = run(replace(config, judge=spec))
    assert result.held_out.metrics.accuracy.value == 1.0
    manifest = read_manifest(result.bundle)
    assert manifest.calibration is not None
    assert manifest.calibration.split == "validation"
    assert manifest.calibration.pairs == 9
    assert manifest.metrics["metrics"]["accuracy"]["value"] == 1.0
    assert manifest.training_inputs is not None
    had = manifest.training_inputs.describe()
    is_edit = kind == "edit"
    assert had == ("1 context image and criterion 'light' or 'shade'" if is_edit else NOTHING)
    assert (config.output / "evaluation" / "report.md").is_file()
    card = re.sub(" +", " ", (result.bundle / "README.md").read_text())
    assert "| pair accuracy | 1.000 (0.292 to 1.000; 9 pairs of 3 prompts) |" in card
    assert f"- each training group had {had}\n" in card
    assert f"- calibration: {manifest.calibration.map.describe()}, from 9 pairs of validation\n" in card
    shown = re.findall(r"\]\((plots/.*?)\)", card)
    by_criterion = ["plots/accuracy_by_criterion.png"] * is_edit
    assert shown == ["plots/accuracy.png", *by_criterion, "plots/order_gap.png", "plots/reliability.png"]
    assert f"Says which of two {spec.kind}s answers a prompt better" in card
    assert all(decode((result.bundle / path).read_bytes()).width > 500 for path in shown)
    groups = [group.group() for group in read_groups(config.data.path, "test")]
    engine = Engine.from_bundle(result.bundle, device="cpu")
    matrices = engine.score(groups)
    for matrix, judged in zip(matrices, result.held_out.judged, strict=True):
        np.testing.assert_allclose(matrix.p, judged.matrix.p, atol=1e-5)
    with background(JudgeServer(engine, ModelInfo(name="judge"))) as addresses:
        for url in (addresses.grpc_url, addresses.http_url):
            with connect(url) as client:
                assert all(one.equals(own) for one, own in zip(client.score(groups), matrices, strict=True))


def test_what_is_reported_is_what_the_exported_bundle_says(config: TrainConfig) -> None:
    """In bfloat16 the merged weights are not the adapter on its base model."""
    short = replace(config, dtype="bfloat16", optim=replace(config.optim, steps=3))
    result = run(replace(short, data=replace(config.data, validation=None)))
    groups = [group.group() for group in read_groups(config.data.path, "test")]
    matrices = Engine.from_bundle(result.bundle, device="cpu", dtype="bfloat16").score(groups)
    assert all(
        matrix.equals(judged.matrix) for matrix, judged in zip(matrices, result.held_out.judged, strict=True)
    )


@pytest.mark.slow
def test_the_export_is_held_against_the_judge_in_memory(config: TrainConfig) -> None:
    """On a CPU what is loaded is what was merged and written, bit for bit."""
    short = replace(config, dtype="bfloat16", optim=replace(config.optim, steps=3))
    assert run(short).export_difference == 0.0
    whole = replace(config, output=config.output / "whole", adapter=None)
    assert run(replace(whole, optim=replace(config.optim, steps=1))).export_difference == 0.0


def test_a_wrong_merge_writes_no_bundle_and_costs_no_training(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(config, dtype="bfloat16", optim=replace(config.optim, steps=3))
    with monkeypatch.context() as patch:
        delta = Linear.get_delta_weight
        patch.setattr(Linear, "get_delta_weight", lambda *arguments: delta(*arguments) * 1.03)
        with pytest.raises(BundleError, match="merge of the adapter changed the judge"):
            run(short)
    assert not (config.output / "bundle").exists()
    result = run(replace(short, export="adapter"), resume=True)
    assert read_manifest(result.bundle).weights == "adapter"


@pytest.mark.parametrize("validation", ["validation", None])
@pytest.mark.parametrize("damage", ["lost", "nan"])
def test_an_export_that_is_another_judge_is_an_error(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, damage: str, validation: str | None
) -> None:
    load = Engine.from_bundle

    def damaged(*arguments: Any, **options: Any) -> Engine:
        engine = load(*arguments, **options)
        with torch.no_grad():
            engine.judge.head.log_scale.fill_(-20.0 if damage == "lost" else torch.nan)
        return engine

    monkeypatch.setattr(Engine, "from_bundle", damaged)
    short = replace(config, optim=replace(config.optim, steps=1))
    with pytest.raises(BundleError, match=r"is not the judge that was trained: on \d groups .* by (0\.|inf)"):
        run(replace(short, data=replace(config.data, validation=validation)))
    assert load_bundle(config.output / "bundle", "cpu").manifest.calibration is None


def test_an_export_of_which_nothing_could_be_asked_is_not_called_equal(config: TrainConfig, png) -> None:
    unreadable = [broken(f"broken-{n}", png) for n in range(EXPORT_GROUPS)]
    write_groups([*unreadable, *read_groups(config.data.path, "test")], config.data.path, "train")
    short = replace(config, optim=replace(config.optim, steps=2))
    result = run(replace(short, data=replace(config.data, validation=None, test=None)))
    assert np.isnan(result.export_difference)


def test_a_measurement_that_fails_costs_no_training(config: TrainConfig) -> None:
    config.output.mkdir()
    (config.output / "evaluation").write_text("a file where the report's folder belongs")
    with pytest.raises(ConfigError, match="evaluation cannot be written: Not a directory"):
        run(replace(config, optim=replace(config.optim, steps=1)))
    bundle = load_bundle(config.output / "bundle", "cpu")
    assert bundle.manifest.calibration is None
    assert "not calibrated" in (config.output / "bundle" / "README.md").read_text()


@pytest.mark.parametrize("role", ["train", "validation", "test"])
@pytest.mark.parametrize("trouble", ["missing", "truncated", "without comparisons"])
def test_the_splits_are_checked_before_anything_is_loaded(
    config: TrainConfig, role: str, trouble: str
) -> None:
    path = config.data.path / f"{role}.parquet"
    if trouble == "missing":
        path.unlink()
    elif trouble == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        groups = [replace(group, comparisons=()) for group in read_groups(config.data.path, role)]
        write_groups(groups, config.data.path, role)
    with pytest.raises(DatasetError, match=f"data.{role}: ") as error:
        run(replace(config, judge=JudgeSpec(base_model="no/model")))
    assert (f"set data.{role}=null" in str(error.value)) == (role != "train")
    assert not config.output.exists()


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.parametrize(("head", "lr", "pairs"), [("verdict", 1e-2, 2), ("scalar", 1e-3, None)])
def test_the_trajectory_is_pinned(config: TrainConfig, head: str, lr: float, pairs: int | None) -> None:
    short = replace(
        config,
        judge=JudgeSpec(base_model=config.judge.base_model, head=head),
        optim=replace(config.optim, steps=5, lr=lr, pairs_per_group=pairs),
        data=replace(config.data, validation=None, test=None),
    )
    result = run(short)
    assert result.evaluation is None
    assert losses(config.output) == pytest.approx(PINNED[head], abs=2e-3)


def test_soft_targets_and_weights_reach_the_loss(config: TrainConfig, png) -> None:
    comparisons = (Comparison(i=0, j=1, p=0.8, weight=3.0), Comparison(i=2, j=1, p=0.35, weight=0.5))
    group = PreferenceGroup(id="a", prompt="p", candidates=(png(0), png(1), png(2)), comparisons=comparisons)
    write_groups([group], config.data.path, "train")
    judge = Judge.from_base(config.judge, "cpu")
    images = (judge.processor.prepare_image(decode(image)) for image in group.candidates if image)
    tree = judge.processor.tree("p", dict(enumerate(images)))
    total = 0.0
    for c in comparisons:
        for shown in (c, c.swapped()):
            z = judge(judge.processor.collate([(tree, [(shown.i, shown.j)])])).item()
            total += c.weight * (shown.p * np.log1p(np.exp(-z)) + (1 - shown.p) * np.log1p(np.exp(z)))
    # A LoRA adapter changes nothing before the first step.
    optim = OptimConfig(steps=1, batch_size=1)
    run(replace(config, optim=optim, data=replace(config.data, validation=None, test=None)))
    assert losses(config.output) == [pytest.approx(total / (2 * 3.5), abs=1e-4)]


def learn(judge: Judge, config: TrainConfig, optim: OptimConfig) -> dict[str, str]:
    config.output.mkdir(exist_ok=True)
    mixture = mixture_of(config.data.path, config.output / "cache")
    return fit(judge, mixture, optim, output=config.output, seed=0)


def broken(id: str, png) -> PreferenceGroup:
    return PreferenceGroup(
        id=id, prompt="p", candidates=(png(0), png(1)[:40]), comparisons=(Comparison.preferred(0, 1),)
    )


def test_an_unreadable_image_does_not_end_a_training(config: TrainConfig, judge, png) -> None:
    good = next(read_groups(config.data.path, "train"))
    write_groups([broken("truncated", png), good], config.data.path, "train")
    left_out = learn(judge, config, OptimConfig(steps=8, batch_size=1))
    assert list(left_out) == ["truncated"]
    # Two groups, each seen four times; of one nothing could be read.
    assert losses(config.output).count(0.0) == 4
    assert len(losses(config.output)) == 8
    # One line for each step, and no summary.
    assert len((config.output / "metrics.jsonl").read_text().splitlines()) == 8


def test_data_of_which_nothing_can_be_read_is_an_error(config: TrainConfig, judge, png) -> None:
    write_groups([broken("a", png)], config.data.path, "train")
    with pytest.raises(DatasetError, match="no comparison could be read, such as that of record 'a'"):
        learn(judge, config, OptimConfig(steps=1, batch_size=1))


def test_a_training_that_diverges_ends_at_once_and_says_what_to_do(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"diverged: \w+ is (nan|inf) at step [123]; lower optim\.lr"):
        run(replace(config, optim=replace(config.optim, lr=1e30, warmup=0.0)))
    assert not (config.output / "bundle").exists()
    assert np.isfinite(losses(config.output)).all()


def test_metrics_of_an_earlier_attempt_are_replaced(config: TrainConfig, judge) -> None:
    for steps in (3, 2):
        learn(judge, config, OptimConfig(steps=steps, batch_size=2))
    assert len(losses(config.output)) == 2


def test_accumulation_is_one_larger_batch_even_where_weights_differ(
    config: TrainConfig, tmp_path: Path
) -> None:
    """An epoch of 12 groups is two steps and a half."""
    weigh(config.data.path)
    data = replace(config.data, validation=None, test=None)
    whole = replace(config.optim, steps=6, batch_size=5, pairs_per_group=2)
    parts = replace(whole, batch_size=1, accumulation=5)
    for name, optim in (("whole", whole), ("parts", parts)):
        run(replace(config, output=tmp_path / name, optim=optim, data=data))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def weigh(folder: Path) -> None:
    """Give every comparison of the training split a weight of its own."""
    groups = [
        replace(
            group,
            comparisons=tuple(
                replace(c, weight=0.1 + (7 * n + 3 * k) % 11) for k, c in enumerate(group.comparisons)
            ),
        )
        for n, group in enumerate(read_groups(folder, "train"))
    ]
    write_groups(groups, folder, "train")


def test_without_an_adapter_every_weight_learns(config: TrainConfig) -> None:
    full = replace(config, adapter=None, optim=replace(config.optim, steps=1, batch_size=2))
    result = run(replace(full, data=replace(config.data, validation=None, test=None)))
    adapted = run(replace(config, output=config.output / "lora", optim=full.optim))
    assert result.trainable > 5 * adapted.trainable
    assert result.calibration is None
    assert read_manifest(result.bundle).calibration is None
    with pytest.raises(ConfigError, match=r"data\.test is null"):
        _ = result.held_out


def test_a_finished_run_is_not_overwritten(config: TrainConfig) -> None:
    (config.output / "bundle").mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists already"):
        run(config)


def test_an_output_that_is_a_file_is_refused(config: TrainConfig) -> None:
    config.output.write_text("something else")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        run(config)


def test_one_device_for_several_processes_is_refused(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started and device is 'cuda:1'"):
        run(replace(config, device="cuda:1"))
    assert not config.output.exists()


def test_settings_survive_plain_data(config: TrainConfig) -> None:
    assert from_mapping(TrainConfig, to_mapping(config)) == config


@pytest.mark.parametrize("adapter", ["null", "{rank: 4, alpha: 8}"])
def test_the_recipe_of_hpsv3_learns_and_its_bundle_is_the_judge(
    tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path], adapter: str
) -> None:
    """With an adapter too, whose bundle finds the added token's embedding in the base model again."""
    overrides = {
        "output": tmp_path / "run",
        "judge.base_model": tiny_checkpoint,
        "judge.min_pixels": 16 * 16,
        "judge.max_pixels": 32 * 32,
        "data.path": brightness(train=12),
        "data.validation": "null",
        "data.test": "null",
        "data.stream": "false",
        "data.num_workers": 0,
        "adapter": adapter,
        "export": "merged" if adapter == "null" else "adapter",
        "optim.steps": 12,
        "optim.batch_size": 3,
        "optim.accumulation": 1,
        "optim.lr": 1e-2,
        "optim.precision": "float32",
        "device": "cpu",
    }
    path = Path(__file__).parents[3] / "configs" / "train" / "hpsv3.yaml"
    config = load_config(TrainConfig, path, [f"{key}={value}" for key, value in overrides.items()])
    result = run(config)
    assert result.export_difference < 1e-5
    judge = load_bundle(result.bundle, "cpu").judge
    (readout,) = judge.processor.layout.fill("x").readouts
    assert readout[-1] == len(judge.processor.tokenizer) - 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["learning_rate"] for step in steps[1:]] == [1e-2] * 11
    assert steps[-1]["loss"] < 0.1 < steps[0]["loss"]
