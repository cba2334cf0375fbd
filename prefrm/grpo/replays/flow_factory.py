"""Flow-Factory's calls of a groupwise reward model, as its reward processor and reward buffer make them."""

import inspect
import json
import threading
from collections.abc import Sequence
from queue import Queue
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm.grpo.group_calls import FlowFactoryReward
from prefrm.grpo.ranks import Ranks, attempt
from prefrm.grpo.replays.replay import Replay, Sample, Step
from prefrm.winmatrix import Scorer

__all__ = ["drive"]

Rewards = dict[int, float]


class _GroupwiseRewardModel:
    use_tensor_inputs = False


def drive(replay: Replay, scorer: Scorer, rank: int, **options: Any) -> Rewards:
    """The rewards of the samples of one process, by their numbers.

    Args:
        options: arguments of `FlowFactoryReward`.
    """

    class WinRate(_GroupwiseRewardModel):
        __call__ = FlowFactoryReward(scorer, **options)

    compute = _buffered if replay.settings["async_reward"] else _gathered
    rewards: Rewards = {}
    for step in replay.steps:
        rewards |= compute(WinRate(), step, rank)
    return rewards


def _gathered(model: Any, step: Step, rank: int) -> Rewards:
    """Samples of all processes are gathered, and each process scores its share of the groups."""
    world = len(step.calls[0].samples)
    groups = _groups([sample for source in range(world) for sample in _local(step, source)])
    scored = attempt(
        lambda: json.dumps([pair for group in groups[rank::world] for pair in _scored(model, group)]).encode()
    )
    rewards = dict(pair for part in Ranks().share(scored) for pair in json.loads(part))
    return {sample.number: rewards[sample.number] for sample in _local(step, rank)}


def _buffered(model: Any, step: Step, rank: int) -> Rewards:
    """Each process has whole groups; a thread scores each of them as soon as it is whole."""
    queue: Queue[list[Sample] | None] = Queue()
    rewards: Rewards = {}
    errors: list[Exception] = []

    def work() -> None:
        try:
            while group := queue.get():
                rewards.update(_scored(model, group))
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for group in _groups(_local(step, rank)):
        queue.put(group)
    queue.put(None)
    worker.join()
    for error in errors:
        raise error
    return rewards


def _local(step: Step, rank: int) -> list[Sample]:
    return [sample for call in step.calls for sample in call.samples[rank]]


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.prompt, sample.source or ""), []).append(sample)
    return [groups[key] for key in sorted(groups)]


def _scored(model: Any, group: Sequence[Sample]) -> list[tuple[int, float]]:
    fields: dict[str, list[Any]] = {
        "prompt": [sample.prompt for sample in group],
        "image": [sample.image for sample in group],
    }
    # A field that any sample lacks is left out of the group.
    known = {
        name: values
        for name, values in fields.items()
        if name in inspect.signature(model.__call__).parameters and all(value is not None for value in values)
    }
    if not model.use_tensor_inputs:
        known["image"] = _pillow_images(np.stack(known["image"]))
    rewards = model(**known)
    return [(sample.number, float(reward)) for sample, reward in zip(group, rewards, strict=True)]


def _pillow_images(images: npt.NDArray[np.float32]) -> list[Image.Image]:
    """Scaled by what the values of all images together look like. A NaN compares with nothing."""
    pixels = np.clip(np.round(images * 255 if images.max() <= 1 else images), 0, 255)
    return [Image.fromarray(pixel) for pixel in np.nan_to_num(pixels).astype(np.uint8).transpose(0, 2, 3, 1)]
