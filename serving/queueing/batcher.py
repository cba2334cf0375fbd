"""A bounded, fair queue in front of a scorer: what has gathered while it worked is scored together.

The scorer gets work the moment it is idle. Requests take turns group by group, by what their groups cost; a
batch is cut by cost, and a request that was cancelled or has expired costs nothing more. A group with large
images has its turn only when they are decoded.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from prefrm.errors import PrefrmError
from prefrm.winmatrix import Group, Outcome, Scorer, as_matrix
from serving.errors import ExpiredError, FailedError, NotReadyError
from serving.limits import Limits
from serving.observing.logs import log_failure
from serving.observing.metrics import ModelMetrics
from serving.queueing.cost import cost_of
from serving.queueing.decoding import AheadDecoder, Prepared, Preparing
from serving.queueing.fairness import FairQueue
from serving.queueing.guard import GuardedScorer
from serving.queueing.work import Batch, Estimate, Kind, Scored, Work
from serving.queueing.worker import Done, Pausing, Worker

__all__ = ["Batcher"]

logger = logging.getLogger(__name__)

# Bounds of what a client that met a full queue is told to wait, in seconds, and the share of the newest batch
# in the estimate of what the scorer does in a second.
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.1, 60.0
NEWEST = 0.2
# Of a request whose images' headers are read on the event loop: in the worst case, a few milliseconds.
MOST_HEADERS_ON_LOOP, MOST_BYTES_ON_LOOP = 64, 2**18
# What is under way takes some turns of the loop to be read, which are microseconds, and shares the next batch
# of a quick scorer then.
GATHERING_TURNS = 3
QUICK_S = 0.005


@dataclass(slots=True)
class _Waiting:
    """What waits: groups, and their cost in tokens."""

    groups: int = 0
    cost: int = 0


class Batcher:
    """The queue and what feeds the worker from it. Lives in one event loop.

    Args:
        scorer: what judges; called from the worker's thread only.
        limits: how much may wait, and how much is scored together.
        metrics: told of each batch.
    """

    def __init__(self, scorer: Scorer, limits: Limits, metrics: ModelMetrics) -> None:
        pausing = scorer if isinstance(scorer, Pausing) else None
        self._worker = Worker(GuardedScorer(scorer, limits), pausing)
        self._cost = cost_of(scorer)
        self._ahead: AheadDecoder | None = None
        if isinstance(scorer, Preparing):
            self._ahead = AheadDecoder(scorer, limits.image, limits.decoding_pixels, self._on_decoded)
        self._limits = limits
        self._metrics = metrics
        self._queue: FairQueue[Work] = FairQueue(Work.next_cost)
        # Insertion order is that of arrival.
        self._open: dict[Work, None] = {}
        # Each kind of request has the bounds for itself, so that none keeps another out.
        self._waiting = {kind: _Waiting() for kind in get_args(Kind)}
        self._cost_per_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = False
        # Whether the batch in progress can be interrupted, and whether it is or will be.
        self._patient = False
        self._interrupting = False
        self._feeding = False
        self._stopping = False
        self._ended = False
        # Requests whose cost is being estimated, and those whose images are being decoded.
        self._arriving = 0
        self._decoding: set[asyncio.Task[None]] = set()
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
        return sum(waiting.groups for waiting in self._waiting.values())

    @property
    def queued_cost(self) -> int:
        """What those groups cost."""
        return sum(waiting.cost for waiting in self._waiting.values())

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
        if self._ahead is not None:
            self._ahead.start()
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
            estimates = await self._estimates(groups, expires - now)
            work = Work(
                groups=groups,
                estimates=estimates,
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
        decoding = None if work.kind == "direct" else self._begin_decoding(work)
        try:
            return await work.answer
        finally:
            timer.cancel()
            if decoding is not None:
                decoding.cancel()
            self._close(work)

    async def _estimates(self, groups: Sequence[Group], seconds: float) -> list[Estimate]:
        # An estimate reads the headers of images, and of videos those of all packets: of many or large files,
        # elsewhere than on the event loop.
        if (
            sum(group.size + len(group.context) for group in groups) > MOST_HEADERS_ON_LOOP
            or sum(group.content_bytes for group in groups) > MOST_BYTES_ON_LOOP
            or any(group.kind == "video" for group in groups)
        ):
            estimates = asyncio.to_thread(lambda: [self._estimate(group) for group in groups])
            try:
                return await asyncio.wait_for(estimates, seconds)
            except TimeoutError as error:
                raise ExpiredError("the request's deadline passed before it was its turn") from error
        return [self._estimate(group) for group in groups]

    def _estimate(self, group: Group) -> Estimate:
        cost = self._cost(group)
        if self._ahead is None or not (images := self._ahead.of(group, cost)):
            return Estimate(cost=cost, turn=cost)
        return Estimate(cost=cost, turn=max(1, cost - self._ahead.tokens(images)), ahead=images)

    def _begin_decoding(self, work: Work) -> "asyncio.Task[None]":
        def on_end(task: "asyncio.Task[None]") -> None:
            self._decoding.discard(task)
            self._feed_soon()

        task = asyncio.create_task(self._decode_ahead(work))
        self._decoding.add(task)
        task.add_done_callback(on_end)
        return task

    async def _decode_ahead(self, work: Work) -> None:
        """Decode the images of a request, and queue each group when its images are there."""
        assert self._ahead is not None
        try:
            for place, estimate in enumerate(work.estimates):
                if estimate.ahead:
                    work.prepared[place] = await self._ahead.prepare(estimate.ahead)
                work.ready += 1
                if work.taken == place:
                    self._queue.add(work)
                self._feed_soon()
        except Exception as error:
            log_failure(logger, "decoding the images of a request failed", error, work.groups)
            work.fail(FailedError(f"decoding failed: {_described(error)}"))

    def _on_decoded(self, seconds: float) -> None:
        self._moved_at = time.monotonic()
        self._metrics.decoded(seconds)

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
        if self._ahead is not None:
            self._ahead.stop()

    def _admit(self, work: Work) -> None:
        if self._ended:
            raise NotReadyError("the server stopped before this request was scored")
        if work.expires <= work.arrived:
            raise ExpiredError("the request's deadline had passed when it came")
        cost, waiting = work.waiting_cost, self._waiting[work.kind]
        if waiting.cost and waiting.cost + cost > self._limits.queued_cost:
            raise self._limits.overloaded(
                f"the queue is full: {waiting.groups} groups are waiting; try again later",
                retry_after=self._seconds_of(waiting),
            )
        waiting.groups += len(work.groups)
        waiting.cost += cost
        self._open[work] = None
        if work.kind == "direct":
            work.ready = len(work.groups)
            self._queue.add(work)

    def _close(self, work: Work) -> None:
        """Forget a request that was answered, or that nobody waits for."""
        del self._open[work]
        if work.taken < len(work.groups):
            self._queue.forget()
        waiting = self._waiting[work.kind]
        waiting.groups -= len(work.groups) - work.taken
        waiting.cost -= work.waiting_cost
        for prepared in work.prepared.values():
            prepared.release()
        # The queue may keep the request until its turn, which must not keep its images.
        work.groups, work.estimates, work.matrices, work.prepared = (), (), [], {}
        work.taken = work.ready = 0

    def _seconds_of(self, waiting: _Waiting) -> float:
        if not self._cost_per_s:
            return 1.0
        return min(max(waiting.cost / self._cost_per_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def _feed_soon(self) -> None:
        """Feed an idle scorer after what else the next turns of the loop bring, which shares the batch."""
        if self._loop is None or self._feeding or (self._busy and not self._patient):
            return
        if not self._open and not self._stopping:
            return
        self._feeding = True
        if self._limits.max_queue_delay_s and not self._stopping:
            self._loop.call_later(self._limits.max_queue_delay_s, self._feed)
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
        elif self._stopping and not (self._arriving or self._decoding or self._interrupting):
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
        for prepared in batch.prepared:
            prepared.release()
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
        prepared: list[Prepared] = []
        total, now = 0, time.monotonic()
        while (work := self._queue.first()) is not None:
            if work.expires <= now:
                work.expire()
                continue
            estimate = work.estimates[work.taken]
            if (turns or cheap) and total + estimate.turn > self._limits.batch_cost:
                break
            turns.append((work, work.taken))
            if work.taken in work.prepared:
                # From now on the batch keeps them, whether the request is still wanted or not.
                prepared.append(work.prepared.pop(work.taken))
            work.taken += 1
            work.last_turn = now
            waiting = self._waiting[work.kind]
            waiting.groups -= 1
            waiting.cost -= estimate.cost
            total += estimate.turn
            self._queue.advance()
        groups = [work.groups[place] for work, place in turns]
        return Batch(turns=turns, groups=groups, cost=total, prepared=prepared) if turns else None

    def _learn(self, cost: int, seconds: float) -> None:
        rate = cost / max(seconds, 1e-9)
        before = self._cost_per_s
        self._cost_per_s = rate if before is None else (1 - NEWEST) * before + NEWEST * rate


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, PrefrmError) else f"{type(error).__name__}: {error}"
