"""What several groups share is kept until the last of them."""

from prefrm.engine.held import Held


def test_a_value_is_kept_until_its_last_use():
    held: Held[int] = Held(["a", "b", "a"])
    held.use("a", 1)
    held.use("b", 2)
    assert held.get("a") == 1 and held.get("b") is None and len(held) == 1
    held.use("a", 1)
    assert held.get("a") is None and not len(held)
