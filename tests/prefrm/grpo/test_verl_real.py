"""`VerlReward` in verl's own reward loop, on Ray; only the samples are made here.

Skipped where verl is not installed, as it is no dependency of the tests.
"""

import asyncio
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from prefrm.grpo.verl import RAY_CALLS
from tests.prefrm.grpo import tiny
from tests.prefrm.grpo.pixels import shades
from tests.prefrm.grpo.test_group_calls import win_rates

# Not by `importorskip`: pytest-xdist fails where a whole module is skipped as it is collected.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not (find_spec("verl") and find_spec("ray")), reason="verl or ray is not installed"),
]

ROOT = Path(__file__).parents[3]
MANAGER = """
import torch
from prefrm.grpo import VerlReward
from tests.prefrm.grpo.pixels import AsyncPixelScorer
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase


class WinRate(RewardManagerBase):
    run_single = VerlReward(AsyncPixelScorer(), group_size=4, group_timeout=5.0, on_missing="drop")

    def __init__(self, config, tokenizer, compute_score, **others):
        super().__init__(config, tokenizer, compute_score)

    @classmethod
    def assemble_rm_scores(cls, data, scores):
        return torch.tensor(scores, dtype=torch.float32).unsqueeze(-1)
"""


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    import ray
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop.reward_loop import RewardLoopManager
    from verl.trainer import config as configs

    folder = tmp_path_factory.mktemp("verl")
    tiny.tokenizer().save_pretrained(folder)
    (folder / "my_rewards.py").write_text(MANAGER)
    config = OmegaConf.load(Path(configs.__file__).parent / "_generated_ppo_trainer.yaml")
    chosen = {
        "actor_rollout_ref": {"model": {"path": str(folder), "tokenizer_path": str(folder)}},
        "reward": {
            "num_workers": 1,
            "reward_manager": {
                "source": "importlib",
                "name": "WinRate",
                "module": {"path": str(folder / "my_rewards.py")},
            },
        },
    }
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    try:
        yield RewardLoopManager(OmegaConf.merge(config, chosen))
    finally:
        ray.shutdown()


def proto(samples, **meta):
    """A `DataProto` of (uid, shade)."""
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    pixels = torch.from_numpy((shades(*(shade for _, shade in samples)) * 255).round()).to(torch.uint8)
    prompts = np.empty(len(samples), dtype=object)
    prompts[:] = [[{"role": "user", "content": "a cat"}] for _ in samples]
    return DataProto(
        batch=TensorDict({"responses": pixels}, batch_size=len(samples)),
        non_tensor_batch={"uid": np.array([uid for uid, _ in samples]), "raw_prompt": prompts},
        meta_info=meta,
    )


def streamed(manager, data):
    """As an agent loop: each sample a call of the actor, in any order."""
    (worker,) = manager.reward_loop_worker_handles
    order = list(range(len(data)))
    random.Random(0).shuffle(order)

    async def scored(n):
        return (await worker.compute_score.remote(data[n : n + 1]))["reward_score"]

    async def main():
        return await asyncio.gather(*(scored(n) for n in order), return_exceptions=True)

    rewards = asyncio.run(main())
    return [rewards[order.index(n)] for n in range(len(data))]


SAMPLES = [(f"uid {n // 4}", n / 40) for n in range(24)]
EXPECTED = [
    float(rate) for n in range(0, 24, 4) for rate in win_rates(*(shade for _, shade in SAMPLES[n : n + 4]))
]


def test_samples_as_they_are_generated(manager):
    assert streamed(manager, proto(SAMPLES)) == pytest.approx(EXPECTED, abs=1e-6)


def test_a_whole_batch(manager):
    scores = manager.compute_rm_score(proto(SAMPLES)).batch["rm_scores"]
    assert scores.flatten().tolist() == pytest.approx(EXPECTED, abs=1e-6)


def test_validation_with_one_sample_a_prompt(manager):
    rewards = streamed(manager, proto([("v0", 0.1), ("v1", 0.2), ("v0", 0.1)], validate=True))
    assert np.isnan(rewards).all()


def test_a_rollout_that_fails_leaves_the_others(manager):
    rewards = streamed(manager, proto([*SAMPLES[:3], *SAMPLES[4:8]]))
    assert rewards[:3] == pytest.approx(win_rates(*(shade for _, shade in SAMPLES[:3])).tolist(), abs=1e-6)
    assert rewards[3:] == pytest.approx(EXPECTED[4:8], abs=1e-6)


def test_more_waiting_samples_than_ray_runs_calls(manager):
    """One sample of each of 600 prompts after the other, which never come back if nothing is said."""
    import ray

    (worker,) = manager.reward_loop_worker_handles
    samples = proto([(f"many {n}", 0.1) for n in range(600)])
    calls = [worker.compute_score.remote(samples[n : n + 1]) for _ in range(4) for n in range(600)]
    done, _ = ray.wait(calls, num_returns=RAY_CALLS, timeout=60)
    assert len(done) >= RAY_CALLS
    with pytest.raises(Exception, match="at most 1000"):
        ray.get(done[0])
    ray.wait(calls, num_returns=len(calls), timeout=60)
