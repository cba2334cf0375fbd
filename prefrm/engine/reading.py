"""Passes of a language model whose rows attend to blocks that were read before.

Their attention is that of `prefrm.engine.attention`, in every family's layers (`prefrm.judge.attention`). Of
rows that are read out, the last layer computes the positions of the readout: nothing depends on its others
but the keys and values that these attend to.

Shapes: B rows, S tokens of a row, R readouts, P positions of a readout, H query heads, C heads of keys and
values, D numbers of a head.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from prefrm.engine.attention import Kept, Shared, merge_attention, padding
from prefrm.engine.compilation import PassGraphs
from prefrm.engine.plan import WHOLE
from prefrm.judge import ImageInput, Judge, Segment
from prefrm.judge.kernels import attend
from prefrm.judge.transfers import to_device

__all__ = ["Features", "LastPositions", "Reading", "Rows", "keep_rows", "read_rows"]

# Of a layer, what follows its attention: so these families name it, with adapters or without.
AFTER_ATTENTION = ("self_attn.o_proj", "mlp")
GRAPH_TOKENS = 2048
"""Of a pass that a GPU computes no faster than its kernels are launched one by one (`pass_sizes`)."""
GRAPH_ROWS = 256
"""Of a pass that is recorded: of more, the copies of blocks take hundreds of megabytes."""
Features = Mapping[ImageInput, torch.Tensor]


class Reading:
    """The attention of one pass of a language model over rows of tokens.

    Args:
        seen: what the rows attend to besides themselves.
        keep: of how many layers the pass's own keys and values are wanted; it ends with the last of them.
        read: where the last positions of each row are wanted; None where all are.
    """

    def __init__(self, seen: Sequence[Shared], *, keep: int = 0, read: "LastPositions | None" = None) -> None:
        self._seen = seen
        self._keep = keep
        self._read = read
        self.kept: list[torch.Tensor] = []
        """Keys and values of each layer so far, in turn."""

    def __call__(
        self, layer: int, q_BHSD: torch.Tensor, k_BCSD: torch.Tensor, v_BCSD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The attention of one layer, [B, S, H, D]."""
        if self._keep:
            self.kept += [k_BCSD, v_BCSD]
            if len(self.kept) == 2 * self._keep:
                raise _KeptAllError
        if self._read is not None and layer == self._read.layer:
            return self._at(self._read, layer, q_BHSD, k_BCSD, v_BCSD, scale)
        share = q_BHSD.shape[1] // k_BCSD.shape[1]
        k_BHSD, v_BHSD = (x.repeat_interleave(share, dim=1) for x in (k_BCSD, v_BCSD))
        own = attend(q_BHSD, k_BHSD, v_BHSD, scale=scale, causal=True)
        parts = [own, *(shared(q_BHSD, layer, scale) for shared in self._seen)]
        return merge_attention(parts).transpose(1, 2).contiguous()

    def _at(
        self,
        read: "LastPositions",
        layer: int,
        q_BHSD: torch.Tensor,
        k_BCSD: torch.Tensor,
        v_BCSD: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        (B, H, S, D), C = q_BHSD.shape, k_BCSD.shape[1]
        rows_RP, places_RP = read.reads_RP2.unbind(dim=2)
        P = rows_RP.shape[1]
        q_BHPD = q_BHSD.transpose(1, 2)[rows_RP[:B], places_RP[:B]].transpose(1, 2)
        # Query heads that share keys are queries of one head.
        mask = read.mask if P == 1 or read.mask is None else read.mask.repeat(1, 1, H // C, 1)
        found, sums = attend(q_BHPD.reshape(B, C, H // C * P, D), k_BCSD, v_BCSD, scale=scale, mask=mask)
        own = (found.reshape(B, H, P, D), sums.reshape(B, H, P))
        parts = [own, *(shared(q_BHPD, layer, scale) for shared in self._seen)]
        rows_R = rows_RP[:, 0]
        found_RHPD = merge_attention([(found[rows_R], sums[rows_R]) for found, sums in parts])
        whole_BSHD = q_BHSD.new_zeros(B, S, H, D)
        whole_BSHD[rows_RP, places_RP] = found_RHPD.transpose(1, 2)
        return whole_BSHD


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LastPositions:
    """The last positions of each row, the only ones that a layer computes; its others are 0.

    Attributes:
        layer: number of the layer.
        reads_RP2: int64, row and position of these: of each row in order, and then any of them again.
        mask: of what follows them in their rows [B, 1, P, W], as `attend` takes it for one query of each, or
            [B, 1, 1, W]; None if nothing follows them.
    """

    layer: int
    reads_RP2: torch.Tensor
    mask: torch.Tensor | None

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        size: int,
        layer: int,
        like: torch.Tensor,
        *,
        count: int = 1,
        fixed: bool,
    ) -> "LastPositions":
        """Of rows of these lengths, padded to `size`; arguments as of `padding` and `read_rows`.

        Args:
            count: P, the number of positions of each row.
        """
        reads = [[(n, place) for place in range(length - count, length)] for n, length in enumerate(lengths)]
        if fixed:
            reads += reads[:1] * (-len(reads) % WHOLE)
        seen = [length - before for length in lengths for before in reversed(range(count))]
        mask = padding(seen, size, like, always=fixed)
        if mask is not None:
            mask = mask.view(len(lengths), 1, count, -1)
        return cls(layer=layer, reads_RP2=to_device(reads, like.device), mask=mask)


class _KeptAllError(Exception):
    """Ends a pass of which only keys and values are wanted before the rest of its last layer."""


@contextmanager
def _only_at(layer: Any, reads_RP2: torch.Tensor) -> Iterator[None]:
    """In the block, what follows the layer's attention is computed for these rows and positions alone."""
    modules = [layer.get_submodule(name) for name in AFTER_ATTENTION]
    for module in modules:
        module.forward = partial(_at, module.forward, reads_RP2.flatten(0, 1).unbind(dim=1))
    try:
        yield
    finally:
        for module in modules:
            # The class's own method is found again.
            del module.forward


def _at(forward: Any, at: tuple[torch.Tensor, ...], x_BSD: torch.Tensor) -> torch.Tensor:
    found_RD: torch.Tensor = forward(x_BSD[at])
    whole_BSD = found_RD.new_zeros(*x_BSD.shape[:2], found_RD.shape[-1])
    whole_BSD[at] = found_RD
    return whole_BSD


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Segments side by side in one pass of the language model, each a row of tokens, padded on the right.

    Attributes:
        ids_BS: int64.
        positions_ABS: int64.
        lengths: of the rows without padding.
        images: in the order of their tokens.
    """

    ids_BS: torch.Tensor
    positions_ABS: torch.Tensor
    lengths: tuple[int, ...]
    images: tuple[ImageInput, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment], pad_id: int, length: int = 0) -> "Rows":
        """Rows of these segments, padded with `pad_id` to the longest, and to `length` at least."""
        lengths = tuple(map(len, segments))
        size = max(length, *lengths)
        ids_BS = torch.full((len(segments), size), pad_id)
        positions_BSA = torch.zeros(len(segments), size, len(segments[0].offsets_AL), dtype=torch.int64)
        real_BS = torch.arange(size) < torch.tensor(lengths)[:, None]
        ids_BS[real_BS] = torch.cat([segment.ids_L for segment in segments])
        starts_T = torch.tensor([segment.start for segment in segments]).repeat_interleave(
            torch.tensor(lengths)
        )
        offsets_AT = torch.cat([segment.offsets_AL for segment in segments], dim=1)
        positions_BSA[real_BS] = (offsets_AT + starts_T).T
        images = tuple(image for segment in segments for image in segment.images)
        return cls(
            ids_BS=ids_BS, positions_ABS=positions_BSA.permute(2, 0, 1), lengths=lengths, images=images
        )


def read_rows(
    judge: Judge,
    rows: Rows,
    seen: Sequence[Shared],
    features: Features,
    *,
    fixed: bool,
    graphs: PassGraphs | None = None,
) -> torch.Tensor:
    """The readings of the last positions of each row, each attending to itself and to what it shares.

    Args:
        judge: whose model reads.
        rows: of one pass.
        seen: what they attend to.
        features: of their images.
        fixed: whether the pass has a fixed shape; padding is masked even where there is none.
        graphs: of passes; None computes them as they are.
    """
    inputs = _Inputs.of(judge, rows, seen, features)
    size, last = rows.ids_BS.shape[1], len(judge.model.get_decoder().layers) - 1
    count = judge.processor.layout.reads
    read = LastPositions.of(rows.lengths, size, last, inputs.embeds_BSD, count=count, fixed=fixed)
    inputs = replace(inputs, read=read)
    (hidden_RPD,) = _run(judge, inputs, _hidden_at_ends, graphs)
    return judge.read(hidden_RPD)[: len(rows.lengths)]


def keep_rows(
    judge: Judge,
    rows: Rows,
    seen: Sequence[Shared],
    features: Features,
    graphs: PassGraphs | None = None,
) -> Kept:
    """The rows as blocks to which later rows attend; arguments as of `read_rows`.

    With `graphs` the next pass overwrites them.
    """
    inputs = _Inputs.of(judge, rows, seen, features)
    found = _run(judge, inputs, _keys_and_values, graphs)
    return found, rows.lengths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Inputs:
    """What a pass computes with.

    Attributes:
        embeds_BSD: embeddings of tokens and images.
        positions_ABS: int64.
        seen: what the rows attend to besides themselves.
        read: where the last positions of each row are wanted.
        deep: features that enter deeper layers [V, N, D], and where; None without such layers.
    """

    embeds_BSD: torch.Tensor
    positions_ABS: torch.Tensor
    seen: tuple[Shared, ...]
    read: LastPositions | None = None
    deep: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, judge: Judge, rows: Rows, seen: Sequence[Shared], features: Features) -> "_Inputs":
        ids_BS = to_device(rows.ids_BS, judge.device)
        embeds_BSD, features_VND, where_BS = judge.embed(ids_BS, [features[image] for image in rows.images])
        return cls(
            embeds_BSD=embeds_BSD,
            positions_ABS=to_device(rows.positions_ABS, judge.device),
            seen=tuple(seen),
            deep=(features_VND, where_BS) if len(features_VND) > 1 else None,
        )

    def gathered(self) -> "_Inputs":
        """The same with blocks of its own."""
        return replace(self, seen=tuple(shared.gathered() for shared in self.seen))


def _run(
    judge: Judge,
    inputs: _Inputs,
    compute: Callable[[Judge, _Inputs], list[torch.Tensor]],
    graphs: PassGraphs | None,
) -> list[torch.Tensor]:
    """The tensors that a pass computes."""
    # A large pass keeps a GPU busy, and features that enter deeper layers have any shapes.
    rows, length = inputs.embeds_BSD.shape[:2]
    is_large = rows > GRAPH_ROWS or rows * length > GRAPH_TOKENS
    if graphs is None or inputs.deep is not None or is_large:
        return compute(judge, inputs)
    return graphs.run(compute.__name__, inputs.gathered(), partial(compute, judge))


def _hidden_at_ends(judge: Judge, inputs: _Inputs) -> list[torch.Tensor]:
    """The last hidden states [R, P, D]."""
    assert inputs.read is not None
    last = judge.model.get_decoder().layers[inputs.read.layer]
    with _only_at(last, inputs.read.reads_RP2):
        hidden_BSD = _hidden(judge, inputs, Reading(inputs.seen, read=inputs.read))
    return [hidden_BSD[inputs.read.reads_RP2.unbind(dim=2)]]


def _keys_and_values(judge: Judge, inputs: _Inputs) -> list[torch.Tensor]:
    """Keys and values [B, C, S, D] of each layer in turn."""
    active = Reading(inputs.seen, keep=len(judge.model.get_decoder().layers))
    with suppress(_KeptAllError):
        _hidden(judge, inputs, active)
    return active.kept


def _hidden(judge: Judge, inputs: _Inputs, attend: Reading) -> torch.Tensor:
    embeds_BSD = inputs.embeds_BSD
    nothing = (embeds_BSD[:1, :0], torch.zeros_like(embeds_BSD[..., 0], dtype=torch.bool))
    features_VND, where_BS = nothing if inputs.deep is None else inputs.deep
    return judge.decode(embeds_BSD, inputs.positions_ABS, features_VND, where_BS, attend)
