"""Fake transports: replicas that note what they are asked, and answer or fail as a test says."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

from prefrm.client._transport import Failure
from prefrm.protocol import decode_groups, encode_matrices
from prefrm.winmatrix import EVERYTHING, FakeScorer, Inputs
from tests.prefrm.client.conftest import size_and_prompt


def full(pause=None):
    return Failure("RESOURCE_EXHAUSTED", "the queue is full", pause)


def away(pause=None):
    return Failure("UNAVAILABLE", "nobody listens", pause)


def gave_up():
    return Failure("DEADLINE_EXCEEDED", "a limit of its own")


def refused():
    return Failure("PERMISSION_DENIED", "who are you")


def failed():
    return Failure("INTERNAL", "the judge broke")


@dataclass
class Asked:
    """One request: when it came, how many groups it had, and the seconds that it was given."""

    at: float
    groups: int
    timeout: float


@dataclass
class Replica:
    """What one server says: the errors of `refusals` first, one for each request, then `always` or an answer.

    `gate` holds answers back, and `alive` is what it says of itself meanwhile; a request of more groups than
    `most` is too large.
    """

    refusals: list[Exception] = field(default_factory=list)
    always: Exception | None = None
    bundle: str = "b" * 64
    inputs: Inputs = EVERYTHING
    alive: bool = True
    most: int = 10**6
    asked: list[Asked] = field(default_factory=list)
    introduced: int = 0
    closed: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self.gate.set()

    def answer(self, tensors, timeout):
        groups = decode_groups(tensors)
        self.asked.append(Asked(at=time.monotonic(), groups=len(groups), timeout=timeout))
        if len(groups) > self.most:
            raise Failure("OUT_OF_RANGE", f"at most {self.most} groups")
        error = self.refusals.pop(0) if self.refusals else self.always
        if error is not None:
            raise error
        return encode_matrices(FakeScorer(size_and_prompt, first_bonus=0.25).score(groups))

    @property
    def groups(self):
        return sum(one.groups for one in self.asked)


class FakeTransport:
    def __init__(self, replica):
        self._replica = replica

    async def infer(self, tensors, *, timeout):
        answer = self._replica.answer(tensors, timeout)
        while not self._replica.gate.is_set():
            await asyncio.sleep(0.005)
        return answer

    async def bundle(self):
        self._replica.introduced += 1
        return self._replica.bundle

    async def inputs(self):
        return self._replica.inputs

    async def live(self):
        while not self._replica.alive:
            await asyncio.sleep(0.005)

    async def close(self):
        self._replica.closed += 1
