import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from data_recipes.contact_sheet import contact_sheet
from prefrm.records import Comparison, PreferenceGroup
from tests.data_recipes.sources import video
from tests.data_recipes.test_inspection import BROKEN, FULL, SMALL


def pixels(sheet: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def words(sheet: Figure) -> list[str]:
    return [text.get_text() for text in sheet.texts]


def test_every_candidate_is_shown_with_what_is_known_of_it() -> None:
    sheet = contact_sheet([FULL, BROKEN])
    # Two 8 x 8 tiles in FULL, one in BROKEN, and one of 300 x 100: all red, with a grey edge.
    red = (pixels(sheet) == (255, 0, 0)).all(axis=-1).sum()
    assert red == pytest.approx(3 * 190 * 190 + 190 * 64, rel=0.02)
    assert words(sheet) == [
        "a red square",
        "full",
        "wins 0.50  quality 1.00",
        "wins 0.25  quality 0.50",
        "wins 0.75  quality 0.50",
        "a blue square",
        "broken",
        "unreadable",
        "not compared",
        "not compared",
        "missing",
        "not compared",
    ]


def test_a_long_prompt_is_two_lines_within_the_sheet() -> None:
    sheet = contact_sheet([replace(FULL, prompt="two\n  words and  spaces " * 30)])
    pixels(sheet)
    first, second, name = sheet.texts[:3]
    assert first.get_text().startswith("two words and  spaces two words")
    assert second.get_text().endswith("…") and name.get_text() == "full"
    for text in sheet.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= sheet.bbox.x1 and box.y0 >= 0 and box.y1 <= sheet.bbox.y1


def test_of_a_large_group_the_first_candidates_are_shown() -> None:
    large = replace(BROKEN, candidates=(SMALL,) * 65)
    sheet = contact_sheet([large])
    assert words(sheet)[1] == "broken, the first 12 of 65 candidates"
    assert words(sheet).count("not compared") == 12
    assert pixels(sheet).shape[1] < 12 * 210


def test_videos_texts_contexts_and_criteria_are_shown() -> None:
    answers = PreferenceGroup(
        id="answers",
        prompt="What is it?",
        candidates=("A red square. " * 40, "Nothing."),
        comparisons=(Comparison(i=0, j=1, p=0.0),),
        context=(SMALL, SMALL, SMALL),
        criterion="helpfulness",
    )
    clips = replace(answers, id="clips", candidates=(video("a"), video("a")[:99]), context=(), criterion="")
    sheet = contact_sheet([answers, clips])
    # Two red 8 x 8 images of the context.
    assert (pixels(sheet) == (255, 0, 0)).all(axis=-1).sum() == pytest.approx(2 * 190 * 190, rel=0.02)
    shown = words(sheet)
    assert shown[:4] == [
        "What is it?",
        "answers, by helpfulness, the first 2 of 3 context images",
        "context",
        "context",
    ]
    # Of the long text, seven lines, the last with an ellipsis.
    assert [line.startswith("A red square.") for line in shown[4:5]] == [True]
    assert shown[10].endswith("…") and shown[11] == "wins 0.00"
    assert shown[12:14] == ["Nothing.", "wins 1.00"]
    assert shown[14:] == ["What is it?", "clips", "wins 0.00", "unreadable", "wins 1.00"]
    pixels(sheet)
