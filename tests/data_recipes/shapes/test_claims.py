import pytest

from data_recipes.shapes.claims import Before, Claim, Count, Exists, Noun, Only, Within, seen_in
from data_recipes.shapes.scene import Scene

RED_CIRCLE, CIRCLE, SQUARE = Noun(kind="circle", color="red"), Noun(kind="circle"), Noun(kind="square")

# The red circle is in column 1, row 0; the blue circle in column 1, row 3; the black square in 2, 3.
SEEN = seen_in(Scene.parse("red circle 1 0 ; blue circle 1 3 ; black square 2 3"))


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Exists(noun=RED_CIRCLE), True),
        (Exists(noun=CIRCLE), True),
        (Exists(noun=Noun(kind="square", color="red")), False),
        (Exists(noun=Noun(kind="star")), False),
        (Count(noun=CIRCLE, n=2), True),
        (Count(noun=CIRCLE, n=1), False),
        (Count(noun=RED_CIRCLE, n=1), True),
        (Only(n=3), True),
        (Only(n=2), False),
        (Before(first=CIRCLE, second=SQUARE, axis="x"), True),
        (Before(first=SQUARE, second=CIRCLE, axis="x"), False),
        (Before(first=RED_CIRCLE, second=SQUARE, axis="y"), True),
        # Side by side is not above, and one column is not left of itself.
        (Before(first=Noun(kind="circle", color="blue"), second=SQUARE, axis="y"), False),
        (Before(first=RED_CIRCLE, second=Noun(kind="circle", color="blue"), axis="x"), False),
        (Before(first=CIRCLE, second=Noun(kind="star"), axis="x"), False),
        (Within(noun=RED_CIRCLE, axis="x", low=True), True),
        (Within(noun=RED_CIRCLE, axis="y", low=False), False),
        (Within(noun=SQUARE, axis="x", low=False), True),
        (Within(noun=SQUARE, axis="y", low=True), False),
    ],
)
def test_a_claim_holds_or_not(claim: Claim, holds: bool) -> None:
    assert claim.holds(SEEN) is holds


def test_nothing_seen_supports_nothing_but_emptiness() -> None:
    assert not Exists(noun=CIRCLE).holds(())
    assert not Before(first=CIRCLE, second=SQUARE, axis="x").holds(())
    assert Only(n=0).holds(())
