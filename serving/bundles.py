"""Bundles and scorer files as models: which a command line or a folder names, and scorers made of them."""

import logging
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefrm.errors import BundleError, ConfigError
from prefrm.hub import is_hub
from prefrm.manifest import MANIFEST, Manifest, bundle_folder, inspect_bundle, read_manifest
from prefrm.media import DEFAULT_LIMITS, ImageLimits
from prefrm.protocol import BUNDLE_PARAMETER, judge_identity
from prefrm.scorers import is_scorer_file, is_url, open_scorer, read_scorer_file, sources
from prefrm.winmatrix import inputs_of
from serving.models import LoadedModel, ModelInfo, check_distinct

__all__ = ["BundleShelf", "EngineOptions", "NamedBundle", "name_bundle"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What `prefrm.engine.open_engine` takes; None leaves an option at its default.

    `gradients` is whether clients may ask for the gradient of a judge, which shares its weights.
    """

    device: str = "auto"
    dtype: str = "auto"
    pairs: int | None = None
    tokens: int | None = None
    cache_bytes: int | None = None
    compile: bool = False
    gradients: bool = False
    limits: ImageLimits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBundle:
    """A bundle's folder, or a scorer file, and what it is served as."""

    name: str
    version: str
    folder: Path


def name_bundle(text: str, default: str) -> NamedBundle:
    """Read `[NAME[:VERSION]=]SCORER`: a bundle, which is downloaded if it is on the Hub, or a scorer file.

    Args:
        text: as given.
        default: the name of a bundle that is given without one.

    Raises:
        BundleError: there is no such folder, and no such repository on the Hub.
        ConfigError: there is no such file, or it is a URL.
    """
    named = re.fullmatch(r"([A-Za-z0-9._-]+)(?::([^=]*))?=(.+)", text, re.DOTALL)
    if named is None or is_hub(text) or is_url(text.partition("=")[0]) or Path(text).exists():
        name, version, target = default, "1", text
    else:
        name, version, target = named[1], named[2] or "1", named[3]
    if is_url(target):
        raise ConfigError(
            f"{target} is a URL; write it into a .yaml file and serve that: `scorers: [{{scorer: URL}}]`"
        )
    if is_scorer_file(target) and not Path(target).is_dir():
        if not Path(target).is_file():
            raise ConfigError(f"there is no file {target}")
        return NamedBundle(name=name, version=version, folder=Path(target))
    folder = bundle_folder(target)
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder; give the folder that `prefrm train` exported")
    return NamedBundle(name=name, version=version, folder=folder)


class BundleShelf:
    """Where models come from: bundles that were named, and a folder of bundles.

    Args:
        named: each under its name and version.
        repository: a folder in which `NAME` is a bundle, or `NAME/VERSION` is one; read at each loading.
        options: of every engine.

    Raises:
        ConfigError: the repository is no folder.
    """

    def __init__(self, named: Sequence[NamedBundle], repository: Path | None, options: EngineOptions) -> None:
        if repository is not None and not repository.is_dir():
            raise ConfigError(f"--repository {repository} is no folder")
        self._named = named
        self._repository = repository
        self._options = options
        # What scorer files have open: connections, until the process ends.
        self._open = ExitStack()

    def bundles(self) -> list[NamedBundle]:
        """All bundles that can be served now."""
        return [*self._named, *self._found()]

    def load(self, name: str) -> list[LoadedModel]:
        """All versions of the model of that name. Raises `BundleError`, `ConfigError`."""
        found = [bundle for bundle in self.bundles() if bundle.name == name]
        if not found:
            raise BundleError(f"there is no bundle of that name; there are {self._names()}")
        return [self._load(bundle) for bundle in found]

    def load_all(self) -> list[LoadedModel]:
        """Every model. Raises `BundleError`, `ConfigError`."""
        return [self._load(bundle) for bundle in self.bundles()]

    def check(self) -> list[str]:
        """What each bundle says of itself, before any is loaded. Raises `BundleError`, `ConfigError`."""
        bundles = self.bundles()
        if not bundles:
            raise BundleError(f"--repository {self._repository} has no bundle, as NAME or NAME/VERSION")
        infos = [self._checked(bundle) for bundle in bundles]
        check_distinct(infos)
        return [f"{info.name}: {info.facts['judge']}" for info in infos]

    def _found(self) -> list[NamedBundle]:
        if self._repository is None:
            return []
        bundles = []
        for manifest in sorted(self._repository.glob(f"*/{MANIFEST}")):
            bundles.append(NamedBundle(name=manifest.parent.name, version="1", folder=manifest.parent))
        for manifest in sorted(self._repository.glob(f"*/*/{MANIFEST}")):
            version, name = manifest.parent.name, manifest.parent.parent.name
            if version.isdecimal():
                bundles.append(NamedBundle(name=name, version=version, folder=manifest.parent))
        return bundles

    def _names(self) -> str:
        return ", ".join(sorted({bundle.name for bundle in self.bundles()})) or "none"

    def _checked(self, bundle: NamedBundle) -> ModelInfo:
        if not is_scorer_file(bundle.folder):
            return self._info(bundle, inspect_bundle(bundle.folder))
        for source in sources(bundle.folder):
            if not is_url(source):
                inspect_bundle(bundle_folder(source))
        return self._file_info(bundle)

    def _file_info(self, bundle: NamedBundle) -> ModelInfo:
        facts = {"judge": read_scorer_file(bundle.folder).describe()}
        return ModelInfo(name=bundle.name, version=bundle.version, facts=facts)

    def _load_file(self, bundle: NamedBundle) -> LoadedModel:
        if self._options.gradients:
            logger.warning("%s: a scorer file is served without a gradient", bundle.name)
        scorer = self._open.enter_context(open_scorer(bundle.folder, engine=self._engine_options()))
        info = self._file_info(bundle)
        facts = {**info.facts, BUNDLE_PARAMETER: scorer.identity()}
        return LoadedModel(info=replace(info, facts=facts, inputs=inputs_of(scorer)), scorer=scorer)

    def _info(self, bundle: NamedBundle, manifest: Manifest) -> ModelInfo:
        identity = judge_identity(manifest.digest, self._options.pairs)
        facts = {"judge": manifest.describe(), BUNDLE_PARAMETER: identity}
        return ModelInfo(name=bundle.name, version=bundle.version, facts=facts, inputs=manifest.inputs)

    def _load(self, bundle: NamedBundle) -> LoadedModel:
        if is_scorer_file(bundle.folder):
            return self._load_file(bundle)
        # torch takes seconds to import.
        from prefrm.engine import open_engine

        engine = open_engine(bundle.folder, **self._engine_options())
        info = replace(self._info(bundle, read_manifest(bundle.folder)), device=str(engine.judge.device))
        logger.info("%s: on %s, passes of %s", bundle.name, info.device, engine.pass_sizes)
        gradient = engine.differentiable() if self._options.gradients else None
        return LoadedModel(info=info, scorer=engine, cache=engine.cache, gradient=gradient)

    def _engine_options(self) -> dict[str, Any]:
        options = self._options
        found = {
            "device": options.device,
            "dtype": options.dtype,
            "pairs": "all" if options.pairs is None else options.pairs,
            "tokens": options.tokens,
            "cache_bytes": options.cache_bytes,
            "compile": options.compile,
            "limits": options.limits,
        }
        return {name: value for name, value in found.items() if value is not None}
