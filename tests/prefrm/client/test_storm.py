"""Two servers that are killed and started again, one after the other, while clients of each kind ask them."""

import asyncio
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefrm.client import connect, connect_async
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.client.test_remote_scorers import WAYS, agree
from tests.prefrm.grpo.served import servers, utility

KILLS = 6
LOCAL = FakeScorer(utility, first_bonus=0.25)


@pytest.fixture
def killed_again_and_again(tmp_path):
    """The two servers, and an event that is set after so many kills."""
    over = threading.Event()
    with servers(tmp_path, "one", "other") as pair:
        for server in pair:
            server.start()

        def storm():
            try:
                for server in itertools.islice(itertools.cycle(pair), KILLS):
                    time.sleep(0.3)
                    server.kill()
                    server.start()
            finally:
                over.set()

        thread = threading.Thread(target=storm)
        thread.start()
        yield pair, over
        thread.join()


@pytest.mark.slow
def test_every_call_of_every_kind_of_client_gets_its_right_answer(killed_again_and_again, png):
    pair, over = killed_again_and_again
    images = [png(n, 6, 6) for n in range(50)]

    def groups(draw):
        return [
            Group(
                prompt="p" * draw.randint(1, 9), candidates=tuple(draw.choices(images, k=draw.randint(2, 5)))
            )
            for _ in range(draw.randint(1, 40))
        ]

    def ask_until_the_end(way):
        wire, draw, answered = way.split()[0], random.Random(way), 0
        url = f"{wire}://{','.join(server.url(wire).split('/')[2] for server in pair)}/judge"

        async def asynchronously():
            count = 0
            async with connect_async(url, unavailable_timeout=60) as judge:
                while not over.is_set():
                    asked = groups(draw)
                    assert agree(await judge.score(asked), LOCAL.score(asked))
                    count += 1
            return count

        if way.endswith("async"):
            return asyncio.run(asynchronously())
        with connect(url, unavailable_timeout=60) as judge:
            while not over.is_set():
                asked = groups(draw)
                assert agree(judge.score(asked), LOCAL.score(asked))
                answered += 1
        return answered

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(ask_until_the_end, WAYS))
    assert over.is_set() and min(counts) > 0
