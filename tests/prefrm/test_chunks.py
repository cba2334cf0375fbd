import pytest

from prefrm.chunks import chunks
from prefrm.errors import ConfigError


def test_runs_are_drawn_as_they_are_needed():
    items = iter(range(5))
    runs = chunks(items, 2)
    assert next(runs) == [0, 1]
    assert next(items) == 2
    assert list(runs) == [[3, 4]]
    assert list(chunks([], 2)) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size):
    with pytest.raises(ConfigError, match=f"at least 1 item; received {size}"):
        list(chunks([1], size))
