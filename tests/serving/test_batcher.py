"""The batcher by itself, and the guard in front of the scorer."""

import asyncio

import numpy as np
import pytest

from prefrm.media import ImageLimits
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.batcher import Batcher
from serving.errors import ExpiredError, FailedError, NotReadyError, OverloadedError
from serving.limits import GuardedScorer, Limits
from serving.stats import Stats


def batcher(scorer, **limits) -> Batcher:
    return Batcher(scorer, Limits(**limits), Stats())


class TestBatcher:
    def test_what_gathers_while_it_works_is_scored_together(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            first = asyncio.ensure_future(queue.submit([group("a")]))
            while not gated.calls:
                await asyncio.sleep(0.01)
            rest = [asyncio.ensure_future(queue.submit([group(p), group(p + p)])) for p in "bc"]
            await asyncio.sleep(0.05)
            gated.gate.set()
            answers = await asyncio.gather(first, *rest)
            await queue.drain(5)
            return answers

        answers = asyncio.run(main())
        assert gated.calls == [["a"], ["b", "bb", "c", "cc"]]
        for prompts, matrices in zip((["a"], ["b", "bb"], ["c", "cc"]), answers, strict=True):
            local = gated.score([group(p) for p in prompts])
            assert [m.equals(own) for m, own in zip(matrices, local, strict=True)] == [True] * len(prompts)

    def test_a_batch_is_bounded_and_requests_are_not_divided(self, gated, group):
        async def main():
            queue = batcher(gated, batch_groups=3)
            tasks = [
                asyncio.ensure_future(queue.submit([group(p)] * n)) for p, n in (("a", 2), ("b", 2), ("c", 5))
            ]
            await asyncio.sleep(0)
            gated.gate.set()
            queue.start()
            await asyncio.gather(*tasks)
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["a", "a"], ["b", "b"], ["c"] * 5]

    def test_cancelled_and_expired_requests_are_not_scored(self, gated, group):
        async def main():
            queue = batcher(gated)
            cancelled = asyncio.ensure_future(queue.submit([group("cancelled")]))
            expired = asyncio.ensure_future(queue.submit([group("expired")], timeout=0.01))
            alive = asyncio.ensure_future(queue.submit([group("alive")], timeout=60))
            await asyncio.sleep(0.05)
            cancelled.cancel()
            gated.gate.set()
            queue.start()
            assert len(await alive) == 1
            with pytest.raises(ExpiredError, match="waited longer"):
                await expired
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["alive"]]

    def test_a_cancelled_request_makes_room(self, gated, group):
        async def main():
            queue = batcher(gated, request_groups=1, queued_groups=1)
            first = asyncio.ensure_future(queue.submit([group("a")]))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="1 groups are waiting"):
                await queue.submit([group("b")])
            first.cancel()
            await asyncio.sleep(0)
            second = asyncio.ensure_future(queue.submit([group("c")]))
            gated.gate.set()
            queue.start()
            await second
            await queue.drain(5)

        asyncio.run(main())
        assert gated.calls == [["c"]]

    def test_waiting_bytes_are_bounded_too(self, gated):
        async def main():
            queue = batcher(gated, request_bytes=100, queued_bytes=100)
            first = asyncio.ensure_future(queue.submit([Group(prompt="a", images=(b"x" * 60, None))]))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await queue.submit([Group(prompt="b", images=(b"x" * 60, None))])
            await queue.drain(0)
            with pytest.raises(NotReadyError):
                await first

        asyncio.run(main())

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
                await queue.submit([group("a")])
            await queue.drain(5)

        asyncio.run(main())
        assert "scoring a batch of 1 groups failed" in caplog.text

    def test_draining_finishes_what_was_accepted_and_turns_away_the_rest(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            accepted = [asyncio.ensure_future(queue.submit([group(p)])) for p in "ab"]
            await asyncio.sleep(0.05)
            draining = asyncio.ensure_future(queue.drain(10))
            await asyncio.sleep(0)
            with pytest.raises(NotReadyError, match="stopping"):
                await queue.submit([group("late")])
            gated.gate.set()
            await draining
            return await asyncio.gather(*accepted)

        assert [len(matrices) for matrices in asyncio.run(main())] == [1, 1]

    def test_draining_gives_up_on_a_scorer_that_hangs(self, gated, group):
        async def main():
            queue = batcher(gated)
            queue.start()
            running = asyncio.ensure_future(queue.submit([group("a")]))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(queue.submit([group("b")]))
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

        guard = GuardedScorer(FakeScorer(utility), ImageLimits(max_bytes=500, max_pixels=30))
        small, large = png(1), png(1) + bytes(500)
        (matrix,) = guard.score([Group(prompt="p", images=(small, large, b"GIF89a", None, small))])
        assert seen == [small, small]
        assert matrix.errors[0] == matrix.errors[4] == ""
        assert "limit is 500" in matrix.errors[1]
        assert "no PNG" in matrix.errors[2]
        assert matrix.errors[3] == "the candidate is missing"
        np.testing.assert_array_equal(matrix.judged, [True, False, False, False, True])

    def test_pixels_are_counted_from_the_header(self, png):
        guard = GuardedScorer(FakeScorer(lambda p, i: 0.0), ImageLimits(max_pixels=29))
        (matrix,) = guard.score([Group(prompt="p", images=(png(1), png(2)))])
        assert "6 x 5 pixels; the limit is 29" in matrix.errors[0]
