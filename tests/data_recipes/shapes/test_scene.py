import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_recipes.shapes.scene import COLORS, GRID, MAX_SHAPES, SHAPES, ProgramError, Scene, Shape
from prefrm.errors import DataError

cells = st.integers(0, GRID - 1)
shapes = st.builds(Shape, kind=st.sampled_from(SHAPES), color=st.sampled_from(COLORS), x=cells, y=cells)
scenes = st.lists(shapes, min_size=1, max_size=MAX_SHAPES, unique_by=lambda s: (s.x, s.y)).map(
    lambda drawn: Scene(shapes=tuple(drawn))
)
program_words = st.sampled_from([*COLORS, *SHAPES, *map(str, range(6)), ";", "\n", "-1", "²"])


def test_a_program_reads_as_documented() -> None:
    scene = Scene(
        shapes=(Shape(color="red", kind="circle", x=1, y=2), Shape(color="blue", kind="square", x=3, y=0))
    )
    assert scene.program() == "red circle 1 2 ; blue square 3 0"
    assert Scene.parse("red circle 1 2;blue\tsquare 3   0\n") == scene


@given(scenes)
def test_parse_is_the_inverse_of_program(scene: Scene) -> None:
    program = scene.program()
    assert Scene.parse(program) == scene
    assert program == " ".join(program.split())


@given(scenes)
def test_reading_order_moves_no_shape(scene: Scene) -> None:
    ordered = scene.in_reading_order()
    assert set(ordered.shapes) == set(scene.shapes)
    cells = [shape.y * GRID + shape.x for shape in ordered.shapes]
    assert cells == sorted(cells)


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("", "the program is empty"),
        ("  \n", "the program is empty"),
        ("red circle 1", "shape 1 is truncated: 'red circle 1'"),
        ("red circle 1 2 ;", "shape 2 is truncated"),
        ("red circle 1 2 ; blue", "shape 2 is truncated: 'blue'"),
        ("red circle 1 2 blue square 0 0", "shape 1 has 8 words, not 4"),
        ("pink circle 1 2", "unknown color 'pink'"),
        ("red blob 1 2", "unknown kind 'blob'"),
        ("circle red 1 2", "unknown kind 'red'"),
        ("red circle 4 0", "red circle at 4 0 is off the canvas"),
        ("red circle -1 0", "'-1' is not a valid column or row"),
        ("red circle 1_0 0", "'1_0' is not a valid column or row"),
        ("red circle ² 0", "'²' is not a valid column or row"),
        ("red circle 0 " + "9" * 10_000, "9...' is not a valid column or row"),
        ("red circle 0 0 ; blue star 0 0", "blue star overlaps red circle; both are at 0 0"),
        (" ; ".join(f"red star {n % 4} {n // 4}" for n in range(6)), "too many shapes: 6"),
    ],
)
def test_a_wrong_program_is_refused_with_the_reason(program: str, complaint: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Scene.parse(program)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, DataError)


@given(st.one_of(st.text(), st.lists(program_words, max_size=24).map(" ".join)))
@example("red circle 1 2")
def test_any_text_is_a_scene_or_an_error_of_ours(text: str) -> None:
    try:
        scene = Scene.parse(text)
    except ProgramError:
        return
    assert Scene.parse(scene.program()) == scene
