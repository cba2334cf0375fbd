"""The batcher by itself, and the guard in front of the scorer."""

import asyncio
import gc
import struct
import threading
import time
import weakref
from typing import ClassVar

import numpy as np
import pytest

from prefrm.errors import OutOfMemoryError
from prefrm.media import ImageLimits, VideoLimits
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.errors import ExpiredError, FailedError, NotReadyError, OverloadedError
from serving.limits import Limits
from serving.observing.metrics import Metrics
from serving.queueing.batcher import Batcher, _Waiting
from serving.queueing.guard import GuardedScorer
from tests.videos import clip, frames


def batcher(scorer, **limits) -> Batcher:
    return Batcher(scorer, Limits(**limits), Metrics().of_model("judge", "1"))


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


class TestBatcher:
    def test_what_gathers_while_it_works_is_scored_together(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            first = asyncio.ensure_future(queue.submit([group("a")], expires=soon()))
            while not gated.calls:
                await asyncio.sleep(0.01)
            rest = [
                asyncio.ensure_future(queue.submit([group(p), group(p + p)], expires=soon())) for p in "bc"
            ]
            await asyncio.sleep(0.05)
            gated.gate.set()
            answers = await asyncio.gather(first, *rest)
            await queue.drain(5)
            return answers

        answers = asyncio.run(main())
        assert gated.calls == [["a"], ["b", "c", "bb", "cc"]]
        for prompts, answer in zip((["a"], ["b", "bb"], ["c", "cc"]), answers, strict=True):
            local = gated.score([group(p) for p in prompts])
            assert all(m.equals(own) for m, own in zip(answer.matrices, local, strict=True))

    def test_a_batch_is_cut_by_cost(self, gated, png):
        """Without an estimate of its own, a scorer's group costs its K (K - 1) ordered pairs."""
        sizes = {"a": 2, "b": 3, "c": 2, "d": 5, "e": 2}

        async def main():
            queue = batcher(gated, batch_cost=10)
            tasks = [
                asyncio.ensure_future(
                    queue.submit([Group(prompt=p, candidates=(png(1),) * k)], expires=soon())
                )
                for p, k in sizes.items()
            ]
            await asyncio.sleep(0)
            gated.gate.set()
            queue.start()
            await asyncio.gather(*tasks)
            await queue.drain(5)

        asyncio.run(main())
        # The cheapest first, since all came at once: 2 + 2 + 2, then 6, then 20, which is alone too much.
        assert gated.calls == [["a", "c", "e"], ["b"], ["d"]]

    def test_a_large_group_does_not_starve_small_ones_nor_they_it(self, gated, png):
        async def main():
            queue = batcher(gated, batch_cost=24)
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(png(1),) * 8)], expires=soon())
            )
            many = asyncio.ensure_future(
                queue.submit(
                    [Group(prompt=f"many{n}", candidates=(png(1),) * 4) for n in range(9)], expires=soon()
                )
            )
            await asyncio.sleep(0)
            one = asyncio.ensure_future(
                queue.submit([Group(prompt="one", candidates=(png(1),) * 4)], expires=soon())
            )
            await asyncio.sleep(0)
            gated.gate.set()
            queue.start()
            await asyncio.gather(large, many, one)
            await queue.drain(5)

        asyncio.run(main())
        # 56 against 12 each: the single one comes second, the large one after four of the others.
        assert gated.calls == [
            ["many0", "one"],
            ["many1", "many2"],
            ["many3"],
            ["large"],
            ["many4", "many5"],
            ["many6", "many7"],
            ["many8"],
        ]

    def test_an_idle_scorer_waits_for_more_only_if_told_to(self, gated, group):
        async def main():
            queue = batcher(gated, max_queue_delay_s=0.1)
            queue.start()
            gated.gate.set()
            first = asyncio.ensure_future(queue.submit([group("a")], expires=soon()))
            await asyncio.sleep(0.02)
            await asyncio.gather(first, queue.submit([group("b")], expires=soon()))
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["a", "b"]]

    def test_a_request_expires_while_it_is_scored(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            other = asyncio.ensure_future(queue.submit([group("other")], expires=soon()))
            started = time.monotonic()
            with pytest.raises(ExpiredError, match="deadline passed"):
                await queue.submit([group("late")], expires=soon(0.05))
            assert time.monotonic() - started < 5
            with pytest.raises(ExpiredError, match="had passed when it came"):
                await queue.submit([group("too late")], expires=time.monotonic())
            gated.gate.set()
            assert len((await other).matrices) == 1
            await queue.drain(5)

        asyncio.run(main())

    def test_a_request_is_admitted_whole_or_not_at_all(self, gated, group):
        async def main():
            queue = batcher(gated, queued_cost=6)
            first = asyncio.ensure_future(queue.submit([group("a")] * 2, expires=soon()))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError) as caught:
                await queue.submit([group("b")] * 2, expires=soon())
            assert (queue.queued_groups, queue.queued_cost) == (2, 4)
            assert caught.value.retry_after > 0
            second = asyncio.ensure_future(queue.submit([group("c")], expires=soon()))
            gated.gate.set()
            queue.start()
            await asyncio.gather(first, second)
            assert (queue.queued_groups, queue.queued_cost, queue.age_s) == (0, 0, 0.0)
            await queue.drain(5)

        asyncio.run(main())

    def test_a_request_that_nothing_waits_before_is_never_too_large(self, gated, group):
        async def main():
            queue = batcher(gated, queued_cost=1)
            gated.gate.set()
            queue.start()
            answer = await queue.submit([group("a")] * 9, expires=soon())
            await queue.drain(5)
            return answer

        answer = asyncio.run(main())
        assert len(answer.matrices) == 9
        assert answer.cost == 18

    def test_how_long_to_stay_away_follows_from_what_waits_and_how_fast_it_goes(self, group):
        class Steady:
            def score(self, groups):
                time.sleep(0.05 * len(groups))
                return FakeScorer(lambda p, i: 0.0).score(groups)

        async def main():
            queue = batcher(Steady(), batch_cost=2, queued_cost=40)
            queue.start()
            await queue.submit([group("warm")], expires=soon())
            waiting = [asyncio.ensure_future(queue.submit([group("a")], expires=soon())) for _ in range(21)]
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError) as caught:
                await queue.submit([group("b")], expires=soon())
            for one in waiting:
                one.cancel()
            await queue.drain(5)
            return caught.value.retry_after

        # 20 groups at a twentieth of a second each.
        assert asyncio.run(main()) == pytest.approx(1.0, rel=0.5)

    def test_a_scorer_that_hangs_is_noticed_and_forgiven(self, gated, group):
        async def main():
            queue = batcher(gated, hang_s=0.05)
            queue.start()
            assert not queue.is_hanging
            answer = asyncio.ensure_future(queue.submit([group("a")], expires=soon()))
            while not queue.is_hanging:
                await asyncio.sleep(0.01)
            gated.gate.set()
            await answer
            assert not queue.is_hanging
            await queue.drain(5)

        asyncio.run(main())

    def test_cancelled_and_expired_requests_are_not_scored(self, gated, group):
        async def main():
            queue = batcher(gated)
            cancelled = asyncio.ensure_future(queue.submit([group("cancelled")], expires=soon()))
            expired = asyncio.ensure_future(queue.submit([group("expired")], expires=soon(0.01)))
            alive = asyncio.ensure_future(queue.submit([group("alive")], expires=soon()))
            await asyncio.sleep(0.05)
            cancelled.cancel()
            gated.gate.set()
            queue.start()
            assert len((await alive).matrices) == 1
            with pytest.raises(ExpiredError, match="deadline passed"):
                await expired
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["alive"]]

    def test_a_cancelled_request_makes_room(self, gated, group):
        async def main():
            queue = batcher(gated, queued_cost=2)
            first = asyncio.ensure_future(queue.submit([group("a")], expires=soon()))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="1 groups are waiting"):
                await queue.submit([group("b")], expires=soon())
            first.cancel()
            await asyncio.sleep(0)
            second = asyncio.ensure_future(queue.submit([group("c")], expires=soon()))
            gated.gate.set()
            queue.start()
            await second
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["c"]]

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (lambda groups: [], r"groups of \[2\] candidates and answered with matrices of \[\]"),
            (
                lambda groups: [WinMatrix.missing(["", "", ""])],
                r"groups of \[2\] candidates and answered with matrices of \[3\]",
            ),
            (lambda groups: 1 / 0, "ZeroDivisionError: division by zero"),
        ],
    )
    def test_a_scorer_that_fails_or_miscounts_fails_its_batch(self, answer, message, group, caplog):
        class Broken:
            score = staticmethod(answer)

        async def main():
            queue = batcher(Broken())
            queue.start()
            with pytest.raises(FailedError, match=message):
                await queue.submit([group("a")], expires=soon())
            await queue.drain(5)

        asyncio.run(main())
        assert "scoring a batch of 1 groups failed" in caplog.text

    def test_draining_finishes_what_was_accepted_and_turns_away_the_rest(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            accepted = [asyncio.ensure_future(queue.submit([group(p)], expires=soon())) for p in "ab"]
            await asyncio.sleep(0.05)
            draining = asyncio.ensure_future(queue.drain(10))
            await asyncio.sleep(0)
            with pytest.raises(NotReadyError, match="stopping"):
                await queue.submit([group("late")], expires=soon())
            gated.gate.set()
            await draining
            return await asyncio.gather(*accepted)

        assert [len(answer.matrices) for answer in asyncio.run(main())] == [1, 1]

    def test_draining_gives_up_on_a_scorer_that_hangs(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            running = asyncio.ensure_future(queue.submit([group("a")], expires=soon()))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(queue.submit([group("b")], expires=soon()))
            await asyncio.sleep(0)
            await queue.drain(0.05)
            for request in (running, waiting):
                with pytest.raises(NotReadyError, match="the server stopped"):
                    await request
            gated.gate.set()

        asyncio.run(main())


class TestGuard:
    def test_a_refused_image_never_reaches_the_scorer(self, png):
        seen = []

        def utility(prompt: str, image: bytes) -> float:
            seen.append(image)
            return float(len(image))

        guard = GuardedScorer(FakeScorer(utility), Limits(image=ImageLimits(max_bytes=500, max_pixels=30)))
        small, large = png(1), png(1) + bytes(500)
        (matrix,) = guard.score([Group(prompt="p", candidates=(small, large, b"GIF89a", None, small))])
        assert seen == [small, small]
        assert matrix.errors[0] == matrix.errors[4] == ""
        assert "limit is 500" in matrix.errors[1]
        assert "not a valid PNG" in matrix.errors[2]
        assert matrix.errors[3] == "the candidate is missing"
        np.testing.assert_array_equal(matrix.judged, [True, False, False, False, True])

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            ({"max_frames": 4}, "more than 4 frames"),
            ({"max_seconds": 0.2}, "lasts 0.2 seconds; the limit is 0.2"),
            ({"max_decoded_pixels": 5 * 64 * 48 - 1}, "15360 pixels in all; the limit is 15359"),
            ({"max_bytes": 3000}, "bytes; the limit is 3000"),
        ],
    )
    def test_a_refused_video_never_reaches_the_scorer(self, limits, reason):
        seen = []

        def utility(prompt: str, video: bytes) -> float:
            seen.append(video)
            return float(len(video))

        guard = GuardedScorer(FakeScorer(utility), Limits(image=ImageLimits(video=VideoLimits(**limits))))
        short, long = clip(frames(2)), clip(frames(5)) + struct.pack(">I4s", 2000, b"free") + bytes(1992)
        cut = short[:-1]
        (matrix,) = guard.score([Group(prompt="p", candidates=(short, long, cut, short))])
        assert seen == [short, short]
        assert reason in matrix.errors[1] and "truncated" in matrix.errors[2]
        np.testing.assert_array_equal(matrix.judged, [True, False, False, True])

    def test_a_group_with_a_refused_context_is_not_judged(self, png):
        guard = GuardedScorer(FakeScorer(lambda p, i: float(len(i))), Limits())
        candidates = (png(1), png(2))
        groups = [
            Group(prompt="p", candidates=candidates, context=context)
            for context in ((png(3), clip(frames(1))), (png(3),))
        ]
        refused, judged = guard.score(groups)
        assert set(refused.errors) == {"context image 1: not a valid PNG or JPEG or WEBP image"}
        assert not refused.judged.any() and judged.judged.all()

    def test_pixels_are_counted_from_the_header(self, png):
        guard = GuardedScorer(FakeScorer(lambda p, i: 0.0), Limits(image=ImageLimits(max_pixels=29)))
        (matrix,) = guard.score([Group(prompt="p", candidates=(png(1), png(2)))])
        assert "6 x 5 pixels; the limit is 29" in matrix.errors[0]


