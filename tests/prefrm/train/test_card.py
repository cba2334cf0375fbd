from pathlib import Path

from prefrm.eval import evaluate
from prefrm.judge import JudgeSpec
from prefrm.records import Comparison, PreferenceGroup
from prefrm.train import DataConfig, TrainConfig
from prefrm.train.card import model_card
from prefrm.winmatrix import FakeScorer

CONFIG = TrainConfig(
    output=Path("run"), judge=JudgeSpec(base_model="some/model"), data=DataConfig(path=Path("data"))
)


def test_a_card_without_results_says_so() -> None:
    card = model_card(CONFIG, None, None)
    assert "not calibrated" in card
    assert "not evaluated" in card
    assert "plots/" not in card


def test_where_there_is_no_number_there_is_none() -> None:
    group = PreferenceGroup(
        id="a", prompt="p", images=(b"x", b"y"), comparisons=(Comparison.tie(0, 1),), tags={"skill": "size"}
    )
    card = model_card(CONFIG, None, evaluate(FakeScorer(lambda prompt, image: 0.0), [group]))
    assert "| pair accuracy | - |" in card
    assert "| pair accuracy, skill size | - |" in card
    assert "nan" not in card


def test_plots_are_shown_by_what_they_are_called() -> None:
    card = model_card(CONFIG, None, None, plots=["order_gap.png"])
    assert "![order gap](plots/order_gap.png)" in card
