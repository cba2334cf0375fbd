"""The example of README.md, done as it says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from data_recipes.commands import app
from prefrm.config import load_config

pytest.importorskip("torch")

from prefrm.train.config import TrainConfig
from prefrm.train.datasets import survey_data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_rows_that_it_shows_can_be_built_and_trained_on(tmp_path):
    rows = README[README.index("prompt,image_1") :].partition("```")[0]
    (tmp_path / "img").mkdir()
    for n, name in enumerate(re.findall(r"img/[\w.]+", rows)):
        Image.new("RGB", (8, 8), (40 * n, 0, 0)).save(tmp_path / name)
    (tmp_path / "pairs.csv").write_text(rows, encoding="utf-8")
    build, train = re.findall(r"^prefrm (?:data build|train) .*=(?:0|null) ?.*$", README, re.MULTILINE)
    out = tmp_path / "built"
    words = build.replace("pairs.csv", str(tmp_path / "pairs.csv")).replace("data/pairs", str(out)).split()
    assert CliRunner().invoke(app, words[2:]).stdout == f"{out}: 2 train groups\n"
    config = load_config(TrainConfig, ROOT / train.split()[2], train.split()[4::2])
    (survey,) = survey_data(replace(config.data, path=out), tmp_path / "cache").values()
    assert (survey.groups, config.evaluation) == (2, None)
