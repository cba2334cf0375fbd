"""The models of a server: each a scorer behind a queue under a name and a version, loaded and unloaded.

Versions are numbers; a request that names none gets the highest. A model that is replaced or unloaded takes
no more requests and finishes those it has.
"""

import asyncio
import gc
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from prefrm.differentiable import DifferentiableScorer
from prefrm.display import shortened
from prefrm.errors import ConfigError, PrefrmError
from prefrm.shutdown import in_daemon_thread
from prefrm.winmatrix import Inputs, Scorer
from serving.errors import (
    ExpiredError,
    FailedError,
    InvalidRequestError,
    NotReadyError,
    UnknownModelError,
    UnsupportedError,
)
from serving.gradients import Gradients
from serving.limits import Limits
from serving.observing.cache import ImageCache
from serving.observing.metrics import Metrics
from serving.queueing.batcher import Batcher

__all__ = ["LoadedModel", "Loader", "ModelInfo", "ModelRepository", "ServedModel", "check_distinct"]

logger = logging.getLogger(__name__)

# Triton's words, by which its clients tell this error from others.
UNKNOWN = "Request for unknown model"
# What the end of a queue may take beyond its time.
LEAVE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a model is called, and facts about it that its configuration shows as parameters.

    Attributes:
        name: of the model.
        version: of the model.
        facts: by name.
        device: that the model computes on, as torch names it.
        inputs: what the model reads of a group.

    Raises:
        ConfigError: the name does not fit into a URL as it is, or the version is no positive number.
    """

    name: str
    version: str = "1"
    facts: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    inputs: Inputs = field(default_factory=Inputs)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ConfigError(
                f"a model's name is made of letters, digits, '.', '_' and '-'; received {self.name!r}"
            )
        if not re.fullmatch(r"[1-9][0-9]{0,17}", self.version):
            raise ConfigError(f"a model's version is a number from 1 on; received {self.version!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A scorer that can be served.

    Attributes:
        info: what it is called.
        scorer: what judges.
        cache: its cache of images, if the metrics are to tell of it.
        gradient: of the same judge, if clients may ask for it.
    """

    info: ModelInfo
    scorer: Scorer
    cache: ImageCache | None = None
    gradient: DifferentiableScorer | None = None


Loader = Callable[[str], Sequence[LoadedModel]]
"""All versions of the model of that name; called from a thread. Raises `UnknownModelError`, `PrefrmError`."""


class ServedModel:
    """One version of a model while it is served. Lives in one event loop."""

    def __init__(self, model: LoadedModel, limits: Limits, metrics: Metrics) -> None:
        self.info = model.info
        self.metrics = metrics.of_model(model.info.name, model.info.version, model.cache)
        self.batcher = Batcher(model.scorer, limits, self.metrics)
        self.gradients = None if model.gradient is None else Gradients(model.gradient, limits)

    @property
    def ready(self) -> bool:
        """Whether it answers: it does not while its scorer hangs."""
        return not self.batcher.is_hanging

    async def drain(self, timeout: float) -> None:
        """Finish what was accepted, for at most `timeout` seconds."""
        gradients = [] if self.gradients is None else [self.gradients.drain(timeout)]
        await asyncio.gather(self.batcher.drain(timeout), *gradients)


