"""The judges of the study of reward hacking: trained once on few and noisy labels, and opened by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from prefrm.bench.hacking_cases import JUDGES, REWARDS, SECOND, RewardCase, Study
from prefrm.bench.kept import build_once, keep, kept, make_room
from prefrm.bench.training import ADAPTER, LR, spec_of, training_asked
from prefrm.bundle import load_bundle
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.records import read_groups
from prefrm.rewards import REWARDS as REWARD_FUNCTIONS
from prefrm.scorers import Ensemble, Member
from prefrm.train import DataConfig, OptimConfig, TrainConfig, run
from prefrm.winmatrix import CalibrationMap, Doubles, Group, IdentifiedScorer, Scorer, WinMatrix, score_all

__all__ = ["CALIBRATED", "JudgeRow", "LastAnswer", "judge_asked", "likeness", "open_judges", "train_judges"]

CALIBRATED = " (calibrated)"
"""Ends the name of a scorer whose judges' calibrations are applied, whatever the reward has."""
LIKENESS_GROUPS = 40
# Further forms of rewards, with which no policy is trained: scorers and functions of their win matrices.
FORMS = {
    "scalar win rate calibrated": ("scalar win rate" + CALIBRATED, "win_rate"),
    "scalar hard win rate": ("scalar win rate", "hard_win_rate"),
    "verdict hard win rate": ("verdict win rate", "hard_win_rate"),
}
CASES: Mapping[str, RewardCase] = {reward.name: reward for reward in REWARDS} | {
    SECOND: RewardCase(name=SECOND, judges=(SECOND,))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRow:
    """What a judge is worth: accuracy over strict pairs of held-out groups with clean labels.

    Attributes:
        name: in `JUDGES`.
        accuracy: `low` and `high` are its 95% interval.
        calibration: its map in words; "" where none was fitted.
    """

    name: str
    accuracy: float
    low: float
    high: float
    calibration: str


class LastAnswer:
    """A scorer that remembers its last call: evaluations ask the same groups under several calibrations."""

    def __init__(self, scorer: IdentifiedScorer) -> None:
        self._scorer = scorer
        self._groups: list[Group] = []
        self._matrices: list[WinMatrix] = []

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order."""
        if list(groups) != self._groups:
            self._matrices, self._groups = score_all(self._scorer, groups), list(groups)
        return self._matrices

    def identity(self) -> str:
        """That of the scorer."""
        return self._scorer.identity()


def train_judges(study: Study, runs: Path) -> list[JudgeRow]:
    """Build their data, train those that are not there yet, and return what each is worth."""
    for labels in {case.labels for case in JUDGES.values()}:
        train, validation, test = study.groups
        sizes = {"train": train, "validation": validation, "test": test, "flip": study.flip}
        build_once(_data(runs, labels), "shapes", seed=labels, **sizes)
    return [_trained(name, study, runs) for name in JUDGES]


def judge_asked(name: str, study: Study, runs: Path) -> dict[str, Any]:
    """What a judge's bundle is of; whatever it scored is of the same."""
    data = {"groups": list(study.groups), "flip": study.flip, "labels": JUDGES[name].labels}
    return training_asked(_config(name, study, runs)) | data


def open_judges(runs: Path) -> Callable[[str], AbstractContextManager[Scorer]]:
    """Opens the scorers of the study by name: those of `REWARDS`, and any of them with `CALIBRATED`.

    The second judge is one, too. For `prefrm.flow.run.run`; each judge is loaded once.
    """

    @cache
    def judge(name: str) -> tuple[Member, CalibrationMap | None]:
        bundle = load_bundle(_folder(runs, name) / "bundle", "cpu", "auto")
        recorded = bundle.manifest.calibration
        calibration = None if recorded is None else recorded.map
        return Member(name=name, scorer=LastAnswer(Engine(bundle.judge))), calibration

    def member(name: str, calibrated: bool) -> Member:
        plain, calibration = judge(name)
        return replace(plain, scorer=Ensemble([plain], calibration=calibration)) if calibrated else plain

    @contextmanager
    def open_scorer(name: str) -> Iterator[Scorer]:
        plain = name.removesuffix(CALIBRATED)
        if plain not in CASES:
            raise ConfigError(f"a scorer of the study is one of {', '.join(CASES)}; received {name!r}")
        case = CASES[plain]
        yield Ensemble([member(judge, case.calibrated or plain != name) for judge in case.judges])

    return open_scorer


def likeness(study: Study, runs: Path) -> dict[str, float]:
    """How alike each reward, and each of `FORMS`, is to the first one: mean correlation within test groups.

    Advantages are rewards normalized in the group, so two rewards with the correlation 1 train the same.
    """
    groups = [
        Group(prompt=group.prompt, candidates=group.candidates)
        for group in islice(read_groups(_data(runs, 0), "test"), LIKENESS_GROUPS)
    ]
    forms = {case.name: (case.name, case.reward) for case in study.rewards} | FORMS
    opened, found = open_judges(runs), dict[str, Doubles]()
    for form, (name, reward) in forms.items():
        with opened(name) as scorer:
            rewards = [REWARD_FUNCTIONS[reward](matrix) for matrix in scorer.score(groups)]
        found[form] = np.stack(rewards).astype(np.float64)
    first = next(iter(found.values()))
    return {name: _correlation(rewards, first) for name, rewards in found.items()}


def _correlation(one_GK: Doubles, other_GK: Doubles) -> float:
    """Mean of Pearson's correlation over groups in which not all are equal."""
    one, other = (r - r.mean(axis=1, keepdims=True) for r in (one_GK, other_GK))
    norm = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(axis=1)[norm > 0] / norm[norm > 0]))


def _trained(name: str, study: Study, runs: Path) -> JudgeRow:
    folder, asked = _folder(runs, name), judge_asked(name, study, runs)
    if (found := kept(folder, asked)) is not None:
        return JudgeRow(**found)
    make_room(folder, asked, spent="bundle")
    result = run(_config(name, study, runs), resume=True)
    accuracy, calibration = result.held_out.metrics.accuracy, result.calibration
    row = JudgeRow(
        name=name,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        calibration="" if calibration is None else calibration.map.describe(),
    )
    keep(folder, asdict(row))
    return row


def _config(name: str, study: Study, runs: Path) -> TrainConfig:
    case = JUDGES[name]
    return TrainConfig(
        output=_folder(runs, name),
        judge=spec_of(case.kind),
        data=DataConfig(path=_data(runs, case.labels)),
        adapter=ADAPTER,
        optim=OptimConfig(steps=study.judge_steps, batch_size=study.judge_batch, lr=LR),
        device="cpu",
        seed=case.seed,
    )


def _folder(runs: Path, name: str) -> Path:
    return runs / "judges" / name


def _data(runs: Path, labels: int) -> Path:
    return runs / "data" / f"labels{labels}"
