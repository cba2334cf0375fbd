from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from prefrm.config import (
    Bounded,
    Count,
    NonNegative,
    Positive,
    Share,
    check_bounds,
    flatten,
    from_mapping,
    load_config,
    to_mapping,
)
from prefrm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    steps: int = 10

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, received {self.lr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    name: str
    kind: Literal["a", "b"] = "a"
    out: Path = Path("runs")
    tags: tuple[str, ...] = ()
    limit: int | None = None
    one_or_more: str | tuple[str, ...] = "none"
    fast: bool = False
    optim: Optim = field(default_factory=Optim)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_yaml_becomes_the_dataclass(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nout: here\ntags: [p, q]\nlimit: 3\noptim: {lr: 1e-4}\n")
    config = load_config(Config, path)
    assert config == Config(name="x", out=Path("here"), tags=("p", "q"), limit=3, optim=Optim(lr=1e-4))


def test_one_name_or_a_list_of_names(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\none_or_more: a\n")
    assert load_config(Config, path).one_or_more == "a"
    assert load_config(Config, path, ["one_or_more=[a, b]"]).one_or_more == ("a", "b")
    with pytest.raises(ConfigError, match="one_or_more must be text, received 3"):
        load_config(Config, path, ["one_or_more=3"])
    with pytest.raises(ConfigError, match=r"one_or_more\[0\] must be text, received 3"):
        load_config(Config, path, ["one_or_more=[3]"])


def test_overrides_win_and_are_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nlimit: 3\n")
    config = load_config(Config, path, ["optim.lr=0.5", "limit=null", "tags=[z]", "fast=true", "name=a=b"])
    assert config == Config(name="a=b", tags=("z",), fast=True, optim=Optim(lr=0.5))


def test_a_section_set_to_null_comes_back_with_a_key(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\noptim: {steps: 3}\n")
    config = load_config(Config, path, ["optim=null", "optim.lr=0.5"])
    assert config.optim == Optim(lr=0.5, steps=10)


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "nmae: x\nkind: c\nlimit: many\noptim: {lr: -1, momentum: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Config, path)
    for part in (
        "nmae",
        "missing key name",
        "kind must be one of a, b",
        "limit",
        "optim.momentum",
        str(path),
    ):
        assert part in str(caught.value)


def test_a_dataclass_may_refuse_its_own_values() -> None:
    with pytest.raises(ConfigError, match="optim: lr must be positive, received -1"):
        from_mapping(Config, {"name": "x", "optim": {"lr": -1}})


@pytest.mark.parametrize("value", [True, 1.5, "3", [3]])
def test_whole_numbers_are_not_guessed(value: object) -> None:
    with pytest.raises(ConfigError, match=r"optim\.steps must be a whole number"):
        from_mapping(Config, {"name": "x", "optim": {"steps": value}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "key=value"),
        ("=3", "key=value"),
        ("name.first=x", "a value, not a section"),
        ("name=[", "YAML"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Config, write(tmp_path, "name: x"), [override])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(Config, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="no valid YAML"):
        load_config(Config, write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="must hold keys"):
        load_config(Config, write(tmp_path, "- a\n- b"))


def test_round_trip() -> None:
    config = Config(name="x", tags=("p",), optim=Optim(lr=2.0))
    assert from_mapping(Config, to_mapping(config)) == config


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound(Bounded):
    rate: Positive = 1.0
    count: Count = 1
    share: Share | None = None
    margin: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Even(Bounded):
    weight: NonNegative = 0.0
    count: Count = 2

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.count % 2:
            raise ConfigError(f"count must be even; received {self.count}")


def test_numbers_are_held_within_the_bounds_of_their_annotations() -> None:
    Bound(rate=1e-300, count=10**9, share=0.0, margin=-(10.0**300))
    Bound(share=1.0)
    for settings, message in (
        ({"rate": 0.0}, "rate must be positive and finite; received 0.0"),
        ({"rate": float("inf")}, "rate must be positive and finite"),
        ({"rate": float("nan")}, "rate must be positive and finite"),
        ({"count": 0}, "count must be at least 1; received 0"),
        ({"share": 1.01}, r"share must be in \[0, 1\]; received 1.01"),
    ):
        with pytest.raises(ConfigError, match=message):
            Bound(**settings)
    with pytest.raises(ConfigError, match="optim: rate must be"):
        from_mapping(Outer, {"optim": {"rate": -1}})


def test_a_class_may_check_more_than_its_bounds() -> None:
    with pytest.raises(ConfigError, match="weight must be at least 0"):
        Even(weight=-0.1)
    with pytest.raises(ConfigError, match="count must be even"):
        Even(count=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    optim: Bound


def test_sections_are_flattened_to_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}
