"""A GRPO run whose judge's server is killed in the middle of a request ends with the same weights."""

import threading
import time

import pytest

from prefrm.client import connect
from prefrm.grpo import PreferenceReward
from tests.prefrm.grpo import tiny
from tests.prefrm.grpo.served import servers

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
# The trainer calls what its own dependencies have deprecated.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

STEPS = 5
AWAY_S = 1.0


def to_image(completion, **columns):
    from PIL import Image

    worth = sum(ord(letter) * (n + 1) for n, letter in enumerate(completion))
    return Image.new("RGB", (8, 8), (worth % 256, worth // 256 % 256, len(completion)))


class Timed:
    """A scorer, and the seconds that each call took."""

    def __init__(self, inner):
        self._inner, self.seconds = inner, []

    def score(self, groups):
        started = time.monotonic()
        matrices = self._inner.score(groups)
        self.seconds.append(time.monotonic() - started)
        return matrices


def train(url, folder, **options):
    """The weights before and after, and the seconds of each call of the judge."""
    rows = [{"prompt": text} for text in ("a cat", "a dog", "a cow", "a fox")]
    with connect(url, **options) as judge:
        scorer = Timed(judge)
        run = tiny.trainer(
            [PreferenceReward(scorer, to_image)], folder, rows, max_steps=STEPS, learning_rate=1e-2
        )
        before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
        run.train()
    assert len(scorer.seconds) == STEPS
    return before, run.model.state_dict(), scorer.seconds


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with servers(folder, "only") as (only,):
        only.start()
        before, after, _ = train(only.url("grpc"), folder)
    # The judge's answers moved it, so that another answer would have moved it elsewhere.
    assert not same(before, after)
    return after


def same(weights, others):
    assert weights.keys() == others.keys()
    return all(torch.equal(weight, others[name]) for name, weight in weights.items())


class TestKilled:
    """On one wire each: that the policy is that of both, the tests of the client show."""

    @pytest.mark.parametrize("wire", ["grpc"])
    def test_a_server_that_comes_back_on_its_port(self, undisturbed, tmp_path, wire):
        with servers(tmp_path, "only") as (only,):
            only.start(hang_at=3)

            def kill_and_restart():
                only.kill_when_it_hangs()
                time.sleep(AWAY_S)
                only.start()

            keeper = threading.Thread(target=kill_and_restart)
            keeper.start()
            _, after, seconds = train(only.url(wire), tmp_path, unavailable_timeout=60)
            keeper.join()
        assert same(after, undisturbed)
        # The step in the middle of which it was killed waited for it.
        assert max(seconds) == seconds[2] > AWAY_S

    @pytest.mark.parametrize("wire", ["http"])
    def test_of_two_replicas_one_goes_for_good_and_nobody_waits(self, undisturbed, tmp_path, wire):
        with servers(tmp_path, "first", "second") as (first, second):
            first.start(hang_at=3)
            second.start()
            keeper = threading.Thread(target=first.kill_when_it_hangs)
            keeper.start()
            url = f"{first.url(wire).removesuffix('/judge')},{second.url(wire).partition('://')[2]}"
            # Without time to wait, a request that had to wait would be an error.
            _, after, seconds = train(url, tmp_path, unavailable_timeout=0)
            keeper.join()
            assert first.process.poll() is not None
        assert same(after, undisturbed)
        assert max(seconds) < 5

    @pytest.mark.slow
    @pytest.mark.parametrize("wire", ["grpc"])
    def test_a_replica_that_falls_silent_is_left_alone(self, undisturbed, tmp_path, wire, monkeypatch):
        """As a machine without power does: its connections stay open, and nothing comes."""
        monkeypatch.setattr("prefrm.client._core.LOOK_EVERY_S", 0.3)
        monkeypatch.setattr("prefrm.client._core.LOOK_S", 0.5)
        with servers(tmp_path, "first", "second") as (first, second):
            first.start(hang_at=3)
            second.start()
            keeper = threading.Thread(target=first.freeze_when_it_hangs)
            keeper.start()
            url = f"{first.url(wire).removesuffix('/judge')},{second.url(wire).partition('://')[2]}"
            _, after, seconds = train(url, tmp_path, unavailable_timeout=0)
            keeper.join()
        assert same(after, undisturbed)
        assert max(seconds) < 5
