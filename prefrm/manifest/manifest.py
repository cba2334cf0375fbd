"""`manifest.json`: one schema, by which it is written and read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prefrm.config import from_mapping
from prefrm.display import shortened
from prefrm.errors import BundleError, ConfigError
from prefrm.files import parse_json
from prefrm.manifest.dual import DualSpec
from prefrm.manifest.folder import HEX, MANIFEST, FileRecord, check_path
from prefrm.manifest.origin import ImportRecord
from prefrm.manifest.spec import JudgeSpec
from prefrm.prompts import RenderedTemplate, Template
from prefrm.winmatrix import CalibrationRecord, Inputs, TrainingInputs

__all__ = ["Manifest"]

FORMAT_VERSION = 7
# That of a manifest without training inputs, which is the same to the byte.
WITHOUT_TRAINING_INPUTS = 6
MALFORMED = f"{MANIFEST} is malformed"
# Most of it are the held-out metrics.
MOST_BYTES = 4 * 2**20
WEIGHTS = ("model", "adapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        spec: the choices that made the judge.
        template: the wording with which it was trained, whatever the library's template is today; None for
            a dual encoder, which has none.
        rendered: that wording as the base model's chat template rendered it; None as `template`.
        weights: "model" or "adapter".
        base_revision: the hub's commit of the base model, or None for a folder.
        base_sha256: hash of the base model's weights.
        calibration: None if the judge was not calibrated.
        data_fingerprint: of the training data.
        metrics: held-out metrics, as the caller measured them.
        versions: of prefrm and what it was built with.
        files: sha256 and size of every other file, by its path inside the folder.
        origin: what `prefrm import` read; None if prefrm trained the judge.
        training_inputs: what the groups of the training data had; None where that is not known, as of an
            import.

    Raises:
        ConfigError: a value is out of range, or the template does not fit the specification.
    """

    spec: JudgeSpec | DualSpec
    template: Template | None
    rendered: RenderedTemplate | None
    weights: Literal["model", "adapter"]
    base_revision: str | None
    base_sha256: str
    calibration: CalibrationRecord | None
    data_fingerprint: str
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, FileRecord]
    origin: ImportRecord | None = None
    training_inputs: TrainingInputs | None = None

    def __post_init__(self) -> None:
        self._check_template()
        if len(self.base_sha256) != 64 or not HEX.issuperset(self.base_sha256):
            raise ConfigError(f"base_sha256 must be 64 hexadecimal digits; received {self.base_sha256!r}")
        for path in self.files:
            check_path(path)

    def _check_template(self) -> None:
        template, rendered = self.template, self.rendered
        if isinstance(self.spec, DualSpec):
            if template is not None or rendered is not None or self.weights != "model":
                raise ConfigError("a dual encoder has whole weights, and neither template nor rendered")
            return
        if template is None or rendered is None:
            raise ConfigError("template and rendered are missing")
        self.spec.check_template(template)
        if not rendered.fits(template):
            raise ConfigError(f"rendered has other places than the template {template.id!r}")

    @property
    def inputs(self) -> Inputs:
        """What the judge reads of a group; of a dual encoder images alone."""
        if isinstance(self.spec, DualSpec) or self.template is None:
            return Inputs()
        return self.spec.inputs(self.template)

    @property
    def digest(self) -> str:
        """A sha256 over all the rest, file hashes included: the identity of the bundle."""
        return hashlib.sha256(json.dumps(self._fields, sort_keys=True).encode()).hexdigest()

    @property
    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.training_inputs is None:
            del fields["training_inputs"]
        return fields

    @property
    def _version(self) -> int:
        return WITHOUT_TRAINING_INPUTS if self.training_inputs is None else FORMAT_VERSION

    @property
    def trained(self) -> str:
        """Such as "trained with 1 context image and no criterion"; "" if unknown, or if it reads neither."""
        if self.training_inputs is None or not (self.inputs.context or self.inputs.criterion):
            return ""
        return f"trained with {self.training_inputs.describe()}"

    @property
    def short_digest(self) -> str:
        """The start of `digest`, by which messages name the judge."""
        return self.digest[:12]

    def describe(self) -> str:
        """One line for a terminal or a log; an uncalibrated judge is called so."""
        state = "uncalibrated"
        if self.origin is not None and self.origin.is_log_odds:
            state = "at the temperature of its training loss"
        if self.calibration is not None:
            state = f"calibrated ({self.calibration.describe()})"
        # Names in a manifest are anybody's.
        facts = [shortened(self.spec.base_model, 200), shortened(state, 200), *filter(None, [self.trained])]
        return f"{_kind(self.spec)} {', '.join(facts)}, {self.short_digest}"

    def to_json(self) -> str:
        """The text of `manifest.json`; its own digest guards it.

        Raises:
            BundleError: it is longer than a reader accepts.
        """
        content = {"format_version": self._version, "digest": self.digest, **self._fields}
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
        if len(text) > MOST_BYTES:
            raise BundleError(f"{MANIFEST} would have {len(text)} bytes; {MOST_BYTES} are allowed")
        return text

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check `manifest.json`.

        Raises:
            BundleError: it is not JSON, of another format version, or was altered, or a field is missing,
                unknown, of another type or out of range; each such field is named.
        """
        try:
            raw = parse_json(text.encode())
            if not isinstance(raw, dict) or "format_version" not in raw:
                raise ConfigError("an object with a format_version is expected")
            if (found := raw.pop("format_version")) not in (WITHOUT_TRAINING_INPUTS, FORMAT_VERSION):
                raise BundleError(
                    f"its format version is {found!r} and this prefrm reads {WITHOUT_TRAINING_INPUTS} and "
                    f"{FORMAT_VERSION}; use the prefrm version that wrote it"
                )
            raw.pop("digest", None)
            manifest = from_mapping(cls, raw, source=MALFORMED)
            same = manifest.to_json() == text
        except BundleError:
            raise
        # Text with lone surrogates, and numbers that JSON has and floats have not.
        except ValueError as error:
            reason = str(error)
            named = reason if reason.startswith(MALFORMED) else f"{MALFORMED}: {reason}"
            raise BundleError(shortened(named)) from error
        if not same:
            raise BundleError(f"{MANIFEST} was altered after it was written")
        return manifest


def _kind(spec: JudgeSpec | DualSpec) -> str:
    """What sort of judge it is, up to the name of its base model."""
    if isinstance(spec, DualSpec):
        return f"dual encoder ({spec.score})"
    attention = f" ({spec.attention})" if spec.is_pairwise else ""
    return f"{spec.head} judge of {spec.kind}s{attention} on"
