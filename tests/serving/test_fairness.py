"""Whose turn it is, by the arithmetic of self-clocked fair queueing."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from serving.queueing.fairness import FairQueue


class Flow:
    def __init__(self, name: str, costs: list[int]) -> None:
        self.name = name
        self.costs = deque(costs)

    def next_cost(self) -> int | None:
        return self.costs[0] if self.costs else None


def served(queue: FairQueue, most: int = 10**6) -> list[tuple[str, int]]:
    order = []
    while len(order) < most and (flow := queue.first()) is not None:
        order.append((flow.name, flow.costs.popleft()))
        queue.advance()
    return order


def filled(**flows: list[int]) -> FairQueue:
    queue: FairQueue = FairQueue(Flow.next_cost)
    for name, costs in flows.items():
        queue.add(Flow(name, costs))
    return queue


def test_flows_of_equal_items_take_turns():
    names = [name for name, _ in served(filled(a=[2, 2, 2], b=[2, 2, 2], c=[2]))]
    assert names == ["a", "b", "c", "a", "b", "a", "b"]


def test_one_that_comes_later_starts_from_now():
    queue = filled(a=[5] * 100)
    served(queue, 50)
    queue.add(Flow("b", [5, 5]))
    assert [name for name, _ in served(queue, 5)] == ["a", "b", "a", "b", "a"]


def test_one_that_nobody_wants_any_more_is_dropped():
    gone = Flow("gone", [1, 1])
    queue: FairQueue = FairQueue(Flow.next_cost)
    queue.add(gone)
    queue.add(Flow("b", [9]))
    gone.costs.clear()
    assert served(queue) == [("b", 9)]
    assert queue.first() is None


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=20), min_size=2, max_size=6))
def test_nobody_gets_much_more_than_another_while_both_wait(costs):
    """Two flows that both have items never got more apart than two of the largest items."""
    flows = [Flow(str(n), own) for n, own in enumerate(costs)]
    queue: FairQueue = FairQueue(Flow.next_cost)
    for flow in flows:
        queue.add(flow)
    largest = max(map(max, costs))
    got = dict.fromkeys(map(str, range(len(costs))), 0)
    total = 0
    while (flow := queue.first()) is not None:
        cost = flow.costs.popleft()
        got[flow.name] += cost
        total += cost
        queue.advance()
        waiting = [got[other.name] for other in flows if other.costs]
        if len(waiting) > 1:
            assert max(waiting) - min(waiting) <= 2 * largest
    assert total == sum(map(sum, costs))
