"""What the tests of recipes share: small images, files in the schema of a source, and who was preferred."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_recipes.plan import Built
from data_recipes.registry import get_recipe
from prefrm import media
from prefrm.records import PreferenceGroup, read_groups
from prefrm.video import encode_video

__all__ = [
    "BROKEN",
    "build",
    "groups_of",
    "image",
    "preferences",
    "video",
    "write_image",
    "write_json",
    "write_jsonl",
    "write_parquet",
    "write_tar",
]

BROKEN = b"\xff\xd8\xff\xe0 this is no JPEG"


@cache
def image(name: str) -> bytes:
    """An encoded image that differs from that of every other name."""
    color = tuple(hashlib.sha256(name.encode()).digest()[:3])
    return media.encode_png(Image.new("RGB", (8, 8), color))


def write_image(path: Path, name: str | None = None) -> Path:
    """Write the image of a name, by default the file's; that of "broken" is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = name or path.stem
    path.write_bytes(BROKEN if name == "broken" else image(name))
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(
    path: Path, rows: Sequence[Mapping[str, Any]], images: Sequence[str] = (), row_group_size: int = 1000
) -> Path:
    """A parquet file, as `datasets` writes it; `images` are columns with the Image feature."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [{k: {"bytes": v, "path": None} if k in images else v for k, v in row.items()} for row in rows]
    table = pa.Table.from_pylist(plain)
    features = {"info": {"features": {column: {"_type": "Image"} for column in images}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def build(recipe: str, out: Path, *, shares: tuple[float, float] = (0.0, 0.0), **options: Any) -> Built:
    """Build a dataset, by default with nothing held out but what the source holds out itself."""
    validation, test = shares
    return get_recipe(recipe).build(out, validation=validation, test=test, **options)


def groups_of(out: Path, split: str = "train") -> list[PreferenceGroup]:
    return list(read_groups(out, split))


@cache
def video(name: str) -> bytes:
    """An encoded video that differs from that of every other first letter."""
    side = 16 + 2 * (ord(name[0]) % 16)
    return encode_video([Image.new("RGB", (side, 16), (25 * n, 9, 9)) for n in range(10)], 10)


def preferences(
    out: Path,
    *names: str,
    split: str = "train",
    content: Callable[[str], bytes | str] = image,
    criterion: str = "",
) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(prompt, first, second) -> (P(first is preferred), weight), for candidates of these names.

    Every comparison by the criterion is there once; the names are in the order of the arguments. `content`
    makes a candidate of a name.
    """
    known = {content(name): name for name in names}
    return dict(_named([g for g in groups_of(out, split) if g.criterion == criterion], known))


def _named(
    groups: Sequence[PreferenceGroup], known: Mapping[bytes | str, str]
) -> Iterator[tuple[tuple[str, str, str], tuple[float, float]]]:
    order = list(known.values())
    for group in groups:
        assert list(group.candidates) == sorted(group.candidates, key=lambda data: media.digest(data or b""))
        for c in group.comparisons:
            first, second = (known[group.candidates[n] or b""] for n in (c.i, c.j))
            if order.index(second) < order.index(first):
                first, second, c = second, first, c.swapped()
            # Whichever image has the lower digest, 1 - (1 - p) is not p to the last bit.
            yield (group.prompt, first, second), (round(c.p, 12), c.weight)