class Stepping:
    """Judges a group in as many steps as it has candidates, each when it is let; pauses before each."""

    def __init__(self) -> None:
        self.on_pass = None
        self.order: list[str] = []
        self.steps = threading.Semaphore(0)
        self._inner = FakeScorer(lambda prompt, image: float(len(image)))

    def score(self, groups):
        for group in groups:
            self.order.append(f"{group.prompt} begins")
            for _ in range(group.size):
                if self.on_pass is not None:
                    self.on_pass()
                assert self.steps.acquire(timeout=30)
            self.order.append(f"{group.prompt} ends")
        return self._inner.score(groups)


class TestInterruption:
    def test_cheap_groups_go_before_the_rest_of_a_large_one(self, png):
        scorer = Stepping()

        async def main():
            queue = batcher(scorer, batch_cost=20)
            queue.start()
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(png(1),) * 8)], expires=soon())
            )
            while not scorer.order:
                await asyncio.sleep(0.01)
            other = asyncio.ensure_future(
                queue.submit([Group(prompt="other", candidates=(png(1),) * 7)], expires=soon())
            )
            small = asyncio.ensure_future(
                queue.submit([Group(prompt="small", candidates=(png(1),) * 3)], expires=soon())
            )
            await asyncio.sleep(0.05)
            scorer.steps.release(4)
            (matrix,) = (await small).matrices
            assert not large.done()
            scorer.steps.release(14)
            await asyncio.gather(large, other)
            await queue.drain(5)
            return matrix

        assert asyncio.run(main()).size == 3
        assert scorer.order == [
            "large begins",
            "small begins",
            "small ends",
            "large ends",
            "other begins",
            "other ends",
        ]

    def test_a_large_group_is_not_held_up_for_longer_than_it_works(self):
        """Steps of 10 ms each; small groups without end."""

        class Timed:
            on_pass = None
            seconds: ClassVar = {"large": 0.0, "small": 0.0}
            longest = 0.0

            def score(self, groups):
                (group,) = groups
                own = 0.0
                for _ in range(group.size):
                    if self.on_pass is not None:
                        self.on_pass()
                    started = time.monotonic()
                    time.sleep(0.01)
                    own += time.monotonic() - started
                self.seconds[group.prompt] += own
                if group.prompt == "large":
                    self.meanwhile = self.seconds["small"]
                else:
                    self.longest = max(self.longest, own)
                return FakeScorer(lambda prompt, image: 0.0).score(groups)

        scorer = Timed()

        async def main():
            queue = batcher(scorer, batch_cost=20)
            queue.start()
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(b"x",) * 30)], expires=soon())
            )
            await asyncio.sleep(0.02)

            async def ask() -> None:
                while not large.done():
                    await queue.submit([Group(prompt="small", candidates=(b"x",) * 4)], expires=soon())

            await asyncio.gather(large, ask(), ask())
            await queue.drain(5)

        asyncio.run(main())
        # At most as long as the large one itself, and what the last of them took.
        assert 0.1 < scorer.meanwhile < scorer.seconds["large"] + scorer.longest

    def test_what_fails_in_between_fails_alone(self, png):
        class Fragile(Stepping):
            def score(self, groups):
                if groups[0].prompt == "poison":
                    raise ValueError("this prompt breaks the judge")
                return super().score(groups)

        scorer = Fragile()

        async def main():
            queue = batcher(scorer, batch_cost=20)
            queue.start()
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(png(1),) * 8)], expires=soon())
            )
            while not scorer.order:
                await asyncio.sleep(0.01)
            poison = asyncio.ensure_future(
                queue.submit([Group(prompt="poison", candidates=(png(1),) * 2)], expires=soon())
            )
            await asyncio.sleep(0.05)
            scorer.steps.release(8)
            with pytest.raises(FailedError, match="breaks the judge"):
                await poison
            assert len((await large).matrices) == 1
            await queue.drain(5)

        asyncio.run(main())

    def test_a_scorers_own_estimate_counts(self, gated, group):
        class Costed:
            score = gated.score

            def cost(self, group):
                return 10 if group.prompt == "dear" else 1

        async def main():
            queue = batcher(Costed(), batch_cost=10)
            tasks = [
                asyncio.ensure_future(queue.submit([group(p)], expires=soon())) for p in ("a", "b", "dear")
            ]
            await asyncio.sleep(0)
            gated.gate.set()
            queue.start()
            answers = await asyncio.gather(*tasks)
            await queue.drain(5)
            return [answer.cost for answer in answers]

        assert asyncio.run(main()) == [1, 1, 10]
        assert gated.calls == [["a", "b"], ["dear"]]


