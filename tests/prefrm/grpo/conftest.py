"""A scorer whose utilities are written on the images, and which remembers what it was asked."""

import asyncio

import pytest

from prefrm.winmatrix import FakeScorer, Group


class RecordingScorer(FakeScorer):
    """The image b"1.5" has utility 1.5; what is no number cannot be judged."""

    def __init__(self, **options):
        super().__init__(lambda prompt, image: float(image), **options)
        self.groups: list[Group] = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)


class AsyncRecordingScorer(RecordingScorer):
    async def score(self, groups):
        await asyncio.sleep(0)
        return super().score(groups)


@pytest.fixture
def scorer():
    return RecordingScorer(first_bonus=0.5)


@pytest.fixture
def async_scorer():
    return AsyncRecordingScorer(first_bonus=0.5)
