"""URLs, the retry policy on a clock of its own, and what importing the client costs."""

import subprocess
import sys

import pytest

from prefrm.client import connect, connect_async
from prefrm.client._endpoint import Endpoint
from prefrm.client._retry import FIRST_DELAY_S, LONGEST_DELAY_S, Attempts, RetryPolicy
from prefrm.errors import ConfigError, DeadlineError, OverloadedError, ServerUnavailableError


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("grpc://gpu-7:9001/judge", "grpc://gpu-7:9001/judge"),
        ("http://127.0.0.1:9000/judge/", "http://127.0.0.1:9000/judge"),
        ("grpc://gpu-7/judge", "grpc://gpu-7:8001/judge"),
        ("http://gpu-7/judge", "http://gpu-7:8000/judge"),
        ("grpc://[::1]:9001/a.b-c", "grpc://[::1]:9001/a.b-c"),
    ],
)
def test_urls(url, read):
    assert connect(url).url == connect_async(url).url == read
    assert read in repr(connect(url))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "the scheme is ''"),
        ("127.0.0.1:8001", "scheme"),
        ("ftp://host/judge", "the scheme is 'ftp'"),
        ("grpc:///judge", "no host"),
        ("grpc://host:8001", "the name of one model"),
        ("grpc://host:8001/a/b", "the name of one model"),
        ("grpc://host:port/judge", "[Pp]ort"),
        ("grpc://host:99999/judge", "[Pp]ort"),
        ("grpc://host:0/judge", "port 0"),
        ("grpc://user@host/judge", "mean nothing"),
        ("http://host/judge?x=1", "mean nothing"),
    ],
)
def test_what_is_no_address_of_a_judge_says_how_to_write_one(url, reason):
    for make in (connect, connect_async):
        with pytest.raises(ConfigError, match=reason) as caught:
            make(url)
        assert "write grpc://host:port/model" in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"deadline": 0}, {"deadline": float("nan")}, {"deadline": float("inf")}, {"patience": -1}]
)
def test_a_policy_out_of_range_is_a_mistake(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        connect("grpc://host/judge", **options)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *[
            ("127.0.0.1", True),
            ("127.8.0.1", True),
            ("[::1]", True),
            ("localhost", True),
            ("LOCALHOST", True),
            ("localhost.", True),
            ("0.0.0.0", True),
            ("[::]", True),
            ("[::ffff:127.0.0.1]", True),
            ("[::ffff:0.0.0.0]", True),
        ],
        *[("gpu-7", False), ("10.0.0.7", False), ("[2001:db8::1]", False), ("localhost.example", False)],
        *[("gpu-7.", False), ("[::ffff:10.0.0.7]", False), ("0.0.0.1", False)],
    ],
)
def test_which_hosts_are_this_machine(host, here):
    assert Endpoint.parse(f"grpc://{host}/judge").is_loopback is here


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def attempts(self, *, deadline: float, patience: float) -> Attempts:
        policy = RetryPolicy(deadline=deadline, patience=patience)
        return Attempts(policy, clock=self, uniform=lambda low, high: high)


def delays(attempts: Attempts, clock: Clock, error) -> list[float]:
    """What is waited before each attempt until the error is raised after all."""
    waited = []
    while True:
        try:
            waited.append(attempts.delay_after(error))
        except type(error) as raised:
            assert raised is error
            return waited
        clock.now += waited[-1]


def test_delays_double_up_to_a_bound():
    clock = Clock()
    waited = delays(clock.attempts(deadline=60, patience=60), clock, OverloadedError("full"))
    assert waited[:4] == pytest.approx([FIRST_DELAY_S * 2**n for n in range(4)])
    assert max(waited) == LONGEST_DELAY_S
    assert sum(waited) < 60


def test_silence_is_borne_for_the_patience_and_a_full_server_until_the_deadline():
    clock = Clock()
    assert 0 < sum(delays(clock.attempts(deadline=60, patience=2), clock, ServerUnavailableError("x"))) < 2
    waited = sum(delays(clock.attempts(deadline=60, patience=2), clock, OverloadedError("full")))
    assert 60 - LONGEST_DELAY_S <= waited < 60


def test_patience_never_outlasts_the_deadline():
    clock = Clock()
    assert sum(delays(clock.attempts(deadline=1, patience=60), clock, ServerUnavailableError("x"))) < 1


def test_no_attempt_is_made_that_has_no_time_for_an_answer():
    clock = Clock()
    # A second delay, of 0.2 s, would leave 10 ms.
    waited = delays(clock.attempts(deadline=0.31, patience=9), clock, OverloadedError("full"))
    assert waited == pytest.approx([FIRST_DELAY_S])


def test_no_patience_is_one_attempt():
    clock = Clock()
    assert delays(clock.attempts(deadline=9, patience=0), clock, ServerUnavailableError("x")) == []


def test_patience_counts_from_the_first_failure_since_an_answer():
    clock = Clock()
    attempts = clock.attempts(deadline=100, patience=2)
    attempts.delay_after(ServerUnavailableError("x"))
    clock.now += 1.5
    # An answer that says "full" is an answer.
    assert attempts.delay_after(OverloadedError("full")) > 0
    clock.now += 1.5
    assert attempts.delay_after(ServerUnavailableError("x")) > 0
    clock.now += 1.9
    attempts.answered()
    assert attempts.delay_after(ServerUnavailableError("x")) == pytest.approx(FIRST_DELAY_S)


def test_jitter_shortens_a_delay_by_half_at_most():
    seen = []
    for choose in (min, max):
        policy = RetryPolicy(deadline=60, patience=60)
        attempts = Attempts(policy, clock=lambda: 0.0, uniform=lambda a, b, choose=choose: choose(a, b))
        seen.append(attempts.delay_after(OverloadedError("full")))
    assert seen == pytest.approx([FIRST_DELAY_S / 2, FIRST_DELAY_S])


def test_remaining_time_shrinks_and_then_is_an_error():
    clock = Clock()
    attempts = clock.attempts(deadline=3, patience=1)
    clock.now += 1
    assert attempts.remaining() == pytest.approx(2)
    clock.now += 2
    with pytest.raises(DeadlineError, match="deadline of 3 s"):
        attempts.remaining()


IMPORT = """
import sys, time
started = time.perf_counter()
import prefrm.client
seconds = time.perf_counter() - started
prefrm.client.connect("grpc://127.0.0.1:8001/judge").close()
heavy = {"torch", "transformers", "fastapi", "pyarrow", "scipy", "matplotlib", "datasets", "serving"}
print(seconds, *sorted(heavy & set(sys.modules)))
"""


def test_importing_the_client_is_quick_and_loads_nothing_heavy():
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
        taken, *heavy = done.stdout.split()
        assert heavy == []
        seconds.append(float(taken))
    # The quickest of three, for the machine may be busy.
    assert min(seconds) < 0.5
