"""The training tables that `label` writes: each is named after the trainer that reads it as it is.

    out/trl_dpo/train.parquet         TRL's `DPOTrainer`, for policies that write text, such as an SVG
    out/diffusion_dpo/train.parquet   Diffusion-DPO's `train.py --dataset_name out/diffusion_dpo`, for
                                      policies that make images

`datasets.load_dataset(folder)` reads each folder, with the split "train". The first table is of candidates
that are texts, or that carry those that they were made from (`PreferenceGroup.completions`); the second of
candidates that are images.

| `trl_dpo` | |
|---|---|
| `prompt` | text, or a list with one user message |
| `images` | the context images, which `datasets` decodes; only if a group has some |
| `chosen`, `rejected` | the candidates' texts, or lists with one assistant message |

TRL shows images to a vision-language model in conversations alone, so a table with `images` has messages.

TRL concatenates prompt and text, so a text that would touch its prompt begins with a blank, as in TRL's own
examples.

| `diffusion_dpo` | |
|---|---|
| `caption` | the prompt |
| `jpg_0`, `jpg_1` | the two encoded images as bytes, in the group's order: no place tells the label |
| `label_0`, `label_1` | 1 for the chosen image, 0 for the other |

The script ignores EXIF, so an image that its EXIF turns is stored as an upright PNG.

Both tables then have

| | |
|---|---|
| `id` | of the group |
| `criterion` | that the judge was asked by; empty for overall preference and for several criteria |
| `margin` | P(chosen beats rejected) - P(rejected beats chosen), in (0, 1] |
| `chosen_index`, `rejected_index` | the candidates' places in their group |
| `chosen_win_rate`, `rejected_win_rate` | their win rates in the whole group |
| `margin NAME` | the margin by each of several criteria, in [-1, 1] or NaN |
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm import media
from prefrm.files import write_file_whole
from prefrm.label.shards import METADATA_KEY, LabelledGroup, pyarrow
from prefrm.records import PreferenceGroup
from prefrm.rewards import PreferencePair, criterion_name

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DIFFUSION_DPO", "TRL_DPO", "Table", "diffusion_dpo_row", "trl_dpo_row", "writing"]

ROW_GROUP = 256
Add = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table: the folder that holds it and the trainer that reads it."""

    name: str
    consumer: str

    def path(self, out: Path) -> Path:
        """Where it is, in the output folder."""
        return out / self.name / "train.parquet"


TRL_DPO = Table(name="trl_dpo", consumer="TRL's DPOTrainer")
DIFFUSION_DPO = Table(name="diffusion_dpo", consumer="Diffusion-DPO's train.py")


@contextmanager
def writing(
    table: Table,
    out: Path,
    *,
    conversational: bool = False,
    images: bool = False,
    criteria: Sequence[str] = (),
) -> Iterator[Add]:
    """Write the rows that the block adds, whole or not at all.

    `images` says whether rows have some, `criteria` by which there is a margin.
    """
    pa, pq = pyarrow()
    schema = _schema(pa, table, conversational, images, criteria)
    path = table.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list[dict[str, Any]]()
    with write_file_whole(path) as partial, pq.ParquetWriter(partial, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def add(row: dict[str, Any]) -> None:
            rows.append(row)
            if len(rows) == ROW_GROUP:
                flush()

        yield add
        flush()


def trl_dpo_row(
    group: PreferenceGroup, pair: PreferencePair, labelled: LabelledGroup, *, conversational: bool
) -> dict[str, Any] | None:
    """The row of a pair in `TRL_DPO`; None if one of the two has no text."""
    made_from = group.completions or (None,) * len(group.candidates)
    texts = [
        candidate if isinstance(candidate, str) else text
        for candidate, text in zip(group.candidates, made_from, strict=True)
    ]
    chosen, rejected = texts[pair.chosen], texts[pair.rejected]
    if chosen is None or rejected is None:
        return None
    row: dict[str, Any] = {"prompt": group.prompt, "chosen": chosen, "rejected": rejected}
    if conversational:
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        row = {name: [{"role": roles[name], "content": text}] for name, text in row.items()}
    else:
        row |= {name: _after(group.prompt, row[name]) for name in ("chosen", "rejected")}
    images = [{"bytes": media.upright(image), "path": None} for image in group.context]
    return row | {"images": images} | _provenance(group, pair, labelled)


def diffusion_dpo_row(
    group: PreferenceGroup, pair: PreferencePair, labelled: LabelledGroup
) -> dict[str, Any]:
    """The row of a pair in `DIFFUSION_DPO`."""
    first, second = sorted((pair.chosen, pair.rejected))
    images = group.group().encoded
    return {
        "caption": group.prompt,
        "jpg_0": _upright(images[first]),
        "jpg_1": _upright(images[second]),
        "label_0": float(pair.chosen == first),
        "label_1": float(pair.chosen == second),
        **_provenance(group, pair, labelled),
    }


def _upright(image: bytes | None) -> bytes:
    assert image is not None, "a judged candidate has an image"
    return media.upright(image)


def _after(prompt: str, text: str) -> str:
    """The text apart from the prompt that it follows."""
    return text if prompt[-1:].isspace() or text[:1].isspace() else f" {text}"


def _provenance(group: PreferenceGroup, pair: PreferencePair, labelled: LabelledGroup) -> dict[str, Any]:
    rate = labelled.matrix.win_rate(on_missing="drop")
    margins = {
        _margin(name): 2 * float(matrix.p[pair.chosen, pair.rejected]) - 1
        for name, matrix in labelled.criteria.items()
    }
    return {
        "id": group.id,
        "criterion": labelled.criterion,
        "margin": pair.margin,
        "chosen_index": pair.chosen,
        "rejected_index": pair.rejected,
        "chosen_win_rate": float(rate[pair.chosen]),
        "rejected_win_rate": float(rate[pair.rejected]),
        **margins,
    }


def _margin(criterion: str) -> str:
    return f"margin {criterion_name(criterion)}"


def _schema(
    pa: Any, table: Table, conversational: bool, images: bool, criteria: Sequence[str]
) -> "pa.Schema":
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    text = messages if conversational else pa.string()
    columns = {
        TRL_DPO: [("prompt", text), ("chosen", text), ("rejected", text)],
        DIFFUSION_DPO: [
            ("caption", pa.string()),
            ("jpg_0", pa.binary()),
            ("jpg_1", pa.binary()),
            ("label_0", pa.float64()),
            ("label_1", pa.float64()),
        ],
    }[table]
    columns += [("id", pa.string()), ("criterion", pa.string()), ("margin", pa.float64())]
    columns += [("chosen_index", pa.int32()), ("rejected_index", pa.int32())]
    columns += [("chosen_win_rate", pa.float32()), ("rejected_win_rate", pa.float32())]
    columns += [(_margin(name), pa.float64()) for name in criteria]
    metadata = {METADATA_KEY: json.dumps({"consumer": table.consumer})}
    if not (images and table == TRL_DPO):
        return pa.schema(columns).with_metadata(metadata)
    from datasets import Features, Image, List

    plain = pa.schema(columns)
    features = Features(Features.from_arrow_schema(plain) | {"images": List(Image())})
    return features.arrow_schema.with_metadata(features.arrow_schema.metadata | metadata)
