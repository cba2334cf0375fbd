import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from prefrm.eval import evaluate
from prefrm.judge import JudgeSpec
from prefrm.records import Comparison, DatasetInfo, PreferenceGroup, write_info
from prefrm.train import DataConfig, MixConfig, OptimConfig, TrainConfig
from prefrm.train.card import model_card
from prefrm.train.datasets import read_sources
from prefrm.winmatrix import FakeScorer

CONFIG = TrainConfig(
    output=Path("run"), judge=JudgeSpec(base_model="some/model"), data=DataConfig(path=Path("data"))
)


def test_a_card_without_results_says_so() -> None:
    card = model_card(CONFIG, None, None, steps=200)
    assert "not calibrated" in card
    assert "not evaluated" in card
    assert "plots/" not in card


def test_where_there_is_no_number_there_is_none() -> None:
    group = PreferenceGroup(
        id="a",
        prompt="p",
        candidates=(b"x", b"y"),
        comparisons=(Comparison.tie(0, 1),),
        tags={"skill": "size"},
    )
    card = model_card(CONFIG, None, evaluate(FakeScorer(lambda prompt, image: 0.0), [group]), steps=200)
    card = re.sub(" +", " ", card)
    assert "| pair accuracy | - |" in card
    assert "| pair accuracy, skill size | - |" in card
    assert "nan" not in card


def test_plots_are_shown_by_what_they_are_called() -> None:
    card = model_card(CONFIG, None, None, steps=200, plots=["order_gap.png"])
    assert "![order gap](plots/order_gap.png)" in card


@pytest.mark.parametrize(
    ("pairs", "steps", "processes", "trained"),
    [
        (None, 50, 1, "50 steps of 24 groups with all their comparisons, seed"),
        (2, 50, 4, "50 steps of 96 groups with at most 2 comparisons of each, seed"),
        (None, 30, 2, "30 steps (stopped early, of 50) of 48 groups with all their comparisons, seed"),
    ],
    ids=["all comparisons", "a sample, processes", "early stopping"],
)
def test_what_a_step_was_is_said_as_it_was(
    pairs: int | None, steps: int, processes: int, trained: str
) -> None:
    optim = OptimConfig(steps=50, batch_size=8, accumulation=3, pairs_per_group=pairs)
    card = model_card(replace(CONFIG, optim=optim), None, None, steps=steps, processes=processes)
    assert any(line.startswith(f"- trained: LoRA, rank 16, {trained} ") for line in card.splitlines())


@pytest.mark.parametrize(
    ("fields", "head"),
    [({}, "head verdict, attention late, template"), ({"head": "scalar"}, "head scalar, template")],
)
def test_the_attention_is_that_of_a_verdict(fields: dict[str, str], head: str) -> None:
    card = model_card(
        replace(CONFIG, judge=JudgeSpec(base_model="some/model", **fields)), None, None, steps=200
    )
    assert any(line.startswith(f"- {head} ") for line in card.splitlines())


def test_the_hub_reads_the_metadata() -> None:
    card = ModelCard(model_card(replace(CONFIG, license="apache-2.0"), None, None, steps=200))
    card.data.to_yaml()
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "some/model"
    assert card.data.library_name == "prefrm"
    assert card.data.pipeline_tag == "image-text-to-text"
    assert {"prefrm", "preference-judge", "verdict"} <= set(card.data.tags)
    assert card.text.lstrip().startswith("# A preference judge")


def test_a_card_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    base = tmp_path / "my-base"
    base.mkdir()
    spec = replace(CONFIG.judge, base_model=str(base))
    config = replace(CONFIG, judge=spec, output=tmp_path / "run", data=DataConfig(path=tmp_path / "data"))
    card = model_card(config, None, None, steps=200)
    assert "- base model: a local folder, `my-base`" in card
    assert str(tmp_path) not in card
    metadata = ModelCard(card).data
    assert metadata.base_model is None and metadata.license is None


def test_the_sources_of_the_data_and_their_licences(tmp_path: Path) -> None:
    """Published data with a licence, the Hub's without one, one of a person, and a folder of no recipe."""
    infos = {
        "a": {
            "recipe": "hpdv3",
            "source": "https://huggingface.co/datasets/MizzenAI/HPDv3",
            "licence": "MIT",
        },
        "b": {"recipe": "table", "options": {"source": "hf://org/name"}},
        "c": {"recipe": "pairs", "options": {"source": "/home/me/pairs.csv"}},
    }
    for name, fields in infos.items():
        (tmp_path / name).mkdir()
        write_info(tmp_path / name, DatasetInfo(**({"options": {}, "fingerprints": {}} | fields)))
    first, *others = (tmp_path / name for name in "abca")
    mix = tuple(MixConfig(path=path) for path in (*others, tmp_path / "d"))
    sources = read_sources(DataConfig(path=first, mix=mix))
    card = model_card(CONFIG, None, None, steps=200, sources=sources)
    assert [line for line in card.splitlines() if line.startswith("- learned from")] == [
        "- learned from: https://huggingface.co/datasets/MizzenAI/HPDv3 (recipe `hpdv3`); licence: MIT",
        "- learned from: hf://org/name (recipe `table`); licence unknown",
        "- learned from: data of the recipe `pairs`",
    ]
    assert ModelCard(card).data.datasets == ["MizzenAI/HPDv3", "org/name"]
