"""Whole runs on the embedded flow model: every method, what is written, resuming, the command."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prefrm.errors import ConfigError
from prefrm.flow.config import (
    EvaluationConfig,
    FlowConfig,
    OptimConfig,
    PolicyConfig,
    PromptsConfig,
    RewardConfig,
    RolloutConfig,
)
from prefrm.flow.methods import METHODS
from prefrm.flow.pipelines import load_pipeline
from prefrm.flow.report import pixel_distance
from prefrm.flow.run import OpenScorer, run
from prefrm.group_log import GroupLogReader
from prefrm.winmatrix import FakeScorer


def brightness(prompt: str, image: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 10


@contextmanager
def open_scorer(name: str) -> Iterator[FakeScorer]:
    assert name in ("bright", "dark")
    sign = 1 if name == "bright" else -1
    yield FakeScorer(lambda prompt, image: sign * brightness(prompt, image))


class Killed(BaseException):
    pass


def dying(limit: int) -> OpenScorer:
    """Opens a scorer that raises an error after a number of images."""
    calls: list[str] = []

    @contextmanager
    def open_scorer(name: str) -> Iterator[FakeScorer]:
        def utility(prompt: str, image: bytes) -> float:
            calls.append(prompt)
            if len(calls) > limit:
                raise Killed
            return brightness(prompt, image)

        yield FakeScorer(utility)

    return open_scorer


class Bright:
    """A differentiable scorer of brightness."""

    def utilities(self, prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1).mean(1)


def open_gradient(name: str) -> Bright:
    return Bright()


@pytest.fixture
def config(tmp_path: Path) -> FlowConfig:
    return FlowConfig(
        output=tmp_path / "run",
        device="cpu",
        method="nft",
        judge="bright",
        policy=PolicyConfig(model="shapes-flow", steps=4, rank=4, alpha=8),
        prompts=PromptsConfig(world="shapes", count=20),
        rollout=RolloutConfig(prompts=2, group=4, batch=8),
        optim=OptimConfig(iterations=2, lr=1e-3),
        evaluation=None,
        checkpoint_every=1,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs(name: str, config: FlowConfig) -> None:
    facts = run(replace(config, method=name), open_scorer, open_gradient=open_gradient)
    assert facts["method"] == name and facts["iterations"] == 2 and facts["images"] >= 8
    weights = load_file(config.output / "lora" / "pytorch_lora_weights.safetensors")
    # Adapters begin at zero: whatever is not has been trained.
    changed = [tensor for key, tensor in weights.items() if "lora_B" in key and tensor.abs().max() > 0]
    assert changed and all(tensor.isfinite().all() for tensor in weights.values())
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]


def test_a_run_writes_what_a_person_looks_at(config: FlowConfig) -> None:
    config = replace(
        config,
        evaluation=EvaluationConfig(every=1, prompts=2, images=2),
        held_out={"other": RewardConfig(scorer="dark")},
        report_to=("tensorboard",),
        seed=3,
    )
    facts = run(config, open_scorer)
    written = json.loads((config.output / "report.json").read_text())
    assert written == facts
    assert (facts["method"], facts["seed"], facts["images"]) == ("nft", 3, 16)
    assert facts["reward_before"] == {"judge": pytest.approx(0.5), "other": pytest.approx(0.5)}
    # The other judge's opinion is the opposite.
    assert facts["reward_after"]["judge"] + facts["reward_after"]["other"] == pytest.approx(1, abs=1e-5)
    assert 0 <= facts["oracle_before"] <= 1 and 0 <= facts["oracle_after"] <= 1
    assert facts["diversity_before"] > 0 and facts["diversity_after"] > 0
    assert facts["seconds"]["total"] > 0 and facts["peak_rss_mb"] > 0
    sheets = [path.name for path in sorted((config.output / "samples").glob("*.png"))]
    assert sheets == [f"iteration-{n:05d}.png" for n in range(3)]
    assert len((config.output / "samples" / "prompts.txt").read_text().splitlines()) == 2
    with Image.open(config.output / "samples" / "iteration-00000.png") as sheet:
        assert sheet.size[0] == sheet.size[1] and sheet.size[0] % 2 == 0
    report = re.sub(" +", " ", (config.output / "report.md").read_text())
    assert "| judge | 0.500 |" in report and "| oracle | " in report and "(curves.png)" in report
    assert (config.output / "curves.png").stat().st_size > 1000
    assert not (config.output / "checkpoints").exists()
    assert [*config.output.rglob("events.out.tfevents*")]
    with pytest.raises(ConfigError, match="holds a finished run"):
        run(config, open_scorer)


def test_a_run_logs_the_groups_of_its_last_iterations(config: FlowConfig) -> None:
    config = replace(config, log_groups=3, rewards={"dark": RewardConfig(scorer="dark")})
    run(config, open_scorer)
    reader = GroupLogReader(config.output / "groups")
    entries = reader.entries()
    # Two groups of each iteration, of which a file is kept or goes as a whole.
    assert [entry.step for entry in entries] == [2, 2] and entries[0].prompt != entries[1].prompt
    for entry in entries:
        group = reader.group(entry.id)
        assert group.prompt == entry.prompt and len(set(group.candidates)) == 4
        (matrix,) = FakeScorer(brightness).score([group])
        assert entry.matrices["judge"].equals(matrix)
        assert np.allclose(entry.matrices["dark"].p, matrix.p.T)
        assert np.array_equal(entry.rewards["judge"], matrix.win_rate())
    # The chain of NFT ends at the advantages that the trainer used.
    row, keys = config.row(), [0] * 4 + [1] * 4
    rewards = {name: [r for entry in entries for r in entry.rewards[name]] for name in ("judge", "dark")}
    expected = row.advantage.advantages(rewards, keys, steps=3)
    assert np.allclose([a for entry in entries for a in entry.advantages or ()], expected.ravel())


def test_diversity_is_the_mean_distance_in_pixels_of_two_images_of_a_prompt() -> None:
    images = torch.zeros(2, 3, 3, 4, 4)
    # Of the first prompt one image is white: two of three pairs are at the distance 1.
    images[0, 1] = 1.0
    images[1, 2] = 0.25
    assert pixel_distance(images) == pytest.approx((2 * 1.0 + 2 * 0.25) / 6)
    images[1, 2, 0, 0, 0] = float("nan")
    assert pixel_distance(images) == pytest.approx((2 * 1.0 + 0.0) / 4)


def test_diffusers_loads_what_a_run_wrote(config: FlowConfig) -> None:
    run(config, open_scorer)
    pipe = load_pipeline("shapes-flow", torch.float32)
    arguments: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 0.0, "output_type": "latent"}
    prompt = "a red circle"
    drawn = [pipe(prompt, generator=torch.Generator().manual_seed(0), **arguments).images]
    pipe.load_lora_weights(config.output / "lora")
    drawn.append(pipe(prompt, generator=torch.Generator().manual_seed(0), **arguments).images)
    assert not torch.equal(*drawn)


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_whole_one_does(config: FlowConfig) -> None:
    config = replace(config, evaluation=EvaluationConfig(every=2, prompts=1, images=2))
    whole = run(config, open_scorer)
    broken = replace(config, output=config.output.with_name("broken"))
    with pytest.raises(Killed):
        # The evaluation before (4 images) and the first iteration (8) pass.
        run(broken, dying(12))
    assert (broken.output / "checkpoints").exists()
    with pytest.raises(ConfigError, match="continue it with --resume"):
        run(broken, open_scorer)
    with pytest.raises(ConfigError, match=r"optim.lr was 0.001 and is 0.1"):
        run(replace(broken, optim=replace(config.optim, lr=0.1)), open_scorer, resume=True)
    resumed = run(broken, open_scorer, resume=True)
    for key in ("reward_before", "reward_after", "oracle_before", "oracle_after", "images"):
        assert resumed[key] == whole[key]
    weights, expected = (
        load_file(one.output / "lora" / "pytorch_lora_weights.safetensors") for one in (broken, config)
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    lines = [json.loads(line) for line in (broken.output / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2]


@pytest.mark.slow
def test_a_resumed_run_may_be_the_first_to_evaluate(config: FlowConfig) -> None:
    with pytest.raises(Killed):
        run(config, dying(8))
    facts = run(replace(config, evaluation=EvaluationConfig(prompts=1, images=2)), open_scorer, resume=True)
    assert facts["reward_before"] == {"judge": pytest.approx(0.5)}
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 0, 2]
    assert lines[1]["eval/judge"] == pytest.approx(0.5) and "eval/judge" in lines[2]


def test_a_gradient_needs_a_function_that_opens_it(config: FlowConfig) -> None:
    with pytest.raises(ConfigError, match="follows a judge's gradient; pass open_gradient"):
        run(replace(config, method="refl"), open_scorer)


def test_held_out_scorers_do_not_train(config: FlowConfig) -> None:
    # Sol-RL selects its samples by all rewards of the training.
    config = replace(config, method="sol_rl", optim=replace(config.optim, iterations=1))
    evaluation = EvaluationConfig(prompts=1, images=2)
    watched = replace(
        config,
        output=config.output.with_name("watched"),
        evaluation=evaluation,
        held_out={"other": RewardConfig(scorer="dark")},
    )
    for one in (config, watched):
        run(one, open_scorer)
    plain, other = (
        load_file(one.output / "lora" / "pytorch_lora_weights.safetensors") for one in (config, watched)
    )
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_prompts_come_from_files(config: FlowConfig, tmp_path: Path) -> None:
    train = tmp_path / "train.txt"
    with pytest.raises(ConfigError, match="cannot be read"):
        run(replace(config, prompts=PromptsConfig(train=train)), open_scorer)
    train.write_text("\n\n")
    with pytest.raises(ConfigError, match="has no prompt"):
        run(replace(config, prompts=PromptsConfig(train=train)), open_scorer)
    train.write_text("a red circle\na blue square\n")
    facts = run(replace(config, prompts=PromptsConfig(train=train)), open_scorer)
    assert facts["oracle_before"] is None
    with pytest.raises(ConfigError, match="needs a world"):
        output = tmp_path / "other"
        prompts = PromptsConfig(train=train)
        rewards = {"truth": RewardConfig(scorer="oracle")}
        run(replace(config, output=output, prompts=prompts, rewards=rewards), open_scorer)
    with pytest.raises(ConfigError, match=r"prompts.world must be one of .*shapes"):
        run(replace(config, output=tmp_path / "third", prompts=PromptsConfig(world="none")), open_scorer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "nfft"}, "method must be one of"),
        ({"settings": {"objective": {"clipp": 1}}}, "unknown key objective.clipp"),
        ({"judge": None}, "no reward is configured"),
        ({"judge": None, "method": "refl"}, "follows a judge's gradient"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"optim": OptimConfig(updates=3)}, "must divide rollout.prompts"),
        ({"method": "flow_dpo", "rollout": RolloutConfig(group=4, batch=3)}, "rollout.batch to at least 4"),
        ({"method": "eam", "rollout": RolloutConfig(group=4, batch=3)}, "rollout.batch to at least 4"),
        ({"method": "tmpo", "rollout": RolloutConfig(group=30, batch=32)}, "rollout.batch to at least 36"),
    ],
)
def test_a_wrong_setting_is_named(config: FlowConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config, **change)
