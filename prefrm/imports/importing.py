"""From a row of the registry to a bundle."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from prefrm.bundle import ImportRecord, Manifest, check_replaceable, write_bundle, write_dual_bundle
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.hub import is_hub
from prefrm.imports.card import import_card
from prefrm.imports.reading import hash_settings
from prefrm.imports.registry import PublishedJudge, find_published, with_uncertainty
from prefrm.imports.sources import Source, open_source
from prefrm.judge import Judge
from prefrm.judge.dual import DualJudge
from prefrm.prompts import Template, read_template
from prefrm.quiet import quiet

__all__ = ["ImportRequest", "Imported", "import_judge"]


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What a builder makes a judge of. Source and base are opened, or downloaded, when they are first read.

    Attributes:
        published: the row of the registry.
        source_name: the published weights, as `open_source` takes them.
        base_name: the checkpoint for what the source lacks; None if the judge needs none.
        names_base: whether a person named the base, and not the row alone.
        template: the wording of the prompt, or None.
    """

    published: PublishedJudge
    source_name: str
    base_name: str | None
    names_base: bool
    template: Template | None

    @cached_property
    def source(self) -> Source:
        """The published weights. Raises as `open_source`."""
        return open_source(self.source_name, self.published.files)

    @cached_property
    def base(self) -> Source:
        """The checkpoint for what the source lacks. Raises as `open_source`."""
        assert self.base_name is not None, f"{self.published.name} has no base"
        return open_source(_hub_name(self.base_name), self.published.base_files)

    @property
    def opened_base(self) -> Source | None:
        """The base if it was read."""
        return self.__dict__.get("base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A judge, and the sha256 by name of each file of weights, and of others that `hash_settings` misses."""

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
            Of a file, what else is needed may lie beside it.
        out: the folder of the bundle.
        base: the checkpoint for what the source lacks; None is the one that the registry names, for
            what is not beside the weights.
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
        source_name=source or published.source,
        base_name=base or published.base,
        names_base=base is not None,
        template=None if template is None else read_template(template),
    )
    if not is_hub(request.source_name):
        # It is here or not, which needs no download of a base.
        _ = request.source
    with quiet():
        imported = _builder(published)(request)
    record = _record(request, imported)
    card = import_card(published, record)
    if isinstance(imported.judge, DualJudge):
        return write_dual_bundle(out, imported.judge, card=card, origin=record)
    return write_bundle(
        out, imported.judge, calibration=None, data_fingerprint="", metrics={}, card=card, origin=record
    )


def _record(request: ImportRequest, imported: Imported) -> ImportRecord:
    """What was read, with all settings of the folders in which a builder looks for some."""
    source, base = request.source, request.opened_base
    sha256 = dict(imported.sha256)
    if base is None or source.path.is_dir():
        sha256 |= hash_settings(source.folder)
    if base is not None:
        sha256 |= {f"{base.name}/{name}": digest for name, digest in hash_settings(base.folder).items()}
    return ImportRecord(
        judge=request.published.name,
        source=source.name,
        revision=source.revision,
        licence=request.published.licence,
        sha256=sha256,
        is_log_odds=request.published.is_log_odds,
        base=None if base is None else base.name,
        base_revision=None if base is None else base.revision,
    )


def _hub_name(base: str) -> str:
    """`hf://org/name` of `org/name`, as base models are named in a training configuration."""
    is_id = not is_hub(base) and base.count("/") == 1 and not Path(base).exists()
    return f"hf://{base}" if is_id else base


def _check_options(published: PublishedJudge, base: str | None, template: Path | None) -> None:
    if base is not None and published.base is None:
        raise ConfigError(f"--base {base}: {published.name} needs no base checkpoint; leave it out")
    if template is not None and published.template == "none":
        raise ConfigError(f"--template {template}: {published.name} takes no template; leave it out")
    if template is None and published.template == "required":
        raise ConfigError(
            f"{published.name} was trained with a wording that prefrm does not ship; write it into a file "
            "and give --template FILE"
        )


def _builder(published: PublishedJudge) -> Callable[[ImportRequest], Imported]:
    module, _, function = published.builder.partition(":")
    return cast(Callable[[ImportRequest], Imported], getattr(importlib.import_module(module), function))