class Erratic:
    """Judges in steps and pauses before each; fails and lacks memory as prompts say."""

    def __init__(self, memory: int) -> None:
        self.on_pass = None
        self.memory = memory
        self.held = 0
        self._inner = FakeScorer(lambda prompt, image: float(len(image)) + len(prompt) / 7)

    def score(self, groups):
        size = sum(group.size for group in groups)
        if self.held + size > self.memory:
            raise OutOfMemoryError(f"no memory for {size} beside {self.held}")
        self.held += size
        try:
            for group in groups:
                for _ in range(group.size):
                    if self.on_pass is not None:
                        self.on_pass()
                    time.sleep(0.0002)
                if group.prompt.startswith("poison"):
                    raise ValueError("this prompt breaks the judge")
        finally:
            self.held -= size
        return self._inner.score(groups)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_every_request_is_answered_and_nothing_is_left_on_the_books(seed, png):
    """Large and small, cancelled, expired, failing, short of memory: mixed at random, then summed up."""
    random = np.random.default_rng(seed)
    scorer, images = Erratic(memory=24), [png(shade) for shade in range(20)]

    async def ask(queue: Batcher, n: int) -> str:
        await asyncio.sleep(float(random.uniform(0, 0.4)))
        kind = "poison" if n % 50 == 7 else ("plain", "large", "cancelled", "late")[n % 4 if n % 3 else 0]
        sizes = [int(random.integers(2, 5)) for _ in range(int(random.integers(1, 4)))]
        groups = [Group(prompt=f"{kind} {n}", candidates=tuple(images[:k])) for k in sizes]
        if kind == "large":
            groups = [Group(prompt=f"large {n}", candidates=tuple(images))]
        request = asyncio.ensure_future(queue.submit(groups, expires=soon(0.003 if kind == "late" else 60)))
        if kind == "cancelled":
            await asyncio.sleep(0.004)
            request.cancel()
        try:
            answer = await request
        except (asyncio.CancelledError, ExpiredError, FailedError) as error:
            return type(error).__name__
        assert all(m.equals(own) for m, own in zip(answer.matrices, scorer._inner.score(groups), strict=True))
        return "answered"

    async def main() -> list[str]:
        queue = batcher(scorer, batch_cost=60)
        queue.start()
        ends = await asyncio.wait_for(asyncio.gather(*(ask(queue, n) for n in range(150))), 60)
        assert (queue.queued_groups, queue.queued_cost, queue.age_s) == (0, 0, 0.0)
        assert all(waiting == _Waiting() for waiting in queue._waiting.values()) and not queue._open
        assert len(queue._queue) <= 2
        started = time.monotonic()
        await queue.drain(30)
        assert time.monotonic() - started < 5
        return ends

    ends = asyncio.run(main())
    assert ends.count("answered") > 30
    assert {"CancelledError", "ExpiredError", "FailedError"} <= set(ends)
    # Those that fail are the poisoned and those beside them, never for want of memory.
    assert scorer.held == 0


