"""The shapes world, written in the schema of each source and built again, says what the oracle said."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_recipes.registry import RECIPES
from prefrm import media
from prefrm.records import PreferenceGroup, read_groups
from tests.data_recipes.sources import build, write_json, write_parquet

Said = dict[tuple[str, str, str], float]


def said(groups: Sequence[PreferenceGroup]) -> Said:
    """(prompt, lower digest, higher digest) -> P(the first is preferred); equal images are left out."""
    found: Said = {}
    for group in groups:
        digests = [media.digest(image or b"") for image in group.images]
        for c in group.comparisons:
            one = c if digests[c.i] < digests[c.j] else c.swapped()
            if digests[c.i] != digests[c.j]:
                found[group.prompt, digests[one.i], digests[one.j]] = one.p
    return found


def pairs_of(groups: Sequence[PreferenceGroup]) -> list[tuple[str, bytes, bytes, float]]:
    """(prompt, preferred image or either of a tie, the other, p)."""
    return [
        (g.prompt, g.images[c.i] or b"", g.images[c.j] or b"", c.p)
        for g in groups
        for one in g.comparisons
        for c in [one if one.p >= 0.5 else one.swapped()]
    ]


def save(folder: Path, image: bytes) -> str:
    path = folder / "images" / f"{media.digest(image)}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(image)
    return f"images/{path.name}"


def pickapic(folder: Path, groups: Sequence[PreferenceGroup]) -> Path:
    rows = [
        {"caption": prompt, "jpg_0": b, "jpg_1": a, "label_0": 1 - p, "label_1": p, "has_label": True}
        for prompt, a, b, p in pairs_of(groups)
    ]
    return write_parquet(folder / "train-00000-of-00001.parquet", rows)


def hpdv3(folder: Path, groups: Sequence[PreferenceGroup]) -> Path:
    rows = [
        {
            "prompt": prompt,
            "path1": save(folder, a),
            "path2": save(folder, b),
            "choice_dist": [3, 3] if p == 0.5 else None,
        }
        for prompt, a, b, p in pairs_of(groups)
    ]
    return write_json(folder / "train.json", rows)


def imagereward(folder: Path, groups: Sequence[PreferenceGroup]) -> Path:
    rows: list[dict[str, Any]] = []
    for group in groups:
        order = sorted(set(group.quality or ()), reverse=True)
        paths = [save(folder, image or b"") for image in group.images]
        ranking = [order.index(score) + 1 for score in group.quality or ()]
        rows.append({"id": group.id, "prompt": group.prompt, "generations": paths, "ranking": ranking})
    return write_json(folder / "train.json", rows)


def trl(folder: Path, groups: Sequence[PreferenceGroup]) -> Path:
    rows = [{"prompt": q, "chosen": a, "rejected": b} for q, a, b, p in pairs_of(groups) if p != 0.5]
    return write_parquet(folder / "train.parquet", rows, images=("chosen", "rejected"))


@pytest.mark.parametrize("write", [pickapic, hpdv3, imagereward, trl])
def test_what_was_exported_is_built_again(
    tmp_path: Path, write: Callable[[Path, Sequence[PreferenceGroup]], Path]
) -> None:
    RECIPES["shapes"].build(tmp_path / "shapes", train=24, validation=6, test=6, flip=0.0)
    groups = list(read_groups(tmp_path / "shapes", "train"))
    (tmp_path / "in").mkdir()
    build(write.__name__, tmp_path / "out", source=write(tmp_path / "in", groups))
    again = list(read_groups(tmp_path / "out", "train"))
    wanted = {key: p for key, p in said(groups).items() if p != 0.5 or write is not trl}
    assert said(again) == wanted
    assert {0.0, 1.0} <= set(wanted.values())
    assert all(
        a < b for group in again for a, b in pairwise(media.digest(image or b"") for image in group.images)
    )