class ModelRepository:
    """All models of a server, by name and version.

    Args:
        models: served from the start.
        limits: what each accepts.
        metrics: told of each.
        loader: where models come from that are loaded later; None if none are.

    Raises:
        ConfigError: two models have the same name and version.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        limits: Limits,
        metrics: Metrics,
        loader: Loader | None = None,
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._loader = loader
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._unloaded: dict[str, Sequence[str]] = {}
        self._hanging: dict[str, Future[Sequence[LoadedModel]]] = {}
        self._busy: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        check_distinct([model.info for model in models])
        for model in models:
            versions = self._models.setdefault(model.info.name, {})
            versions[model.info.version] = ServedModel(model, limits, metrics)

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        for model in self.all():
            model.batcher.start()

    def all(self) -> list[ServedModel]:
        """Every version of every model that is served."""
        return [model for versions in self._models.values() for model in versions.values()]

    def names(self) -> list[str]:
        """Of the models that are served."""
        return list(self._models)

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model, of the highest version if none is named. Raises `UnknownModelError`."""
        return self.versions(name, version)[-1]

    def versions(self, name: str, version: str = "") -> list[ServedModel]:
        """The versions of a model, ascending, or the one that is named. Raises `UnknownModelError`."""
        found = self._models.get(name)
        if found is None:
            state = "has no available versions" if name in self._unloaded else "is not found"
            raise UnknownModelError(f"{UNKNOWN}: {name!r} {state}; this server has {_listed(self._models)}")
        if version:
            if not version.isdecimal():
                raise InvalidRequestError(f"a model's version is a number from 1 on; received {version!r}")
            version = version.lstrip("0") or "0"
        if version and version not in found:
            raise UnknownModelError(
                f"{UNKNOWN}: {name!r} version {version} is not found; this server has {_listed(found)}"
            )
        return [found[version]] if version else sorted(found.values(), key=lambda one: int(one.info.version))

    def index(self) -> list[dict[str, str]]:
        """Name, version, state and reason of every model that is served or was."""
        rows = [
            {"name": name, "version": version, "state": "UNAVAILABLE", "reason": "unloaded"}
            for name, versions in self._unloaded.items()
            for version in versions
        ]
        for model in self.all():
            state = {"state": "READY"} if model.ready else {"state": "UNAVAILABLE", "reason": "hanging"}
            rows.append({"name": model.info.name, "version": model.info.version} | state)
        return sorted(rows, key=lambda row: (row["name"], int(row["version"])))

    async def load(self, name: str, check: Callable[[ModelInfo], None] = lambda _: None) -> None:
        """Load a model, or load it again: requests go to the new one as soon as it is there.

        Args:
            name: of the model.
            check: called with each version before it is served; a `PrefrmError` that it raises refuses it.

        Raises:
            UnsupportedError: this server loads no models.
            InvalidRequestError: it cannot be loaded or was refused, and what was served still is; or there
                is none.
            ExpiredError: loading takes longer than `load_s`.
            FailedError: the loader failed, or hangs since an earlier call.
            NotReadyError: the server stopped first.
        """
        loading = asyncio.create_task(self._load(self._require_loader(), name, check))
        self._busy.add(loading)
        loading.add_done_callback(self._busy.discard)
        # Whoever asked may leave: what is being loaded is there in the end, and nothing else is meanwhile.
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():
                raise NotReadyError(f"the server stopped before it loaded {name!r}") from None
            raise

    async def _load(self, loader: Loader, name: str, check: Callable[[ModelInfo], None]) -> None:
        async with self._one_at_a_time:
            loaded = await self._loaded(loader, name, check)
            served = [ServedModel(model, self._limits, self._metrics) for model in loaded]
            for model in served:
                model.batcher.start()
            replaced = self._models.get(name, {})
            self._models[name] = {model.info.version: model for model in served}
            self._unloaded.pop(name, None)
            self._let_go(replaced.values())
        logger.info("loaded the model %s", name)

    async def _loaded(
        self, loader: Loader, name: str, check: Callable[[ModelInfo], None]
    ) -> Sequence[LoadedModel]:
        """What the loader makes, in a thread that is left to itself when the time is over."""
        if name in self._hanging and not self._hanging[name].done():
            raise FailedError(f"failed to load {name!r}: an earlier attempt still hangs; restart the server")
        loading = in_daemon_thread(partial(loader, name))
        ended = asyncio.wrap_future(loading)
        try:
            await asyncio.wait([ended], timeout=self._limits.load_s)
            if not ended.done():
                self._hanging[name] = loading
                logger.error("loading the model %s takes longer than load_s=%g", name, self._limits.load_s)
                raise ExpiredError(
                    f"failed to load {name!r}: it takes longer than load_s={self._limits.load_s:g} s"
                )
        finally:
            # Nobody waits for a later end, when the loop may be closed.
            ended.cancel()
        try:
            loaded = ended.result()
            for found in loaded:
                check(found.info)
            return loaded
        except PrefrmError as error:
            raise InvalidRequestError(f"failed to load {name!r}: {shortened(str(error))}") from error
        except Exception as error:
            logger.exception("failed to load the model %s", name)
            raise FailedError(f"failed to load {name!r}: {type(error).__name__}") from error

    async def unload(self, name: str) -> None:
        """Take a model out of service, once its requests are answered.

        Raises:
            UnsupportedError: this server unloads no models.
            InvalidRequestError: there is no such model.
        """
        self._require_loader()
        async with self._one_at_a_time:
            if name not in self._models:
                raise InvalidRequestError(
                    f"failed to unload {name!r}: this server has {_listed(self._models)}"
                )
            versions = self._models.pop(name)
            self._unloaded[name] = list(versions)
            self._let_go(versions.values())
        logger.info("unloaded the model %s", name)

    async def drain(self, timeout: float) -> None:
        """Cancel loading, and finish what was accepted, of all models, for at most `timeout` seconds."""
        for loading in self._busy:
            loading.cancel()
        draining = [asyncio.ensure_future(model.drain(timeout)) for model in self.all()]
        if waited := [*draining, *self._leaving]:
            await asyncio.wait(waited, timeout=timeout + LEAVE_S)

    def _let_go(self, models: Iterable[ServedModel]) -> None:
        task = asyncio.create_task(self._leave(list(models)))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, models: list[ServedModel]) -> None:
        """Answer all that models have accepted, however long that takes, and let go of their memory."""
        await asyncio.gather(*(model.drain(self._limits.deadline_s) for model in models))
        if models:
            models.clear()
            # A judge refers to itself, and the memory that it holds may be what the next one needs.
            await asyncio.to_thread(gc.collect)

    def _require_loader(self) -> Loader:
        if self._loader is None:
            raise UnsupportedError("this server loads and unloads no models; start it with --model-control")
        return self._loader


def check_distinct(infos: Sequence[ModelInfo]) -> None:
    """Raise `ConfigError` if two models have the same name and version."""
    seen = set()
    for info in infos:
        if (info.name, info.version) in seen:
            raise ConfigError(
                f"two models are called {info.name!r}, version {info.version}; "
                "give one another name or version: NAME:VERSION=BUNDLE"
            )
        seen.add((info.name, info.version))


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"
