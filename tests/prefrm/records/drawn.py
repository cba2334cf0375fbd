"""Records to test with: one that is fixed but for its changes, and any that hypothesis draws."""

from dataclasses import replace

from hypothesis import strategies as st

from prefrm.records import Comparison, PreferenceGroup

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MP4 = b"\0\0\0\x18ftypmp42"  # how a video starts
WEIGHTS = st.floats(0, 1e6, exclude_min=True)


@st.composite
def comparisons(draw, candidates):
    i, j = draw(st.permutations(candidates))[:2]
    return Comparison(i=i, j=j, p=draw(st.floats(0, 1)), weight=draw(WEIGHTS))


@st.composite
def groups(draw):
    content = draw(st.sampled_from([st.binary(max_size=8), st.binary(max_size=8).map(MP4.__add__), TEXT]))
    candidates = draw(st.lists(st.none() | content, min_size=2, max_size=5))
    present = [n for n, candidate in enumerate(candidates) if candidate]
    size = len(candidates)
    return PreferenceGroup(
        id=draw(TEXT),
        prompt=draw(TEXT.filter(str.strip)),
        candidates=tuple(candidates),
        comparisons=tuple(draw(st.lists(comparisons(present), max_size=4))) if len(present) > 1 else (),
        context=tuple(draw(st.lists(st.binary(min_size=1, max_size=8), max_size=2))),
        criterion=draw(TEXT),
        quality=draw(st.none() | st.tuples(*[st.floats(allow_nan=False)] * size)),
        tags=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        completions=draw(st.none() | st.tuples(*[st.none() | TEXT] * size)),
    )


def pair(**changes):
    record = PreferenceGroup(
        id="r1", prompt="a cat", candidates=(b"x", b"y"), comparisons=(Comparison.preferred(1, 0),)
    )
    return replace(record, **changes)
