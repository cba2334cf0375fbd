"""Records to test with: one that is fixed but for its changes, and any that hypothesis draws."""

from dataclasses import replace

from hypothesis import strategies as st

from prefrm.records import Comparison, PreferenceGroup

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WEIGHTS = st.floats(0, 1e6, exclude_min=True)


@st.composite
def comparisons(draw, candidates):
    i, j = draw(st.permutations(candidates))[:2]
    return Comparison(i=i, j=j, p=draw(st.floats(0, 1)), weight=draw(WEIGHTS))


@st.composite
def groups(draw):
    images = draw(st.lists(st.none() | st.binary(max_size=8), min_size=2, max_size=5))
    present = [n for n, image in enumerate(images) if image is not None]
    size = len(images)
    return PreferenceGroup(
        id=draw(TEXT),
        prompt=draw(TEXT.filter(str.strip)),
        images=tuple(images),
        comparisons=tuple(draw(st.lists(comparisons(present), max_size=4))) if len(present) > 1 else (),
        quality=draw(st.none() | st.tuples(*[st.floats(allow_nan=False)] * size)),
        tags=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        texts=draw(st.none() | st.tuples(*[st.none() | TEXT] * size)),
    )


def pair(**changes):
    record = PreferenceGroup(
        id="r1", prompt="a cat", images=(b"x", b"y"), comparisons=(Comparison.preferred(1, 0),)
    )
    return replace(record, **changes)
