"""Fewer launches: `torch.compile` for the layers of a judge's backbone, and CUDA graphs of whole passes.

A GPU computes a small pass faster than Python launches its kernels. A CUDA graph launches all of them at
once, but computes with the tensors that it was recorded with: those of a pass are copied into them.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from prefrm.judge import Judge

__all__ = ["PassGraphs", "compile_layers", "cuda_recorder"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tensors = list[torch.Tensor]
Record = Callable[[Callable[[Tensors], Tensors], Tensors], Callable[[], Tensors]]
"""From a function and the tensors that it is given to what repeats it on whatever these tensors then hold."""

MOST_GRAPHS = 32
"""Each keeps the tensors that it computes with: tens of megabytes, more of long rows and large models."""


def compile_layers(judge: Judge) -> None:
    """Compile the layers of the vision tower and of the language model in place, for inputs of any length.

    All but the language model's last, of which a reading computes one position. The first passes take long;
    the layers of a kind share what is compiled.
    """
    tower = judge.model.get_submodule(judge.family.vision_tower)
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    for layer in chain(judge.model.get_decoder().layers[:-1], *lists):
        layer.compile(dynamic=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Graph:
    """A recorded computation: the tensors that it reads, and what repeats it."""

    reads: Tensors
    replay: Callable[[], Tensors]


class PassGraphs:
    """Records each kind of pass once for every shape of its tensors, and repeats it from then on.

    If one cannot be recorded, no further one is, and the log says why.

    Args:
        record: such as `cuda_recorder` gives.
        most: number of graphs; passes of further shapes are computed as they are.
    """

    def __init__(self, record: Record, most: int = MOST_GRAPHS) -> None:
        self._record = record
        self._most = most
        self._graphs: dict[tuple[Hashable, ...], _Graph] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, kind: str, inputs: T, compute: Callable[[T], Tensors]) -> Tensors:
        """What `compute` gives, in tensors that the next graph may overwrite.

        Args:
            kind: a name for `compute`.
            inputs: nested tuples and dataclasses of tensors. What else is in them is the same for all inputs
                whose tensors have these shapes.
            compute: depends on nothing but `inputs`.
        """
        given = list(_tensors(inputs))
        key = (kind, *((x.shape, x.dtype) for x in given))
        graph = self._graphs.get(key)
        if graph is None and len(self._graphs) < self._most:
            graph = self._recorded(given, lambda tensors: compute(_with_tensors(inputs, iter(tensors))))
        if graph is None:
            return compute(inputs)
        self._graphs[key] = graph
        for mine, theirs in zip(graph.reads, given, strict=True):
            mine.copy_(theirs)
        return graph.replay()

    def _recorded(self, given: Tensors, compute: Callable[[Tensors], Tensors]) -> _Graph | None:
        reads = [x.clone() for x in given]
        try:
            return _Graph(reads=reads, replay=self._record(compute, reads))
        except RuntimeError as error:
            reason = str(error).strip().split("\n", 1)[0]
            logger.warning("passes are not recorded as CUDA graphs: %s", reason)
            self._most = 0
            return None


def cuda_recorder(device: torch.device) -> Record:
    """Records on a GPU, into memory that all its recordings share."""
    pool = torch.cuda.graph_pool_handle()

    def record(compute: Callable[[Tensors], Tensors], reads: Tensors) -> Callable[[], Tensors]:
        with torch.cuda.device(device):
            return _record_cuda(compute, reads, pool)

    return record


def _record_cuda(compute: Callable[[Tensors], Tensors], reads: Tensors, pool: Any) -> Callable[[], Tensors]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # What is compiled or allocated on first use cannot be recorded.
        compute(reads)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        found = compute(reads)

    def replay() -> Tensors:
        graph.replay()
        return found

    return replay


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of nested tuples and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    for part in _parts(value):
        yield from _tensors(part)


def _with_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The same with other tensors, in that order."""
    if isinstance(value, torch.Tensor):
        return next(tensors)
    parts = [_with_tensors(part, tensors) for part in _parts(value)]
    if isinstance(value, tuple):
        return tuple(parts)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **dict(zip((field.name for field in fields(value)), parts, strict=True)))
    return value


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return ()
