"""Scorer files, and what a name of a scorer opens."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from prefrm.errors import ConfigError
from prefrm.scorers import (
    ScorerFile,
    Source,
    is_chat,
    is_scorer_file,
    is_url,
    open_scorer,
    read_scorer_file,
    sources,
    write_calibrated,
    write_scorer_file,
)
from prefrm.winmatrix import CalibrationRecord, FakeScorer, Group, TemperatureScaling

CHAT = "chat+http://host:8000/v1?model=NAME"


class Named(FakeScorer):
    def __init__(self, url):
        super().__init__(lambda prompt, image: len(image) * float(url.rpartition("/")[2]))
        self.url = url

    def identity(self):
        return self.url


@contextmanager
def connect(url, *, token="shared"):
    scorer = Named(url)
    scorer.token = token
    yield scorer


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("runs/judge/bundle", (False, False, False)),
        ("hf://org/name", (False, False, False)),
        (Path("hf://org/name.yaml"), (False, False, False)),
        ("grpc://host:1/judge", (True, False, False)),
        (CHAT, (True, True, False)),
        ("ensemble.yaml", (False, False, True)),
        (Path("a/b.yml"), (False, False, True)),
    ],
)
def test_a_name_says_what_it_is(target, kind):
    assert (is_url(target), is_chat(target), is_scorer_file(target)) == kind


def test_a_scorer_file_survives_being_written(tmp_path):
    file = ScorerFile(
        scorers=(Source(scorer="a", weight=2.0), Source(scorer="hf://org/name")),
        combine="uncertainty",
        penalty=0.5,
        calibration=CalibrationRecord.of(TemperatureScaling(temperature=0.5), split="v", pairs=3),
    )
    write_scorer_file(file, tmp_path / "s.yaml")
    assert read_scorer_file(tmp_path / "s.yaml") == file
    plain = ScorerFile(scorers=(Source(scorer="a"),))
    write_scorer_file(plain, tmp_path / "s.yaml")
    assert read_scorer_file(tmp_path / "s.yaml") == plain
    assert (tmp_path / "s.yaml").read_text() == "scorers:\n- scorer: a\n"


@pytest.mark.parametrize(
    "text",
    [
        "# Ours.\nscorers:  # two\n- scorer: a\n- {scorer: b, weight: 2}  # doubled\n",
        "calibration: {name: temperature, parameters: {temperature: 9}}\n# Ours.\nscorers: [{scorer: a}]\n",
        "scorers: [{scorer: a}]\ncalibration:\n  name: power\n  parameters:\n    temperature: 2\n"
        "    power: 1\n# Ours.\npenalty: 2.0\n",
        "{scorers: [{scorer: a}], combine: vote}\n",
    ],
)
def test_another_calibration_leaves_the_rest_of_a_file_as_it_is(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    record = CalibrationRecord.of(TemperatureScaling(temperature=0.5), split="v", pairs=3)
    write_calibrated(tmp_path / "s.yaml", record, tmp_path / "out.yaml")
    before, after = (read_scorer_file(tmp_path / name) for name in ("s.yaml", "out.yaml"))
    assert after == replace(before, calibration=record)
    assert ("# Ours." in text) == ("# Ours." in (tmp_path / "out.yaml").read_text())
    write_calibrated(tmp_path / "out.yaml", record, tmp_path / "s.yaml")
    assert (tmp_path / "s.yaml").read_text() == (tmp_path / "out.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorers: []", "scorers is empty; name at least one"),
        ("combine: mean", "missing key scorers"),
        ("scorers: [{scorer: a}, {scorer: a}]", "scorers has a twice"),
        ("scorers: [{scorer: a, criterion: c}, {scorer: a, criterion: c}]", "scorers has a by 'c' twice"),
        ("scorers: [{scorer: a}]\nmargin: 1", "margin must be in"),
        ("scorers: [{scorer: ' '}]", "scorer is empty"),
        ("scorers: [{scorer: a, weight: 0}]", "weight must be positive and finite; received 0"),
        ("scorers: [{scorer: a}]\ncombine: median", "combine must be one of mean, vote, worst, uncertainty"),
        ("scorers: [{scorer: a}]\npenalty: -1", "penalty must be at least 0"),
        ("scorers: [{scorer: a}]\ncalibration: {name: odd, parameters: {}}", "calibration must be one of"),
        ("judges: [a]", "unknown key judges"),
        ("scorers: [{scorer: 'http://a/1', token_env: HF_TOKEN}]", "token_env must be PREFRM_TOKEN or"),
        ("scorers: [{scorer: a, token_env: PREFRM_TOKEN}]", "token_env is for a URL; a is none"),
    ],
)
def test_a_wrong_scorer_file_is_refused_by_field(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_scorer_file(tmp_path / "s.yaml")


def test_files_may_name_files_and_not_themselves(tmp_path):
    inner, outer = tmp_path / "inner.yaml", tmp_path / "outer.yaml"
    write_scorer_file(ScorerFile(scorers=(Source(scorer="a"), Source(scorer=CHAT))), inner)
    write_scorer_file(ScorerFile(scorers=(Source(scorer=str(inner)), Source(scorer="b"))), outer)
    assert sources(outer, None, "c") == ["a", CHAT, "b", "c"]
    write_scorer_file(ScorerFile(scorers=(Source(scorer=str(outer)),)), inner)
    with pytest.raises(ConfigError, match="leads to itself"):
        sources(outer)


def test_an_ensemble_is_opened_from_its_file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "scorers:\n- scorer: http://a/1\n  weight: 3\n- scorer: http://b/-1\n"
        "calibration:\n  name: temperature\n  parameters: {temperature: 0.5}\n"
    )
    group = Group(prompt="p", candidates=(b"xxx", b"x"))
    with open_scorer(path, connect=connect) as scorer:
        (matrix,) = scorer.score([group])
        identity = scorer.identity()
    (expected,) = FakeScorer(lambda prompt, image: len(image) / 2 / 0.5).score([group])
    assert matrix.p[0, 1] == pytest.approx(expected.p[0, 1], abs=1e-6)
    assert "http://a/1 x 3" in identity and "temperature" in identity
    with open_scorer(path, connect=connect, calibrated=False) as scorer:
        (plain,) = scorer.score([group])
    assert plain.calibrated(TemperatureScaling(temperature=0.5)).equals(matrix)


def test_a_judge_by_several_criteria_is_opened_once(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "combine: lexicographic\nmargin: 0.2\nscorers:\n"
        "- {scorer: http://a/1, criterion: alignment}\n- {scorer: http://a/1, criterion: aesthetics}\n"
    )
    assert sources(path) == ["http://a/1"]
    with open_scorer(path, connect=connect) as scorer:
        alignment, aesthetics = scorer.members
        assert scorer.combination.margin == 0.2
    assert alignment.scorer is aesthetics.scorer and aesthetics.criterion == "aesthetics"


def tokens(path):
    with open_scorer(path, connect=connect) as scorer:
        return [member.scorer.token for member in scorer.members]


def test_each_url_of_a_file_gets_its_own_token_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "s.yaml"
    named = Source(scorer="http://a/1", token_env="PREFRM_TOKEN_A")
    write_scorer_file(ScorerFile(scorers=(named, Source(scorer="http://b/1"))), path)
    monkeypatch.delenv("PREFRM_TOKEN_A", raising=False)
    with pytest.raises(ConfigError, match="token_env of http://a/1: the variable PREFRM_TOKEN_A is not set"):
        tokens(path)
    monkeypatch.setenv("PREFRM_TOKEN_A", "of a")
    assert tokens(path) == ["of a", None]
    write_scorer_file(ScorerFile(scorers=(Source(scorer="http://a/1"), Source(scorer="http://b/1"))), path)
    assert tokens(path) == [None, None]
    # A file around one URL is that URL.
    write_scorer_file(ScorerFile(scorers=(Source(scorer="http://a/1"),)), path)
    assert tokens(path) == ["shared"]
    write_scorer_file(ScorerFile(scorers=(named,)), path)
    assert tokens(path) == ["of a"]
