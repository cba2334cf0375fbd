"""Chosen/rejected pairs from win matrices, as one parquet file that trainers load as it is.

Two kinds of trainers want pairs. One trains what makes *images* (Diffusion-DPO): it needs the prompt and
the two images, and every labelled dataset can give it that. The other trains what writes *text* that
becomes an image, such as a drawing program or an SVG, and TRL's `DPOTrainer` is one: it needs the two
texts, which only a dataset whose candidates carry them (`PreferenceGroup.texts`) can give. An image that
was generated is no text, and nothing is put in a text's place.

| column | |
|---|---|
| `id` | of the group |
| `prompt` | text, or a list with one user message |
| `chosen`, `rejected` | the candidates' texts, or lists with one assistant message; absent without texts |
| `chosen_image`, `rejected_image` | `datasets.Image`: `{bytes, path}` |
| `margin` | P(chosen beats rejected) - P(rejected beats chosen), in (0, 1] |
| `chosen_index`, `rejected_index` | the candidates' places in their group |
| `chosen_win_rate`, `rejected_win_rate` | their win rates in the whole group |

No column is called `image` or `images`: to TRL those are inputs that belong to the prompt.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from prefrm.chunks import chunks
from prefrm.errors import ConfigError, DatasetError
from prefrm.label.shards import (
    LabelledGroup,
    check_shard,
    labelled_shards,
    pyarrow,
    read_metadata,
    read_shard,
)
from prefrm.records import PreferenceGroup
from prefrm.rewards import PreferencePair, dpo_pairs, ranking
from prefrm.winmatrix import WinMatrix

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PairSummary", "Select", "write_pairs"]

Select = Literal["best_worst", "all"]

ROW_GROUP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """What became of the pairs that were asked for.

    Attributes:
        groups: number of groups.
        pairs: rows written.
        unjudged: pairs left out because they were not judged, nor inferred where that is enough.
        below_margin: pairs left out because neither candidate is preferred by more than the margin.
        without_text: pairs left out because other groups carry texts and one of these candidates does not.
    """

    groups: int = 0
    pairs: int = 0
    unjudged: int = 0
    below_margin: int = 0
    without_text: int = 0

    def __add__(self, other: "PairSummary") -> "PairSummary":
        mine, theirs = asdict(self), asdict(other)
        return PairSummary(**{name: mine[name] + theirs[name] for name in mine})


def write_pairs(
    groups: Iterable[PreferenceGroup],
    out: Path | str,
    *,
    select: Select = "best_worst",
    min_margin: float = 0.0,
    conversational: bool = False,
) -> PairSummary:
    """Write `out/pairs.parquet` from the win matrices in `out`; whole or not at all.

    Args:
        groups: the groups that were labelled into `out`, in the same order; their images and texts.
        out: the folder that `label` filled.
        select: "best_worst" takes each group's highest against its lowest win rate, also if the pair was
            inferred, since their win rates are; "all" every pair that was judged.
        min_margin: in [0, 1); only pairs with a wider margin are written.
        conversational: write prompt and texts as messages, for a policy that has a chat template.

    Raises:
        DatasetError: nothing was labelled into `out`, or it was labelled from other groups.
        ConfigError: `select` or `min_margin` is not as described.
    """
    if select not in get_args(Select):
        raise ConfigError(f"select must be one of {', '.join(get_args(Select))}; received {select!r}")
    pa, pq = pyarrow()
    folder = Path(out)
    partial = folder / "pairs.partial"
    with_texts = any(read_metadata(path).summary.with_texts for path in labelled_shards(folder))
    schema = _schema(pa, with_texts, conversational)
    total = PairSummary()

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal total
        for group, labelled in _matched(groups, folder):
            kept, summary = _select(labelled.matrix, select, min_margin)
            told = [pair for pair in kept if not with_texts or _has_texts(group, pair)]
            total += summary + PairSummary(groups=1, pairs=len(told), without_text=len(kept) - len(told))
            yield from (_to_row(group, labelled, pair, conversational) for pair in told)

    try:
        with pq.ParquetWriter(partial, schema) as writer:
            for batch in chunks(rows(), ROW_GROUP):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
        partial.replace(folder / "pairs.parquet")
    finally:
        partial.unlink(missing_ok=True)
    return total


def _matched(
    groups: Iterable[PreferenceGroup], folder: Path
) -> Iterator[tuple[PreferenceGroup, LabelledGroup]]:
    """Each group beside its labels, after its shard's fingerprint was compared."""
    stream = iter(groups)
    for path in labelled_shards(folder):
        part = list(islice(stream, read_metadata(path).summary.groups))
        check_shard(path, part)
        yield from zip(part, read_shard(path), strict=True)
    if (extra := next(stream, None)) is not None:
        raise DatasetError(
            f"{folder} has no labels of the group {extra.id!r} and the rest; label the whole dataset first"
        )


