"""Scorer files: a YAML that combines scorers into an ensemble, or gives one a calibration.

    combine: mean            # mean, vote, worst, uncertainty or lexicographic
    scorers:
      - scorer: judges/hpsv3
        weight: 2
      - scorer: grpc://gpu-7:8001/judge
        token_env: PREFRM_TOKEN_GPU7
    calibration:             # written by `prefrm calibrate`
      name: temperature
      parameters: {temperature: 0.41}
      split: validation
      pairs: 1234

One judge may be there several times, each time with another `criterion:`. A path counts from the working
directory, as in every configuration of prefrm.
"""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from prefrm.config import Bounded, NonNegative, Positive, check_bounds, from_mapping, load_config, to_mapping
from prefrm.errors import ConfigError
from prefrm.files import write_whole
from prefrm.rewards import Combination, Combine
from prefrm.winmatrix import CalibrationRecord

__all__ = ["ScorerFile", "Source", "read_scorer_file", "write_calibrated", "write_scorer_file"]

SECTION = re.compile(r"^calibration:.*?(?=^[^\s]|\Z)", re.DOTALL | re.MULTILINE)
"""A calibration at the top level, to the next line that is not indented."""

TOKEN_NAME = re.compile("PREFRM_TOKEN(_[A-Z0-9_]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Bounded):
    """A scorer of a file, as `prefrm.scorers.open_scorer` takes it, its positive weight and its criterion.

    An empty criterion shows each group as it is.

    `token_env` is the environment variable with the token for a URL. Its name starts with PREFRM_TOKEN, so
    that a file from elsewhere cannot send another secret to its author.
    """

    scorer: str
    weight: Positive = 1.0
    criterion: str = ""
    token_env: str | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.scorer.strip():
            raise ConfigError("scorer is empty; name a bundle, a URL or another scorer file")
        if self.token_env is None:
            return
        if not TOKEN_NAME.fullmatch(self.token_env):
            raise ConfigError(
                "token_env must be PREFRM_TOKEN or PREFRM_TOKEN_NAME, in capitals; "
                f"received {self.token_env!r}"
            )
        if "://" not in self.scorer:
            raise ConfigError(f"token_env is for a URL; {self.scorer} is none")

    @property
    def name(self) -> str:
        """The scorer, with its criterion."""
        return f"{self.scorer} by {self.criterion!r}" if self.criterion else self.scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerFile(Bounded):
    """The content of a scorer file.

    Attributes:
        scorers: at least one, each once with one criterion.
        combine: how their matrices become one (`prefrm.rewards.Combination`).
        penalty: standard deviations that `combine: uncertainty` takes off.
        margin: of `combine: lexicographic`, in [0, 1): the first scorer whose |2 p - 1| exceeds it decides.
        calibration: of the combined log-odds; None leaves them as they are.
    """

    scorers: tuple[Source, ...]
    combine: Combine = "mean"
    penalty: NonNegative = 1.0
    margin: NonNegative = 0.0
    calibration: CalibrationRecord | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        names = [one.name for one in self.scorers]
        if not names:
            raise ConfigError("scorers is empty; name at least one")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"scorers has {twice[0]} twice; give it a weight instead")
        Combination(rule=self.combine, penalty=self.penalty, margin=self.margin)

    def describe(self) -> str:
        """One line for a terminal or a log."""
        names = ", ".join(one.name for one in self.scorers)
        state = "" if self.calibration is None else f", calibrated ({self.calibration.describe()})"
        return f"{names if len(self.scorers) == 1 else f'{self.combine} of {names}'}{state}"


def read_scorer_file(path: Path | str) -> ScorerFile:
    """Read a scorer file. Raises `ConfigError` that names each wrong field."""
    return load_config(ScorerFile, Path(path))


def write_scorer_file(file: ScorerFile, path: Path | str) -> None:
    """Write a scorer file, which `read_scorer_file` reads back."""
    tree = _given(file) | {"scorers": [_given(one) for one in file.scorers]}
    write_whole(Path(path), yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def write_calibrated(source: Path | str, calibration: CalibrationRecord, path: Path | str) -> None:
    """Write a scorer file with another calibration; its other lines, comments included, stay as they are.

    Raises:
        ConfigError: `source` is not a scorer file.
    """
    wanted = replace(read_scorer_file(source), calibration=calibration)
    kept = SECTION.sub("", Path(source).read_text(encoding="utf-8")).rstrip("\n")
    section = yaml.safe_dump({"calibration": _given(calibration)}, sort_keys=False, allow_unicode=True)
    text = f"{kept}\n{section}"
    if _says(text, wanted):
        write_whole(Path(path), text)
    else:
        # YAML in another layout, such as one of braces.
        write_scorer_file(wanted, path)


def _says(text: str, wanted: ScorerFile) -> bool:
    try:
        return from_mapping(ScorerFile, yaml.safe_load(text)) == wanted
    except (yaml.YAMLError, ConfigError):
        return False


def _given(config: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain data."""
    plain = to_mapping(config)
    return {one.name: plain[one.name] for one in fields(config) if getattr(config, one.name) != one.default}
