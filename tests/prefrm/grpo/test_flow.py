"""The reward function of flow_grpo and ddpo-pytorch, called as their trainers call it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from prefrm.errors import ConfigError, IncompleteMatrixError
from prefrm.grpo import FlowGRPOReward, OrderedExecutor
from prefrm.grpo.ordering import CallOrder
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.grpo.pixels import PixelScorer, brightness, shades


def multi_score(score_fns, weights):
    """As flow_grpo/rewards.py adds up its rewards."""

    def _fn(images, prompts, metadata, ref_images=None, only_strict=True):
        details = {name: score_fn(images, prompts, metadata)[0] for name, score_fn in score_fns.items()}
        details["avg"] = [
            sum(w * s for w, s in zip(weights, row, strict=True))
            for row in zip(*details.values(), strict=True)
        ]
        return details, {}

    return _fn


def expected(prompt, *values):
    images = shades(*values)
    utilities = [float(image.mean()) * 10 for image in images]
    fake = FakeScorer(lambda _, image: float(image))
    (matrix,) = fake.score([Group(prompt=prompt, images=tuple(str(u).encode() for u in utilities))])
    return matrix.win_rate()


def test_it_takes_the_place_of_one_of_flow_grpos_own():
    torch = pytest.importorskip("torch")
    reward_fn = multi_score({"judge": FlowGRPOReward(PixelScorer(), group_size=3)}, [2.0])
    images = torch.from_numpy(shades(0.1, 0.9, 0.5, 0.2, 0.4, 0.3))
    # Its sampler shuffles the images of the prompts it drew.
    prompts = ["a", "b", "a", "b", "a", "b"]
    metadata = [{}] * 6
    executor = ThreadPoolExecutor(max_workers=8)
    rewards, _ = executor.submit(reward_fn, images, prompts, metadata, only_strict=True).result()
    a, b = expected("a", 0.1, 0.5, 0.4), expected("b", 0.9, 0.2, 0.3)
    both = [a[0], b[0], a[1], b[1], a[2], b[2]]
    assert rewards["judge"] == pytest.approx(both, abs=1e-6)
    as_trainer = torch.as_tensor(rewards["avg"], device="cpu").float()
    assert as_trainer.tolist() == pytest.approx([2 * reward for reward in both], abs=1e-6)


def test_ddpos_pixels_and_tuple_of_prompts():
    scorer = PixelScorer()
    pixels = (shades(0.2, 0.8) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    scores, info = FlowGRPOReward(scorer, group_size=2)(pixels, ("a cat", "a cat"), ({}, {}))
    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected("a cat", 0.2, 0.8), abs=1e-6)
    assert [(group.prompt, group.size) for group in scorer.groups] == [("a cat", 2)]
    # The judge prefers what it sees first by 0.5 nats, whatever the pair.
    assert info["order_gap"] == pytest.approx([scorer.gap(0.2, 0.8)] * 2, abs=1e-4)


def test_groups_by_an_entry_of_the_metadata():
    scorer = PixelScorer()
    reward = FlowGRPOReward(scorer, group_size=2, group_key="uid")
    metadata = [{"uid": uid} for uid in (7, 8, 8, 7)]
    scores, _ = reward(shades(0.1, 0.2, 0.3, 0.4), ["a"] * 4, metadata)
    first, second = expected("a", 0.1, 0.4), expected("a", 0.2, 0.3)
    assert scores == pytest.approx([first[0], second[0], second[1], first[1]], abs=1e-6)
    with pytest.raises(ConfigError, match="the metadata of image 0 has no plain 'uid'"):
        reward(shades(0.1, 0.2), ["a"] * 2, [{}, {}])


def test_a_prompt_drawn_twice_is_one_group():
    scorer = PixelScorer()
    scores, _ = FlowGRPOReward(scorer, group_size=2)(shades(0.1, 0.2, 0.3, 0.4), ["a"] * 4, [])
    assert scores == pytest.approx(expected("a", 0.1, 0.2, 0.3, 0.4), abs=1e-6)


@pytest.mark.parametrize("prompts", [["a", "a", "a", "b"], ["a", "b", "c", "d"]])
def test_a_batch_that_splits_a_group_is_refused(prompts):
    with pytest.raises(ConfigError, match="are no whole groups of 2: the images of a prompt must be in one"):
        FlowGRPOReward(PixelScorer(), group_size=2)(shades(0.1, 0.2, 0.3, 0.4), prompts, [])


def test_an_image_without_a_reward_stops_the_run_or_is_nan():
    def broken(prompt, image):
        value = brightness(prompt, image)
        if value > 8:
            raise ValueError("too bright to judge")
        return value

    images, prompts = shades(0.1, 0.9, 0.5), ["a"] * 3
    with pytest.raises(IncompleteMatrixError, match="too bright"):
        FlowGRPOReward(FakeScorer(broken), group_size=3)(images, prompts, [])
    scores, info = FlowGRPOReward(FakeScorer(broken), group_size=3, on_missing="drop")(images, prompts, [])
    assert np.isnan(scores).tolist() == np.isnan(info["order_gap"]).tolist() == [False, True, False]
    assert scores[[0, 2]] == pytest.approx(expected("a", 0.1, 0.5), abs=1e-6)


def test_a_setting_or_a_batch_that_cannot_be(scorer):
    with pytest.raises(ConfigError, match="at least 2 images; received group_size=1"):
        FlowGRPOReward(scorer, group_size=1)
    with pytest.raises(ConfigError, match="reward must be one of win_rate"):
        FlowGRPOReward(scorer, group_size=2, reward="elo")
    with pytest.raises(ConfigError, match="received 2 images and 3 prompts"):
        FlowGRPOReward(scorer, group_size=2)(shades(0.1, 0.2), ["a"] * 3, [])


class OneAtATime(PixelScorer):
    """Refuses two batches at once, and remembers the order of those that it was given."""

    def __init__(self):
        super().__init__()
        self.seen, self._running = [], threading.Lock()

    def score(self, groups):
        assert self._running.acquire(blocking=False), "two batches at once"
        self.seen.append(groups[0].prompt)
        time.sleep(0.01)
        self._running.release()
        return super().score(groups)


def test_batches_pass_in_the_order_of_submission_whatever_delays_them():
    scorer, last_is_here = OneAtATime(), threading.Event()
    reward = FlowGRPOReward(scorer, group_size=2)

    def several(images, prompts, metadata):
        """As `multi_score` with a reward before this one, which takes longest for the first batch."""
        if prompts[0] == "5":
            last_is_here.set()
        else:
            last_is_here.wait(timeout=10)
            time.sleep((5 - int(prompts[0])) / 50)
        return reward(images, prompts, metadata)

    with OrderedExecutor(max_workers=8) as executor:
        futures = [executor.submit(several, shades(0.1, 0.2), [str(n)] * 2, []) for n in range(6)]
        for future in futures:
            future.result()
    assert scorer.seen == list("012345")


def test_a_batch_that_fails_or_is_cancelled_before_its_turn_holds_up_no_other():
    scorer, started = OneAtATime(), threading.Event()
    reward = FlowGRPOReward(scorer, group_size=2)

    def broken():
        started.wait(timeout=10)
        raise RuntimeError("another reward failed")

    with OrderedExecutor(max_workers=1) as executor:
        failed = executor.submit(broken)
        cancelled = executor.submit(reward, shades(0.1, 0.2), ["cancelled"] * 2, [])
        last = executor.submit(reward, shades(0.1, 0.2), ["last"] * 2, [])
        assert cancelled.cancel()
        started.set()
        last.result(timeout=10)
        with pytest.raises(RuntimeError, match="another reward failed"):
            failed.result()
    assert scorer.seen == ["last"]


def test_a_call_may_submit_others_and_wait_for_them():
    """As in any thread pool: one that waited for all earlier calls would wait for its own end."""
    scorer = OneAtATime()
    reward = FlowGRPOReward(scorer, group_size=2)
    executor = OrderedExecutor(max_workers=4)

    def outer(n):
        inner = executor.submit(lambda: executor.submit(reward, shades(0.1, 0.2), [str(n)] * 2, []))
        return inner.result(timeout=10).result(timeout=10)

    for future in [executor.submit(outer, n) for n in range(2)]:
        future.result(timeout=20)
    executor.shutdown()
    assert sorted(scorer.seen) == ["0", "1"]


def test_the_order_of_calls_that_calls_submit_is_not_known():
    order, executor = CallOrder(), OrderedExecutor(max_workers=2)

    def call():
        with order.turn():
            order.check()

    call()
    inside = executor.submit(lambda: executor.submit(call).result(timeout=10))
    with pytest.raises(ConfigError, match="submit to it from one thread"):
        inside.result(timeout=20)
    executor.shutdown()


def test_a_single_process_needs_no_order():
    """The stock executor of the trainers, one batch at a time all the same."""
    scorer = OneAtATime()
    reward = FlowGRPOReward(scorer, group_size=2)
    with ThreadPoolExecutor(max_workers=8) as executor:
        futures = [executor.submit(reward, shades(0.1, 0.2), [str(n)] * 2, []) for n in range(6)]
        for future in futures:
            future.result()
    assert sorted(scorer.seen) == list("012345")
