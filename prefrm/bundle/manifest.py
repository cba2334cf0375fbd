"""What a bundle says of itself, and the hashes that guard its files. Loads no weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from prefrm.errors import BundleError, ConfigError
from prefrm.judge.spec import JudgeSpec
from prefrm.prompts import Template
from prefrm.winmatrix import CalibrationMap, calibration_map

__all__ = [
    "HOST_PATHS",
    "MANIFEST",
    "CalibrationRecord",
    "Manifest",
    "check_outside_bundles",
    "check_path",
    "hash_files",
    "is_added",
    "read_manifest",
    "unlisted_files",
    "verify_files",
]

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
# Weights, plain text and pictures; nothing that a loader would unpickle or run.
ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model", ".md", ".png", ".svg"})
# What a clone of a Hub repository and `huggingface_hub` add to a folder, and what macOS and Windows add
# anywhere in it ("._" begins a file of macOS on other file systems). Nothing reads or hashes these files.
HOST_PATHS = (".git", ".gitattributes", ".cache/huggingface")
SYSTEM_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")
SYSTEM_PREFIX = "._"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """A calibration map as plain data, and what it was fitted on: data that the judge was not trained on.

    Attributes:
        name: the family of the map, one of `prefrm.winmatrix.CALIBRATION_MAPS`.
        parameters: of the map, by name.
        split: the split on which it was fitted.
        pairs: how many judged comparisons that was.
    """

    name: str
    parameters: Mapping[str, float]
    split: str
    pairs: int

    def __post_init__(self) -> None:
        calibration_map(self.name, self.parameters)
        if self.pairs < 1:
            raise ConfigError(f"a calibration needs at least one comparison; received pairs={self.pairs}")

    @classmethod
    def of(cls, calibration: CalibrationMap, *, split: str, pairs: int) -> "CalibrationRecord":
        """The record of a map that was fitted on `pairs` pairs of a split."""
        return cls(name=calibration.name, parameters=calibration.parameters, split=split, pairs=pairs)

    @property
    def map(self) -> CalibrationMap:
        """The map itself."""
        return calibration_map(self.name, self.parameters)

    def describe(self) -> str:
        """A clause for a terminal or a card."""
        return f"{self.map.describe()}, from {self.pairs} pairs of {self.split}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        spec: the choices that made the judge.
        template: the wording with which it was trained, whatever the library's template is today.
        stride: the positions that a slot of the isolated attention takes.
        weights: "model" or "adapter".
        base_revision: the hub's commit of the base model, or None for a folder.
        base_sha256: hash of the base model's weights.
        calibration: None if the judge was not calibrated.
        data_fingerprint: of the training data.
        metrics: held-out metrics, as the caller measured them.
        versions: of prefrm and what it was built with.
        files: sha256 of every other file, by its path inside the folder.
    """

    spec: JudgeSpec
    template: Template
    stride: int
    weights: str
    base_revision: str | None
    base_sha256: str
    calibration: CalibrationRecord | None
    data_fingerprint: str
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A sha256 over all the rest, file hashes included: the identity of the bundle."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """One line for a terminal or a log; an uncalibrated judge is called so."""
        state = "uncalibrated"
        if self.calibration is not None:
            state = f"calibrated ({self.calibration.describe()})"
        spec = self.spec
        kind = f"{spec.head} judge ({spec.attention})" if spec.is_pairwise else f"{spec.head} judge"
        return f"{kind} on {spec.base_model}, {state}, {self.digest[:12]}"

    def to_json(self) -> str:
        """The text of `manifest.json`; its own digest guards it."""
        content = {"format_version": FORMAT_VERSION, "digest": self.digest, **asdict(self)}
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check `manifest.json`. Raises `BundleError`."""
        try:
            raw = json.loads(text)
            if (found := raw.pop("format_version")) != FORMAT_VERSION:
                raise BundleError(
                    f"its format version is {found} and this prefrm reads {FORMAT_VERSION}; "
                    "use the prefrm version that wrote it"
                )
            raw.pop("digest")
            calibration = raw.pop("calibration")
            manifest = cls(
                spec=JudgeSpec(**raw.pop("spec")),
                template=_template(raw.pop("template")),
                calibration=None if calibration is None else CalibrationRecord(**calibration),
                **raw,
            )
            same = manifest.to_json() == text
        except BundleError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{MANIFEST} is malformed ({type(error).__name__}: {error})") from error
        if not same:
            raise BundleError(f"{MANIFEST} was altered after it was written")
        if manifest.weights not in ("model", "adapter"):
            raise BundleError(f"weights must be model or adapter; {MANIFEST} says {manifest.weights!r}")
        for path in manifest.files:
            check_path(path)
        return manifest


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest alone; the other files are not looked at. Raises `BundleError`."""
    path = Path(folder) / MANIFEST
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is no bundle: {MANIFEST} cannot be read ({error})") from error
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from error


def hash_files(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a bundle but the manifest, by its path inside the folder."""
    return {path: _sha256(folder / path) for path in _files(folder)}


def verify_files(root: Path, manifest: Manifest) -> None:
    """Raise `BundleError` that names the first file that is missing, altered or not listed."""
    for path, expected in manifest.files.items():
        if not (root / path).is_file():
            raise BundleError(f"{root}: {path} is listed in {MANIFEST} and is missing")
        if _sha256(root / path) != expected:
            raise BundleError(f"{root}: {path} was altered: its sha256 is not the one in {MANIFEST}")
    if extra := unlisted_files(root, manifest):
        raise BundleError(f"{root}: {extra[0]} is not listed in {MANIFEST}; remove it")


def unlisted_files(root: Path, manifest: Manifest) -> list[str]:
    """The files in the folder that are neither the bundle's nor added by a host or a system, sorted."""
    return sorted(set(_files(root)) - set(manifest.files))


def check_outside_bundles(folder: Path) -> None:
    """Raise `BundleError` if it would be inside a bundle, which nothing could load any more."""
    for parent in folder.resolve().parents:
        try:
            read_manifest(parent)
        except BundleError:
            continue
        raise BundleError(
            f"{folder} is inside the bundle {parent}, which would be refused with another file in it; "
            "name a folder outside"
        )


def check_path(path: str) -> None:
    """Raise `BundleError` if a bundle may not hold a file of that path, relative to its folder."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or ":" in path:
        raise BundleError(f"{path!r} is outside the folder of the bundle")
    if PurePosixPath(path).suffix not in ALLOWED_SUFFIXES:
        raise BundleError(
            f"{path!r} is refused: a bundle holds only {', '.join(sorted(ALLOWED_SUFFIXES))} files"
        )


def is_added(path: str) -> bool:
    """Whether a host or an operating system adds a file of that path, relative to the bundle's folder."""
    place = PurePosixPath(path)
    if place.name in SYSTEM_NAMES or place.name.startswith(SYSTEM_PREFIX):
        return True
    return any(place.is_relative_to(host) for host in HOST_PATHS)


def _files(root: Path) -> list[str]:
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path != MANIFEST and not is_added(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _template(raw: dict[str, Any]) -> Template:
    return Template(**{**raw, "answers": tuple(raw["answers"])})
