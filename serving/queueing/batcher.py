"""A bounded, fair queue in front of a scorer: what has gathered while it worked is scored together.

The scorer gets work the moment it is idle. Requests take turns group by group, by what their groups cost; a
batch is cut by cost, and a request that was cancelled or has expired costs nothing more.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from prefrm.errors import PrefrmError
from prefrm.winmatrix import Group, Outcome, Scorer, as_matrix
from serving.errors import ExpiredError, FailedError, NotReadyError
from serving.limits import Limits
from serving.observing.logs import log_failure
from serving.observing.metrics import ModelMetrics
from serving.queueing.cost import cost_of
from serving.queueing.fairness import FairQueue
from serving.queueing.guard import GuardedScorer
from serving.queueing.work import Batch, Scored, Work
from serving.queueing.worker import Done, Pausing, Worker

__all__ = ["Batcher"]

logger = logging.getLogger(__name__)

# Bounds of what a client that met a full queue is told to wait, in seconds, and the share of the newest batch
# in the estimate of what the scorer does in a second.
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.1, 60.0
NEWEST = 0.2
MOST_HEADERS_ON_LOOP = 64
# What is under way takes some turns of the loop to be read, which are microseconds, and shares the next batch
# of a quick scorer then.
GATHERING_TURNS = 3
QUICK_S = 0.005


class Batcher:
    """The queue and what feeds the worker from it. Lives in one event loop.

    Args:
        scorer: what judges; called from the worker's thread only.
        limits: how much may wait, and how much is scored together.
        metrics: told of each batch.
    """

    def __init__(self, scorer: Scorer, limits: Limits, metrics: ModelMetrics) -> None:
        pausing = scorer if isinstance(scorer, Pausing) else None
        self._worker = Worker(GuardedScorer(scorer, limits.image), pausing)
        self._cost = cost_of(scorer)
        self._limits = limits
        self._metrics = metrics
        self._queue: FairQueue[Work] = FairQueue(Work.next_cost)
        # Insertion order is that of arrival.
        self._open: dict[Work, None] = {}
        self._queued_groups = 0
        self._queued_cost = 0
        self._queued_bytes = 0
        self._cost_per_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = False
        # Whether the batch in progress can be interrupted, and whether it is or will be.
        self._patient = False
        self._interrupting = False
        self._feeding = False
        self._stopping = False
        self._ended = False
        # Requests whose cost is being estimated.
        self._arriving = 0
        self._done = asyncio.Event()
        self._moved_at = time.monotonic()
        metrics.watch_queue(self)

    @property
    def is_hanging(self) -> bool:
        """Whether the scorer, or what waits for it, has not moved for longer than is thinkable."""
        busy_s = self._worker.busy_s
        still_s = busy_s or min(self.age_s, time.monotonic() - self._moved_at)
        return still_s > self._limits.hang_s

    @property
    def queued_groups(self) -> int:
        """Groups that wait for their turn."""
        return self._queued_groups

    @property
    def queued_cost(self) -> int:
        """What those groups cost."""
        return self._queued_cost

    @property
    def age_s(self) -> float:
        """Seconds since the oldest request that waits for a turn arrived, or 0."""
        arrivals = (work.arrived for work in self._open if work.taken < len(work.groups))
        oldest = next(arrivals, None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def start(self) -> None:
        """Begin to work off the queue, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        self._feed_soon()

    async def submit(self, groups: Sequence[Group], *, expires: float) -> Scored:
        """Queue groups and wait for their matrices. Cancelling this spares the work that is not yet begun.

        Args:
            groups: of one request.
            expires: when nobody wants them any more, by `time.monotonic()`.

        Raises:
            OverloadedError: the queue has no room for all of them.
            ExpiredError: it is later than `expires`, now or while they wait or are scored.
            FailedError: the scorer raised, or returned no matching matrices.
            NotReadyError: the server stopped first.
        """
        if self._stopping:
            raise NotReadyError("the server is stopping")
        loop, now = asyncio.get_running_loop(), time.monotonic()
        self._arriving += 1
        try:
            work = Work(
                groups=groups,
                costs=await self._costs(groups, expires - now),
                content_bytes=sum(group.content_bytes for group in groups),
                arrived=now,
                expires=expires,
                answer=loop.create_future(),
                matrices=[None] * len(groups),
                missing=len(groups),
            )
            self._admit(work)
        finally:
            self._arriving -= 1
            self._feed_soon()
        timer = loop.call_later(expires - now, work.expire)
        try:
            return await work.answer
        finally:
            timer.cancel()
            self._close(work)

    async def _costs(self, groups: Sequence[Group], seconds: float) -> list[int]:
        # An estimate reads the headers of images: of many, elsewhere than on the event loop.
        if sum(group.size for group in groups) > MOST_HEADERS_ON_LOOP:
            estimates = asyncio.to_thread(lambda: [self._cost(group) for group in groups])
            try:
                return await asyncio.wait_for(estimates, seconds)
            except TimeoutError as error:
                raise ExpiredError("the request's deadline passed before it was its turn") from error
        return [self._cost(group) for group in groups]

    async def drain(self, timeout: float) -> None:
        """Work off what is queued, for at most `timeout` seconds, and stop; what is left is turned away."""
        self._stopping = True
        self._feed_soon()
        try:
            if self._loop is not None:
                await asyncio.wait_for(self._done.wait(), timeout)
        except TimeoutError:
            logger.warning("the scorer was still busy after %g s; its requests are turned away", timeout)
        self._ended = True
        for work in self._open:
            work.fail(NotReadyError("the server stopped before this request was scored"))
        self._worker.stop()

    def _admit(self, work: Work) -> None:
        if self._ended:
            raise NotReadyError("the server stopped before this request was scored")
        if work.expires <= work.arrived:
            raise ExpiredError("the request's deadline had passed when it came")
        cost = work.waiting_cost
        if self._queued_cost and (
            self._queued_cost + cost > self._limits.queued_cost
            or self._queued_bytes + work.content_bytes > self._limits.queued_bytes
        ):
            raise self._limits.overloaded(
                f"the queue is full: {self._queued_groups} groups are waiting; try again later",
                retry_after=self._seconds_of_queue(),
            )
        self._queued_groups += len(work.groups)
        self._queued_cost += cost
        self._queued_bytes += work.content_bytes
        self._open[work] = None
        self._queue.add(work)

    def _close(self, work: Work) -> None:
        """Forget a request that was answered, or that nobody waits for."""
        del self._open[work]
        if work.taken < len(work.groups):
            self._queue.forget()
        self._queued_groups -= len(work.groups) - work.taken
        self._queued_cost -= work.waiting_cost
        self._queued_bytes -= work.content_bytes
        # The queue may keep the request until its turn, which must not keep its images.
        work.groups, work.costs, work.matrices, work.taken = (), [], [], 0

    def _seconds_of_queue(self) -> float:
        if not self._cost_per_s:
            return 1.0
        return min(max(self._queued_cost / self._cost_per_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def _feed_soon(self) -> None:
        """Feed an idle scorer after what else the next turns of the loop bring, which shares the batch."""
        if self._loop is None or self._feeding or (self._busy and not self._patient):
            return
        if not self._open and not self._stopping:
            return
        self._feeding = True
        if self._limits.gather_s and not self._stopping:
            self._loop.call_later(self._limits.gather_s, self._feed)
        else:
            self._loop.call_soon(self._feed_after, GATHERING_TURNS - 1)

    def _feed_after(self, turns: int) -> None:
        if turns > 0 and self._loop is not None:
            self._loop.call_soon(self._feed_after, turns - 1)
        else:
            self._feed()

    def _feed(self) -> None:
        self._feeding = False
        if self._busy:
            self._interrupt()
        elif batch := self._next_batch():
            self._busy = True
            self._patient = self._worker.pauses and batch.cost > self._limits.batch_cost
            self._worker.submit(batch.groups, self._on_scored(batch, interrupts=False))
        elif self._stopping and not self._arriving and not self._interrupting:
            self._done.set()

    def _interrupt(self) -> None:
        """Let what is cheap go before the rest of a group that alone costs more than a batch."""
        if not self._patient or self._interrupting:
            return
        if batch := self._next_batch(cheap=True):
            self._interrupting = True
            self._worker.interrupt(batch.groups, self._on_scored(batch, interrupts=True))

    def _on_scored(self, batch: Batch, *, interrupts: bool) -> Done:
        """What the worker calls, from its thread, with what came of a batch."""
        loop, started = self._loop, time.monotonic()
        self._moved_at = started
        assert loop is not None

        def on_scored(result: list[Outcome] | BaseException) -> None:
            seconds = time.monotonic() - started
            # A loop that is closed has stopped without us, and nobody waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._finish, batch, result, seconds, interrupts)

        return on_scored

    def _finish(
        self, batch: Batch, result: list[Outcome] | BaseException, seconds: float, interrupted: bool
    ) -> None:
        self._moved_at = time.monotonic()
        if interrupted:
            self._interrupting = False
        else:
            self._busy = False
            if not isinstance(result, BaseException):
                self._learn(batch.cost, seconds)
        # A quick scorer waits for the answers to go out, since what they call forth shares its next batch; to
        # one that takes long, its own time is dearer.
        if seconds > QUICK_S:
            self._feed()
        self._answer(batch, result, seconds)
        self._feed_soon()

    def _answer(self, batch: Batch, result: list[Outcome] | BaseException, seconds: float) -> None:
        # Whatever a scorer raises concerns this batch; the server goes on.
        if isinstance(result, BaseException):
            message = f"scoring a batch of {len(batch.turns)} groups failed"
            log_failure(logger, message, result, batch.groups)
            for work, _ in batch.turns:
                work.fail(FailedError(f"scoring failed: {_described(result)}"))
            return
        for work in dict.fromkeys(work for work, _ in batch.turns):
            work.compute_s += seconds
        matrices = [as_matrix(*pair) for pair in zip(result, batch.groups, strict=True)]
        for (work, place), matrix in zip(batch.turns, matrices, strict=True):
            work.place(place, matrix)
        self._metrics.batch(matrices, cost=batch.cost, seconds=seconds)

    def _next_batch(self, *, cheap: bool = False) -> Batch | None:
        """As many groups as `batch_cost` pays for, but at least one unless only `cheap` ones are wanted."""
        turns: list[tuple[Work, int]] = []
        total, now = 0, time.monotonic()
        while (work := self._queue.first()) is not None:
            if work.expires <= now:
                work.expire()
                continue
            cost = work.costs[work.taken]
            if (turns or cheap) and total + cost > self._limits.batch_cost:
                break
            turns.append((work, work.taken))
            work.taken += 1
            work.last_turn = now
            self._queued_groups -= 1
            self._queued_cost -= cost
            total += cost
            self._queue.advance()
        groups = [work.groups[place] for work, place in turns]
        return Batch(turns=turns, groups=groups, cost=total) if turns else None

    def _learn(self, cost: int, seconds: float) -> None:
        rate = cost / max(seconds, 1e-9)
        before = self._cost_per_s
        self._cost_per_s = rate if before is None else (1 - NEWEST) * before + NEWEST * rate


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, PrefrmError) else f"{type(error).__name__}: {error}"
