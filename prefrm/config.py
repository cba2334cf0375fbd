"""Settings: a YAML file and `a.b=c` overrides become a dataclass; every mistake is reported at once.

Bounds of numbers stand in the annotations of a dataclass that derives from `Bounded`. Configuration is data.
Nothing in it is executed, and nothing but this module's callers sees it: the classes that do the work take
plain arguments.
"""

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from prefrm.errors import ConfigError

__all__ = [
    "Bounded",
    "Bounds",
    "Count",
    "Natural",
    "NonNegative",
    "Positive",
    "Share",
    "check_bounds",
    "flatten",
    "from_mapping",
    "from_overrides",
    "load_config",
    "to_mapping",
]

T = TypeVar("T")


class Bounds(typing.NamedTuple):
    """Bounds of a number, both included, in an annotation; `text` completes "must be"."""

    low: float
    high: float
    text: str


Natural = Annotated[int, Bounds(0, math.inf, "at least 0")]
Count = Annotated[int, Bounds(1, math.inf, "at least 1")]
Share = Annotated[float, Bounds(0, 1, "in [0, 1]")]
NonNegative = Annotated[float, Bounds(0, sys.float_info.max, "at least 0 and finite")]
Positive = Annotated[float, Bounds(math.ulp(0.0), sys.float_info.max, "positive and finite")]


class Bounded:
    """Base of dataclasses whose bounds are checked when they are made.

    A `__post_init__` of its own calls `check_bounds` first: `super()` does not work in slotted dataclasses.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        check_bounds(self)


def check_bounds(settings: Any) -> None:
    """Raise `ConfigError` that names the first number of a dataclass beyond its bounds; None is in any."""
    for name, bounds in _bounds(settings.__class__).items():
        value = getattr(settings, name)
        if value is not None and not bounds.low <= value <= bounds.high:
            raise ConfigError(f"{name} must be {bounds.text}; received {value}")


@functools.cache
def _bounds(cls: type) -> dict[str, Bounds]:
    """By field, those with bounds, which may be optional: `Share | None`."""
    hints = typing.get_type_hints(cls, include_extras=True).items()
    parts = ((name, part) for name, hint in hints for part in (hint, *typing.get_args(hint)))
    marks = ((name, mark) for name, part in parts for mark in getattr(part, "__metadata__", ()))
    return {name: mark for name, mark in marks if isinstance(mark, Bounds)}


def load_config(cls: type[T], path: Path | str, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `cls`, after applying overrides of the form "a.b=value".

    Values of overrides are read as YAML, so `lr=1e-4`, `skills=[a, b]` and `adapter=null` do what they say.

    Raises:
        ConfigError: the file is absent or no YAML, or any key is unknown, missing or of the wrong type;
            the message lists all of them, each with what would be accepted.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold keys and values; received a {type(raw).__name__}")
    return _overridden(cls, raw or {}, overrides, source=str(path))


def from_overrides(cls: type[T], overrides: Sequence[str]) -> T:
    """The dataclass `cls` with its defaults, after overrides as of `load_config`. Raises `ConfigError`."""
    return _overridden(cls, {}, overrides, source="--set")


def from_mapping(cls: type[T], tree: Mapping[str, Any], *, source: str = "configuration") -> T:
    """Build the dataclass `cls`, nested ones included, from plain data. Raises `ConfigError` as above."""
    problems: list[str] = []
    value = _build(cls, tree, "", problems)
    if problems:
        raise ConfigError(f"{source}: " + "; ".join(problems))
    return typing.cast(T, value)


def _overridden(cls: type[T], tree: dict[str, Any], overrides: Sequence[str], *, source: str) -> T:
    for override in overrides:
        _apply(tree, override)
    return from_mapping(cls, tree, source=source)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain data that `from_mapping` reads back: nested dicts, lists, strings and numbers."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by dotted key, such as "optim.lr"."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes key=value, such as optim.lr=1e-4; received {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        # A section that is set to null is absent; naming a key of it brings it back.
        if tree.get(parent) is None:
            tree[parent] = {}
        child = tree[parent]
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section")
        tree = child
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is no valid YAML") from error


def _build(cls: Any, tree: Any, where: str, problems: list[str]) -> Any:
    """Returns None, having added to `problems`, where the data does not fit."""
    if not isinstance(tree, Mapping):
        problems.append(f"{where.rstrip('.')} must be a section with keys, received {tree!r}")
        return None
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    before = len(problems)
    for key in tree:
        if key not in fields:
            problems.append(f"unknown key {where}{key} (known: {', '.join(fields)})")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], where + name, problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"missing key {where}{name}")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(f"{where.rstrip('.')}: {error}" if where else str(error))
        return None


def _convert(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where + ".", problems)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        # A list stands for a tuple, and for nothing else.
        fitting = [k for k in kinds if (typing.get_origin(k) is tuple) == isinstance(value, list)]
        if isinstance(value, Mapping):
            # Of several dataclasses, the one that has all of the keys.
            fitting = [k for k in kinds if _has_fields(k, value)]
        kind = (fitting or kinds)[0]
        return _convert(kind, value, where, problems)
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(args[1], item, f"{where}.{key}", problems) for key, item in value.items()}
    if kind is Any:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(args[0], item, f"{where}[{n}]", problems) for n, item in enumerate(value))
    if origin is typing.Literal:
        if value in args:
            return value
        problems.append(f"{where} must be one of {', '.join(map(str, args))}, received {value!r}")
        return None
    scalar = _scalar(kind, value)
    if scalar is None:
        problems.append(f"{where} must be {_name(kind)}, received {value!r}")
    return scalar


def _has_fields(kind: Any, tree: Mapping[str, Any]) -> bool:
    return dataclasses.is_dataclass(kind) and tree.keys() <= {f.name for f in dataclasses.fields(kind)}


def _scalar(kind: Any, value: Any) -> Any:
    """`value` as `kind`, or None where that would be a guess."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    # YAML 1.1 reads 1e-4 (no dot) as a string.
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if type(value) is kind else None


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a list of {_name(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is Mapping:
        return "a section with keys"
    if dataclasses.is_dataclass(kind):
        return "sections"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    return names.get(kind, str(kind))