class TestWorkerAndQueue:
    def test_what_comes_as_a_large_group_ends_is_not_forgotten(self, png):
        scorer = Stepping()

        async def main():
            queue = batcher(scorer, batch_cost=20)
            queue.start()
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(png(1),) * 8)], expires=soon())
            )
            while not scorer.order:
                await asyncio.sleep(0.01)
            scorer.steps.release(20)
            small = asyncio.ensure_future(
                queue.submit([Group(prompt="small", candidates=(png(1),) * 3)], expires=soon(5))
            )
            await asyncio.sleep(0)
            # The loop hears of nothing while the large one ends.
            while scorer.order[-1] != "large ends":
                time.sleep(0.01)
            time.sleep(0.1)
            await asyncio.gather(large, small)
            await queue.drain(5)

        asyncio.run(main())
        assert scorer.order[-1] == "small ends"

    def test_what_lacks_memory_beside_a_large_group_gets_it_after(self, png):
        scorer = Erratic(memory=9)

        async def main():
            queue = batcher(scorer, batch_cost=20)
            queue.start()
            large = asyncio.ensure_future(
                queue.submit([Group(prompt="large", candidates=(png(1),) * 8)], expires=soon())
            )
            while not scorer.held:
                await asyncio.sleep(0)
            small = await queue.submit([Group(prompt="small", candidates=(png(1),) * 3)], expires=soon())
            await large
            await queue.drain(5)
            return small

        assert asyncio.run(main()).matrices[0].valid.all()

    def test_a_group_beyond_the_memory_costs_its_request_nothing_else(self, png):
        scorer = Erratic(memory=5)

        async def main():
            queue = batcher(scorer)
            queue.start()
            sizes = (2, 6, 3)
            groups = [Group(prompt=f"{size}", candidates=tuple(map(png, range(size)))) for size in sizes]
            answer = await queue.submit(groups, expires=soon())
            await queue.drain(5)
            return groups, answer.matrices

        groups, (first, large, last) = asyncio.run(main())
        assert first.equals(scorer._inner.score(groups[:1])[0]) and last.equals(
            scorer._inner.score(groups[2:])[0]
        )
        assert large.errors == ("the group cannot be scored: no memory for 6 beside 0",) * 6

    def test_a_failing_scorer_teaches_nothing_of_its_speed(self, group):
        class Broken:
            def score(self, groups):
                raise ValueError("broken")

        async def main():
            queue = batcher(Broken())
            queue.start()
            with pytest.raises(FailedError):
                await queue.submit([group("a")], expires=soon())
            await queue.drain(5)
            return queue._cost_per_s

        assert asyncio.run(main()) is None

    def test_thousands_that_left_are_not_kept(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            first = asyncio.ensure_future(queue.submit([group("first")], expires=soon()))
            while not gated.calls:
                await asyncio.sleep(0.01)
            for _ in range(20):
                gone = [
                    asyncio.ensure_future(queue.submit([group("gone")], expires=soon())) for _ in range(50)
                ]
                await asyncio.sleep(0)
                for one in gone:
                    one.cancel()
                await asyncio.gather(*gone, return_exceptions=True)
            kept = len(queue._queue)
            gated.gate.set()
            await first
            await queue.drain(5)
            return kept

        assert asyncio.run(main()) < 100
        assert gated.calls == [["first"]]

    def test_a_scorer_that_is_let_go_is_free(self, png):
        scorer = Stepping()
        found, before = weakref.ref(scorer), set(threading.enumerate())

        async def main(scorer):
            queue = batcher(scorer)
            queue.start()
            await queue.drain(5)

        asyncio.run(main(scorer))
        # A drained queue tells its threads to end, and waits for none.
        for thread in set(threading.enumerate()) - before:
            thread.join(60)
        del scorer
        gc.collect()
        assert found() is None
