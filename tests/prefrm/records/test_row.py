from prefrm.records import Comparison, fingerprint
from tests.prefrm.records.drawn import MP4, pair


def test_every_field_counts_in_the_fingerprint():
    record = pair()
    variants = [
        record,
        pair(id="r2"),
        pair(prompt="a dog"),
        pair(candidates=(b"x", b"z")),
        pair(candidates=(b"x", b"y", None)),
        pair(candidates=(b"x", b"y", b"")),
        pair(comparisons=(Comparison.preferred(0, 1),)),
        pair(comparisons=()),
        pair(quality=(0.0, 1.0)),
        pair(tags={"skill": "counting"}),
        pair(completions=("a", None)),
        pair(context=(b"x",)),
        pair(criterion="colour"),
        pair(candidates=("x", "y")),
        pair(candidates=(MP4, b"y")),
    ]
    assert len({fingerprint([variant]) for variant in variants}) == len(variants)


def test_order_counts_in_the_fingerprint_and_the_order_of_tags_does_not():
    a, b = pair(id="a"), pair(id="b")
    assert fingerprint([a, b]) != fingerprint([b, a])
    assert fingerprint([pair(tags={"a": "1", "b": "2"})]) == fingerprint([pair(tags={"b": "2", "a": "1"})])