def _select(matrix: WinMatrix, select: Select, min_margin: float) -> tuple[list[PreferencePair], PairSummary]:
    """The pairs to write, widest margin first, and what was left out."""
    wide = dpo_pairs(matrix, min_margin=min_margin, inferred=select == "best_worst", on_missing="drop")
    if select == "all":
        unjudged = int(np.triu(~matrix.valid, 1).sum())
        asked = matrix.size * (matrix.size - 1) // 2
    else:
        order = ranking(matrix)
        ends = (order[0], order[-1]) if len(order) > 1 else (0, 0)
        wide = [pair for pair in wide if (pair.chosen, pair.rejected) == ends]
        unjudged, asked = int(ends[0] == ends[1] or not matrix.known[ends]), 1
    return wide, PairSummary(unjudged=unjudged, below_margin=asked - unjudged - len(wide))


def _has_texts(group: PreferenceGroup, pair: PreferencePair) -> bool:
    texts = group.texts
    return texts is not None and texts[pair.chosen] is not None and texts[pair.rejected] is not None


def _to_row(
    group: PreferenceGroup, labelled: LabelledGroup, pair: PreferencePair, conversational: bool
) -> dict[str, Any]:
    """One row; the schema drops `chosen` and `rejected` where the dataset has no texts."""
    rate = labelled.matrix.win_rate(on_missing="drop")
    texts = group.texts or (None,) * len(group.images)

    def said(role: str, text: str | None) -> Any:
        return [{"role": role, "content": text}] if conversational else text

    return {
        "id": group.id,
        "prompt": said("user", group.prompt),
        "chosen": said("assistant", texts[pair.chosen]),
        "rejected": said("assistant", texts[pair.rejected]),
        "chosen_image": {"bytes": group.images[pair.chosen], "path": None},
        "rejected_image": {"bytes": group.images[pair.rejected], "path": None},
        "margin": pair.margin,
        "chosen_index": pair.chosen,
        "rejected_index": pair.rejected,
        "chosen_win_rate": float(rate[pair.chosen]),
        "rejected_win_rate": float(rate[pair.rejected]),
    }


def _schema(pa: Any, with_texts: bool, conversational: bool) -> "pa.Schema":
    """The columns, with the note by which `datasets` knows the two image columns from other structs."""
    spoken = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    text = spoken if conversational else pa.string()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("id", pa.string()), ("prompt", text)]
    columns += [("chosen", text), ("rejected", text)] if with_texts else []
    columns += [("chosen_image", image), ("rejected_image", image), ("margin", pa.float64())]
    columns += [("chosen_index", pa.int32()), ("rejected_index", pa.int32())]
    columns += [("chosen_win_rate", pa.float32()), ("rejected_win_rate", pa.float32())]
    features = {name: _feature(pa, kind, is_image=kind is image) for name, kind in columns}
    return pa.schema(columns).with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(pa: Any, kind: Any, *, is_image: bool) -> dict[str, Any]:
    """A column's type in the words of `datasets.Features.to_dict`."""
    if is_image:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        message = {name: {"dtype": "string", "_type": "Value"} for name in ("role", "content")}
        return {"feature": message, "_type": "List"}
    names = {pa.float64(): "float64", pa.float32(): "float32"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}
