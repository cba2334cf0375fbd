"""Values that several groups share are kept until their last use."""

from prefrm.engine.refcounted import RefCounted


def test_a_value_is_kept_until_its_last_use():
    values: RefCounted[int] = RefCounted(["a", "b", "a"])
    values.use("a", 1)
    values.use("b", 2)
    assert values.get("a") == 1 and values.get("b") is None and len(values) == 1
    values.use("a", 1)
    assert values.get("a") is None and not len(values)
