"""Gradients of a judge's utilities in the pixels of candidates, one request at a time.

The judge shares its weights with the model's scorer and waits while that one works.

Shapes: K candidates, H height, W width.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from prefrm.differentiable import DifferentiableScorer
from prefrm.errors import ConfigError, DataError, OutOfMemoryError, ScoringError
from prefrm.protocol import GRADIENT_INPUTS, PIXELS, PROMPT
from prefrm.shutdown import in_daemon_thread
from prefrm.winmatrix import Floats
from serving.errors import ExpiredError, FailedError, InvalidRequestError
from serving.limits import Limits
from serving.observing.logs import log_failure
from serving.tensors import InputTensor, read_bytes_input

__all__ = ["Gradients", "PixelGroup", "read_pixels"]

logger = logging.getLogger(__name__)

WAITING = 16
"""Requests that may wait for a model's gradient; each holds its pixels."""
RETRY_S = 1.0
DRAIN_STEP_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelGroup:
    """A prompt, and the pixels of K candidates: float32 [K, 3, H, W]."""

    prompt: str
    pixels: Floats


def read_pixels(tensors: Sequence[InputTensor], limits: Limits) -> PixelGroup:
    """The group of a request for a gradient. Content is read once its shape is within the limits.

    Raises:
        InvalidRequestError: the inputs are not `prompt` BYTES [1, 1] and `pixels` FP32 [K, 3, H, W], one of
            each, or they are beyond the limits.
    """
    named = {tensor.name: tensor for tensor in tensors}
    wanted = [spec.name for spec in GRADIENT_INPUTS]
    if sorted(tensor.name for tensor in tensors) != sorted(wanted):
        raise InvalidRequestError(f"the inputs of a gradient are {' and '.join(wanted)}, one of each")
    prompts = read_bytes_input(named[PROMPT.name], PROMPT, limits)
    if prompts.shape != (1, 1):
        raise InvalidRequestError(f"a gradient is of one prompt; received {len(prompts)}")
    if len(prompts[0, 0]) > limits.prompt_bytes:
        raise InvalidRequestError(
            f"a prompt may have {limits.prompt_bytes} bytes; received {len(prompts[0, 0])}"
        )
    try:
        return PixelGroup(prompt=prompts[0, 0].decode(), pixels=_read(named[PIXELS.name], limits))
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the prompt is not UTF-8: {error.reason}") from error


def _read(tensor: InputTensor, limits: Limits) -> Floats:
    if tensor.datatype != PIXELS.datatype or not PIXELS.admits(tensor.shape) or min(tensor.shape) < 1:
        raise InvalidRequestError(
            f"input {PIXELS.name!r} must be {PIXELS.datatype} [K, 3, H, W]; received {tensor.datatype!r} "
            f"{str(list(tensor.shape))[:60]}"
        )
    count, _, height, width = tensor.shape
    if count > limits.group_size:
        raise InvalidRequestError(f"a group may have {limits.group_size} candidates; received {count}")
    if height * width > limits.image.max_pixels:
        raise InvalidRequestError(
            f"an image may have {limits.image.max_pixels} pixels; received {height} x {width}"
        )
    try:
        if tensor.raw is not None:
            return np.frombuffer(tensor.raw, "<f4").astype(np.float32).reshape(tensor.shape)
        if len(tensor.elements or ()) != prod(tensor.shape):
            raise ValueError(f"it has {len(tensor.elements or ())} elements")
        return np.array(tensor.elements, dtype=np.float32).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequestError(
            f"input {PIXELS.name!r} does not fill its shape {list(tensor.shape)}: {str(error)[:80]}"
        ) from error


class Gradients:
    """The gradient of one model. Lives in one event loop.

    Args:
        scorer: the judge.
        limits: how long a request may take.
    """

    def __init__(self, scorer: DifferentiableScorer, limits: Limits) -> None:
        self._scorer = scorer
        self._limits = limits
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def of(self, group: PixelGroup, expires: float) -> tuple[Floats, Floats]:
        """Utilities [K] and the derivative of each in its own candidate [K, 3, H, W].

        A computation that its client no longer waits for ends first; the next one starts after it.

        Args:
            group: within the limits.
            expires: by the event loop's clock.

        Raises:
            InvalidRequestError: the judge refuses the prompt or the pixels.
            OverloadedError: too many requests wait.
            ExpiredError: it took too long.
            FailedError: the judge failed.
        """
        if self._waiting >= WAITING:
            raise self._limits.overloaded(
                f"{self._waiting} requests for a gradient are waiting; try again later", RETRY_S
            )
        self._waiting += 1
        try:
            async with asyncio.timeout_at(expires):
                await self._turn.acquire()
                working = asyncio.ensure_future(self._computed(group))
                working.add_done_callback(self._ended)
                return await asyncio.shield(working)
        except TimeoutError as error:
            raise ExpiredError("the request's deadline passed before its gradient was there") from error
        finally:
            self._waiting -= 1

    async def drain(self, timeout: float) -> None:
        """Wait until nothing is computed, for at most `timeout` seconds."""
        end = asyncio.get_running_loop().time() + timeout
        while (self._waiting or self._turn.locked()) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(DRAIN_STEP_S)

    def _ended(self, working: "asyncio.Future[tuple[Floats, Floats]]") -> None:
        self._turn.release()
        if not working.cancelled():
            # Its client may have left, and asyncio would log an error that nobody took.
            working.exception()

    async def _computed(self, group: PixelGroup) -> tuple[Floats, Floats]:
        try:
            return await asyncio.wrap_future(in_daemon_thread(partial(_gradient, self._scorer, group)))
        except OutOfMemoryError as error:
            raise FailedError(str(error)) from error
        except (ConfigError, DataError, ScoringError) as error:
            raise InvalidRequestError(str(error)) from error
        except Exception as error:
            log_failure(logger, "a gradient failed", error)
            raise FailedError(f"the judge failed: {type(error).__name__}") from error


def _gradient(scorer: DifferentiableScorer, group: PixelGroup) -> tuple[Floats, Floats]:
    # A server without a judge needs no torch.
    import torch

    pixels = torch.from_numpy(group.pixels).requires_grad_()
    utilities = scorer.utilities(group.prompt, pixels)
    (gradient,) = torch.autograd.grad(utilities.sum(), pixels)
    return utilities.detach().float().cpu().numpy(), gradient.float().cpu().numpy()
