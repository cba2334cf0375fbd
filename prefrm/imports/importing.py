"""From a row of the registry to a bundle."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prefrm.bundle import ImportRecord, Manifest, check_replaceable, write_bundle, write_dual_bundle
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.hub import is_hub
from prefrm.imports.card import import_card
from prefrm.imports.registry import CONFIGURATION, PublishedJudge, find_published, with_uncertainty
from prefrm.imports.sources import Source, open_source
from prefrm.judge import Judge
from prefrm.judge.dual import DualJudge
from prefrm.quiet import quiet

__all__ = ["ImportRequest", "Imported", "import_judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What a builder makes a judge of.

    Attributes:
        published: the row of the registry.
        source: the published weights.
        base: for what the source lacks, as a person gave it or as the row says; None if nothing was said.
        template: a file with the wording of the prompt, or None.
    """

    published: PublishedJudge
    source: Source
    base: str | None
    template: Path | None

    def open_base(self, patterns: Sequence[str] = CONFIGURATION) -> Source:
        """The base's files that match. Raises as `open_source`, and `ConfigError` if there is no base."""
        if self.base is None:
            raise ConfigError(
                f"{self.published.name} needs a base checkpoint; give --base hf://org/name or a folder"
            )
        return open_source(_hub_name(self.base), patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A judge, and the sha256 of each file of weights that was read, by its name."""

    judge: Judge | DualJudge
    sha256: Mapping[str, str]


def import_judge(
    name: str,
    source: str | None,
    out: Path | str,
    *,
    base: str | None = None,
    template: Path | None = None,
    uncertainty: str | None = None,
) -> Manifest:
    """Write a published judge as a bundle, whole or not at all.

    Args:
        name: one of `PUBLISHED`.
        source: its weights: a file, a folder or `hf://org/name[@revision]`; None is where they are published.
        out: the folder of the bundle.
        base: the checkpoint for what the source lacks; None is the one that the registry names.
        template: a file with the wording of the prompt, for a judge whose wording prefrm may not ship.
        uncertainty: "integrate" or "ignore", as in `JudgeSpec`, for a judge with uncertain utilities; None is
            as its training loss has it.

    Raises:
        ConfigError: there is no such judge, an option does not fit it, or the source is not its checkpoint;
            every weight that is missing, unknown or of another shape is named.
        BundleError: as `write_bundle`, or the Hub has no such repository.
    """
    published = with_uncertainty(find_published(name), uncertainty)
    _check_options(published, base, template)
    require_writable_folder(Path(out), "--out")
    check_replaceable(Path(out))
    request = ImportRequest(
        published=published,
        source=open_source(source or published.source, published.files),
        base=base or published.base,
        template=template,
    )
    with quiet():
        imported = _builder(published)(request)
    record = ImportRecord(
        judge=name,
        source=request.source.name,
        revision=request.source.revision,
        licence=published.licence,
        sha256=imported.sha256,
        is_log_odds=published.is_log_odds,
    )
    card = import_card(published, record)
    if isinstance(imported.judge, DualJudge):
        return write_dual_bundle(out, imported.judge, card=card, origin=record)
    return write_bundle(
        out, imported.judge, calibration=None, data_fingerprint="", metrics={}, card=card, origin=record
    )


def _hub_name(base: str) -> str:
    """`hf://org/name` of `org/name`, as base models are named in a training configuration."""
    is_id = not is_hub(base) and base.count("/") == 1 and not Path(base).exists()
    return f"hf://{base}" if is_id else base


def _check_options(published: PublishedJudge, base: str | None, template: Path | None) -> None:
    if base is not None and published.base is None:
        raise ConfigError(f"--base {base}: {published.name} needs no base checkpoint; leave it out")
    if template is not None and not published.takes_template:
        raise ConfigError(f"--template {template}: {published.name} takes no template; leave it out")


def _builder(published: PublishedJudge) -> Callable[[ImportRequest], Imported]:
    module, _, function = published.builder.partition(":")
    return cast(Callable[[ImportRequest], Imported], getattr(importlib.import_module(module), function))
