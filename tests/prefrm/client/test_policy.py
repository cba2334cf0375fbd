"""The policy of retries and replicas on a clock of its own: what is asked when, and when it gives up."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.client._policy import (
    FIRST_DELAY_S,
    IDENTITY_S,
    LONGEST_DELAY_S,
    LONGEST_PAUSE_S,
    LONGEST_REST_S,
    PAUSE_SPREAD,
    SHORTEST_ATTEMPT_S,
    Attempts,
    Call,
    Replicas,
    RetryPolicy,
    Turn,
)
from prefrm.errors import (
    ConfigError,
    DeadlineError,
    OverloadedError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)

SILENT, FULL = ServerUnavailableError("silent"), OverloadedError("full")


class World:
    """Time that passes only when told, and replicas named a, b, c, ..."""

    def __init__(
        self, count=1, *, deadline=60.0, unavailable_timeout=2.0, uniform=lambda low, high: high
    ) -> None:
        self.now = 100.0
        self.replicas = Replicas([chr(ord("a") + n) for n in range(count)], lambda: self.now, uniform)
        self.policy = RetryPolicy(deadline=deadline, unavailable_timeout=unavailable_timeout)

    def attempts(self, call=None) -> Attempts:
        return Attempts(call or self.call(), self.replicas)

    def call(self) -> Call:
        return Call(self.policy, lambda: self.now)

    def ask(self, attempts) -> tuple[float, Turn]:
        """Wait until there is a turn; the seconds waited, and the turn."""
        waited = 0.0
        while not isinstance(step := attempts.next(), Turn):
            assert step > 0
            self.now += step
            waited += step
        return waited, step

    def waits(self, attempts, error, pause=None) -> list[float]:
        """What is waited before each attempt, the first apart, until it gives up in an error of that type."""
        _, turn = self.ask(attempts)
        waited = []
        while True:
            attempts.failed(turn, error, pause)
            try:
                seconds, turn = self.ask(attempts)
            except type(error):
                return waited
            waited.append(seconds)


def test_delays_double_up_to_a_bound():
    world = World()
    waited = world.waits(world.attempts(), FULL)
    assert waited[:4] == pytest.approx([FIRST_DELAY_S * 2**n for n in range(4)])
    assert max(waited) == pytest.approx(LONGEST_DELAY_S)
    assert sum(waited) < 60


def test_silence_is_borne_for_its_timeout_and_a_full_server_until_the_deadline():
    world = World()
    assert 0 < sum(world.waits(world.attempts(), SILENT)) < 2
    world = World()
    assert 60 - LONGEST_DELAY_S <= sum(world.waits(world.attempts(), FULL)) < 60


def test_the_timeout_never_outlasts_the_deadline():
    world = World(deadline=1, unavailable_timeout=60)
    assert sum(world.waits(world.attempts(), SILENT)) < 1


def test_no_attempt_is_made_that_has_no_time_for_an_answer():
    # A second delay, of 0.2 s, would leave 10 ms.
    world = World(deadline=0.31)
    assert world.waits(world.attempts(), FULL) == pytest.approx([FIRST_DELAY_S])


def test_no_timeout_is_one_attempt_at_each_replica():
    for count in (1, 2, 5):
        world = World(count, unavailable_timeout=0)
        assert world.waits(world.attempts(), SILENT) == [0] * (count - 1)


def test_the_timeout_counts_from_the_first_failure_since_an_answer():
    world = World(deadline=100)
    attempts = world.attempts()
    for seconds, error in ((1.5, SILENT), (1.5, FULL), (1.9, SILENT)):
        _, turn = world.ask(attempts)
        attempts.failed(turn, error)
        world.now += seconds
    _, turn = world.ask(attempts)
    attempts.answered(turn)
    _, turn = world.ask(attempts)
    attempts.failed(turn, SILENT)
    assert world.ask(attempts)[0] > 0


@pytest.mark.parametrize("choose", [min, max])
def test_jitter_shortens_a_delay_by_half_at_most(choose):
    world = World(uniform=choose)
    expected = FIRST_DELAY_S * (0.5 if choose is min else 1)
    assert world.waits(world.attempts(), FULL)[0] == pytest.approx(expected)


def test_remaining_time_shrinks_and_then_is_an_error():
    world = World(deadline=3)
    call = world.call()
    world.now += 1
    assert call.left() == pytest.approx(2)
    world.now += 2
    with pytest.raises(DeadlineError, match="timeout of 3 s; raise it with deadline"):
        world.attempts(call).next()


def test_another_replica_is_asked_without_waiting():
    world = World(3)
    attempts = world.attempts()
    asked = []
    for error in (SILENT, FULL, SILENT):
        seconds, turn = world.ask(attempts)
        assert seconds == 0
        asked.append(turn.replica)
        attempts.failed(turn, error)
    assert sorted(asked) == [0, 1, 2]
    # Only now, with all three at rest, does it wait.
    assert world.ask(attempts)[0] == pytest.approx(FIRST_DELAY_S)


def test_replicas_take_turns_and_the_least_busy_comes_first():
    world = World(3)
    turns = [world.replicas.take() for _ in range(6)]
    assert [turn.replica for turn in turns] == [0, 1, 2, 0, 1, 2]
    for turn in (turns[1], turns[4], turns[2]):
        world.replicas.answered(turn)
    assert [world.replicas.take().replica for _ in range(3)] == [1, 2, 1]


def test_a_failed_replica_rests_longer_each_time_and_is_tried_again():
    world = World(2)
    rests = []
    for _ in range(12):
        attempts = world.attempts()
        while world.ask(attempts)[1].replica != 0:
            world.now += 0.01
        began = world.now
        world.replicas.set_back(Turn(replica=0, since=world.now, unknown=False), SILENT, None)
        while len(world.replicas.awake()) < 2:
            world.now += 0.01
        rests.append(world.now - began)
    assert rests == pytest.approx([min(LONGEST_REST_S, FIRST_DELAY_S * 2**n) for n in range(12)], abs=0.02)


def test_an_answer_ends_the_rest():
    world = World(unavailable_timeout=60)
    attempts = world.attempts()
    for _ in range(5):
        attempts.failed(world.ask(attempts)[1], SILENT)
        world.now += 0.2
    attempts.answered(world.ask(attempts)[1])
    assert world.replicas.errors() == []
    assert world.waits(world.attempts(), FULL)[0] == pytest.approx(FIRST_DELAY_S)


def test_requests_that_fail_together_are_one_failure():
    world = World(2)
    turns = [world.replicas.take() for _ in range(8)]
    world.now += 1
    for turn in turns:
        if turn.replica == 0:
            world.replicas.set_back(turn, SILENT, None)
            world.now += 0.001
    assert world.replicas._states[0].failures == 1


def test_a_later_call_asks_at_once_though_all_rest():
    world = World(unavailable_timeout=0)
    for _ in range(6):
        assert world.waits(world.attempts(), SILENT) == []
    seconds, _ = world.ask(world.attempts())
    assert seconds == 0


def test_the_pause_that_a_server_asks_for_is_kept_by_all_and_spread():
    for choose in (min, max):
        world = World(uniform=choose)
        waited = world.waits(world.attempts(), FULL, pause=7.0)
        assert waited[0] == pytest.approx(7.0 if choose is min else 7.0 * (1 + PAUSE_SPREAD))
        world = World(uniform=choose)
        first, other = world.attempts(), world.attempts()
        first.failed(world.ask(first)[1], FULL, 7.0)
        assert world.ask(other)[0] >= 7.0


def test_a_pause_beyond_the_deadline_is_given_up_at_once():
    world = World(deadline=10)
    assert world.waits(world.attempts(), FULL, pause=30) == []
    assert world.now == 100.0


def test_a_server_may_forbid_to_come_back():
    world = World(2)
    attempts = world.attempts()
    assert attempts.failed(world.ask(attempts)[1], FULL, -1.0) is FULL


def test_no_pause_lasts_for_ever():
    world = World()
    world.replicas.set_back(world.replicas.take(), FULL, float("inf"))
    hour = 3600.0
    assert hour == LONGEST_PAUSE_S
    world.now += hour * (1 + PAUSE_SPREAD)
    assert world.replicas.take() is not None


def test_an_answer_does_not_end_a_pause_that_was_asked_for_meanwhile():
    world = World()
    early, late = world.replicas.take(), world.replicas.take()
    world.now += 1
    world.replicas.set_back(late, FULL, 5.0)
    world.replicas.answered(early)
    assert world.replicas.take() is None
    assert world.replicas.take(resting=True) is None
    assert [str(error) for error in world.replicas.errors()] == ["full"]


def test_giving_up_names_each_replica_and_what_it_said():
    world = World(2, unavailable_timeout=0)
    attempts = world.attempts()
    attempts.failed(world.ask(attempts)[1], ServerUnavailableError("a is gone"))
    attempts.failed(world.ask(attempts)[1], ServerUnavailableError("b is gone"))
    with pytest.raises(ServerUnavailableError, match="none of 2 replicas could answer: a is gone; b is gone"):
        attempts.next()
    world = World(2, deadline=0.1)
    attempts = world.attempts()
    attempts.failed(world.ask(attempts)[1], SILENT)
    attempts.failed(world.ask(attempts)[1], FULL)
    with pytest.raises(OverloadedError, match="silent; full"):
        attempts.next()


def test_who_does_not_answer_in_time_rests_and_the_others_are_quoted():
    world = World(2, deadline=0.09)
    attempts = world.attempts()
    attempts.failed(world.ask(attempts)[1], FULL)
    _, turn = world.ask(attempts)
    world.now += 0.08
    error = str(attempts.failed(turn, DeadlineError("b is late")))
    assert error.startswith("b is late (before that: full); raise it with deadline")
    assert len(world.replicas.awake()) == 0


def test_all_that_gave_up_is_a_deadline_and_a_mixture_is_not():
    late = DeadlineError("late")
    for errors, kind in (([late, late], DeadlineError), ([late, SILENT], ServerUnavailableError)):
        world = World(2, unavailable_timeout=0)
        attempts = world.attempts()
        for error in errors:
            assert attempts.failed(world.ask(attempts)[1], error) is None
        with pytest.raises(kind, match=f"none of 2 replicas could answer: {errors[0]}; {errors[1]}"):
            attempts.next()


def test_who_was_waited_for_in_vain_rests_as_long_as_that():
    world = World(2)
    attempts = world.attempts()
    _, turn = world.ask(attempts)
    world.now += 12
    attempts.failed(turn, DeadlineError("late"))
    world.now += 11.9
    assert len(world.replicas.awake()) == 1
    world.now += 0.2
    assert len(world.replicas.awake()) == 2


def test_a_replica_says_who_it_is_first_and_after_each_loss_and_a_while():
    world = World(2)
    first, second = world.replicas.take(), world.replicas.take()
    assert first.unknown and second.unknown
    world.replicas.identify(first, "x")
    world.replicas.identify(second, "x")
    assert not world.replicas.take().unknown
    world.replicas.set_back(second, SILENT, None)
    world.now += 1
    turn = world.replicas.take()
    assert (turn.replica, turn.unknown) == (1, True)
    world.now += IDENTITY_S
    assert all(world.replicas.take().unknown for _ in range(2))
    with pytest.raises(ConfigError, match="different judges: a serves x, b serves y"):
        world.replicas.identify(turn, "y")
    with pytest.raises(ConfigError, match="a now serves a judge without a name, but served x before"):
        world.replicas.identify(first, None)


OUTCOMES = st.tuples(
    st.sampled_from(["answer", "silent", "full", "refused"]),
    st.floats(0, 3),
    st.one_of(st.none(), st.floats(0, 4)),
)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 4),
    deadline=st.floats(0.1, 20),
    unavailable_timeout=st.floats(0, 20),
    script=st.lists(OUTCOMES, min_size=60, max_size=60),
    seed=st.integers(0, 9),
)
def test_whatever_replicas_do_no_request_outlives_its_deadline_or_asks_who_wants_to_be_left(
    count, deadline, unavailable_timeout, script, seed
):
    world = World(
        count, deadline=deadline, unavailable_timeout=unavailable_timeout, uniform=random.Random(seed).uniform
    )
    barred: dict[int, float] = {}
    outcomes = iter(script)
    for _ in range(3):
        call, started = world.call(), world.now
        attempts = world.attempts(call)
        while True:
            try:
                step = attempts.next()
            except ScoringError as error:
                assert isinstance(error, (DeadlineError, ServerUnavailableError, OverloadedError))
                break
            if not isinstance(step, Turn):
                # A wait leaves time for another attempt.
                assert step >= 0 and world.now + step < started + deadline - SHORTEST_ATTEMPT_S + 1e-9
                world.now += step + 1e-9
                continue
            assert barred.get(step.replica, 0) <= world.now
            assert world.now < started + deadline
            outcome, seconds, pause = next(outcomes, ("refused", 0.0, None))
            world.now += min(seconds, call.left())
            if outcome == "answer":
                attempts.answered(step)
                break
            if outcome == "refused":
                assert attempts.failed(step, RequestError("no")) is not None
                break
            attempts.failed(step, SILENT if outcome == "silent" else FULL, pause)
            if pause is not None:
                barred[step.replica] = world.now + pause
        assert all(one.busy == 0 for one in world.replicas._states)


def test_a_fleet_that_is_told_the_same_pause_comes_back_spread_out():
    draw = random.Random(0)
    waited = []
    for _ in range(500):
        world = World(uniform=draw.uniform)
        attempts = world.attempts()
        attempts.failed(world.ask(attempts)[1], FULL, 4.0)
        waited.append(world.ask(attempts)[0])
    assert min(waited) >= 4.0
    tenths = [sum(4 + 0.2 * n <= seconds < 4.2 + 0.2 * n for seconds in waited) for n in range(10)]
    assert max(tenths) < 100
