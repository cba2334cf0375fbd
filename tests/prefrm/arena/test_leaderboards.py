"""Published tables, and which numbers may stand beside them."""

from dataclasses import replace

import pytest

from prefrm.arena.checked import macro_mean, scoring_of
from prefrm.arena.leaderboards import LEADERBOARDS, ArenaRun, why_not_beside

RUN = ArenaRun(
    prompts="unigenbench-en",
    count=600,
    checks=1813,
    images=4,
    missing=0,
    judge="chat model=gemini-2.5-pro, server openai, checklist 12, attempts 10",
    own_words=True,
)
ROWS = [
    (model, row, board.models[model])
    for board in LEADERBOARDS.values()
    for model, row in board.dimensions.items()
]


@pytest.mark.parametrize(("model", "row", "overall"), ROWS, ids=[model for model, _, _ in ROWS])
def test_the_mean_of_a_published_row_is_its_overall_number(model, row, overall):
    assert len(row) == 10
    assert macro_mean(row.values()) == pytest.approx(overall, abs=0.0051)


def test_the_ten_dimensions_of_flux_1_dev_give_60_97():
    row = LEADERBOARDS["unigenbench-en"].dimensions["FLUX.1-dev"]
    assert row["Style"] == 85.00 and row["Logical Reasoning"] == 29.77
    assert round(macro_mean(row.values()), 2) == 60.97


@pytest.mark.parametrize("name", [name for name, board in LEADERBOARDS.items() if board.score])
def test_a_leaderboard_s_score_is_one_of_its_prompt_set(name):
    assert LEADERBOARDS[name].score in {one.title for one in scoring_of(name)}


def test_a_number_by_the_same_judge_question_prompts_and_images_may_stand_there():
    assert why_not_beside(RUN) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"count": 20}, "20 with 1813 were used"),
        ({"checks": 1800}, "600 prompts with 1813 checks"),
        ({"images": 1}, "4 images of each prompt; 1 were used"),
        ({"missing": 3}, "3 images are missing"),
        (
            {"judge": "chat model=qwen3-vl, server vllm, checklist 12, attempts 10"},
            "its judge is Gemini 2.5 Pro",
        ),
        ({"judge": RUN.judge.replace("2.5-pro", "2.5-pro-lite")}, "its judge is Gemini 2.5 Pro"),
        ({"own_words": False}, "in its own words"),
        ({"judge": "chat model=gemini-2.5-pro, each check"}, "all checks of an image at once"),
        ({"trained": 3}, "trained on 3 of the prompts"),
        ({"prompts": "text"}, "no leaderboard of text"),
    ],
)
def test_what_differs_is_named(changed, why):
    (found,) = why_not_beside(replace(RUN, **changed))
    assert why in found


@pytest.mark.parametrize("name", ["geneval", "geneval2", "dpg-bench", "t2i-compbench"])
def test_no_number_stands_beside_a_leaderboard_that_measures_otherwise(name):
    board = LEADERBOARDS[name]
    run = replace(RUN, prompts=name, count=board.prompts, images=board.images)
    assert why_not_beside(run) == [board.why]
