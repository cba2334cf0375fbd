"""Preference groups, written as a published dataset is: the splits that it has, in its files and its columns.

Each function takes a folder and the groups of each split, and returns what `--set source=` names.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from prefrm import media
from prefrm.records import Comparison, PreferenceGroup
from tests.data_recipes.sources import write_json, write_parquet

__all__ = ["Said", "Splits", "hpdv3", "imagereward", "pickapic", "said", "trl"]

Splits: TypeAlias = Mapping[str, Sequence[PreferenceGroup]]


Said: TypeAlias = dict[tuple[str, str, str], tuple[float, float]]
"""(prompt, lower digest, higher digest) -> (P(the first is preferred), weight)."""


def said(groups: Sequence[PreferenceGroup], *, votes: float = 1.0, ties: bool = True) -> Said:
    """What groups say of each two images of a prompt, however they are grouped: the mean of p by weight, and
    the sum of the weights. A pair of equal images says nothing.

    Args:
        groups: of one split.
        votes: a factor of every weight.
        ties: whether comparisons with p = 0.5 count.
    """
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for group in groups:
        digests = [media.digest(image or b"") for image in group.candidates]
        for c in group.comparisons:
            one = c if digests[c.i] < digests[c.j] else c.swapped()
            if digests[c.i] != digests[c.j] and (ties or c.is_strict):
                key = (group.prompt, digests[one.i], digests[one.j])
                found.setdefault(key, []).append((one.p, one.weight))
    totals = {key: sum(weight for _, weight in each) for key, each in found.items()}
    # 1 - (1 - p) is not p to the last bit.
    means = {key: round(sum(p * w for p, w in each) / totals[key], 12) for key, each in found.items()}
    return {key: (means[key], votes * total) for key, total in totals.items()}


def pickapic(folder: Path, splits: Splits) -> Path:
    """Parquet files with the columns of the Hub; images are bytes, not an Image feature."""
    names = {"train": "train", "validation": "validation_unique", "test": "test_unique"}
    for split, groups in splits.items():
        rows = [_pickapic_row(n, group, c) for n, (group, c) in enumerate(_pairs(groups))]
        write_parquet(folder / "data" / f"{names[split]}-00000-of-00001.parquet", rows)
    return folder


def _pickapic_row(number: int, group: PreferenceGroup, c: Comparison) -> dict[str, Any]:
    images = group.candidates[c.i] or b"", group.candidates[c.j] or b""
    first, second = map(media.digest, images)
    return {
        "are_different": first != second,
        "best_image_uid": {1.0: first, 0.5: "tie", 0.0: second}[c.p],
        "caption": group.prompt,
        "created_at": datetime(2023, 1, 1),
        "has_label": True,
        "image_0_uid": first,
        "image_0_url": f"https://images.invalid/{first}.png",
        "image_1_uid": second,
        "image_1_url": f"https://images.invalid/{second}.png",
        "jpg_0": images[0],
        "jpg_1": images[1],
        "label_0": c.p,
        "label_1": 1.0 - c.p,
        "model_0": "shapes",
        "model_1": "shapes",
        "ranking_id": number,
        "user_id": 0,
        "num_example_per_prompt": len(group.comparisons),
        "__index_level_0__": number,
    }


def hpdv3(folder: Path, splits: Splits) -> Path:
    """One JSON file a split, `path1` always preferred, two votes on each pair; there is no validation."""
    for split in ("train", "test"):
        rows = [_hpdv3_row(folder, group, c) for group, c in _pairs(splits[split])]
        write_json(folder / f"{split}.json", rows)
    return folder


def _hpdv3_row(folder: Path, group: PreferenceGroup, c: Comparison) -> dict[str, Any]:
    better = c if c.p >= 0.5 else c.swapped()
    return {
        "prompt": group.prompt,
        "choice_dist": [2, 0] if c.is_strict else [1, 1],
        "confidence": better.p,
        "path1": _save(folder, "images", group.candidates[better.i]),
        "path2": _save(folder, "images", group.candidates[better.j]),
        "model1": "shapes",
        "model2": "shapes",
    }


def imagereward(folder: Path, splits: Splits) -> Path:
    """The repository's JSON: a ranking a row. Labels that are no ranking are rankings of two images each."""
    for split, groups in splits.items():
        rows = [row for group in groups for row in _rankings(folder / split, split, group)]
        write_json(folder / f"{split}.json", rows)
    return folder


def _rankings(folder: Path, split: str, group: PreferenceGroup) -> Iterator[dict[str, Any]]:
    paths = [f"{split}/{_save(folder, 'images', image)}" for image in group.candidates]
    row = {"id": group.id, "prompt": group.prompt}
    if (ranking := _ranking(group)) is not None:
        yield {**row, "generations": paths, "ranking": ranking}
        return
    for c in group.comparisons:
        ranks = [1, 1] if not c.is_strict else [1, 2] if c.p == 1.0 else [2, 1]
        yield {
            "id": f"{group.id}-{c.i}-{c.j}",
            "prompt": group.prompt,
            "generations": [paths[c.i], paths[c.j]],
            "ranking": ranks,
        }


def _ranking(group: PreferenceGroup) -> list[int] | None:
    """Ranks, 1 for the best, that say what the comparisons say; None if there are none.

    Of an image that stands twice, a ranking would say once what the comparisons say twice.
    """
    if len(set(group.candidates)) < len(group.candidates):
        return None
    wins = [0.0] * len(group.candidates)
    for c in group.comparisons:
        wins[c.i] += c.p
        wins[c.j] += 1.0 - c.p
    places = sorted(set(wins), reverse=True)
    ranks = [places.index(score) + 1 for score in wins]
    same = all(c.p == (0.5, 1.0, 0.0)[_sign(ranks[c.j] - ranks[c.i])] for c in group.comparisons)
    return ranks if same else None


def _sign(number: int) -> int:
    """0 or 1, or -1 for a negative number."""
    return (number > 0) - (number < 0)


def trl(folder: Path, splits: Splits) -> Path:
    """`datasets.save_to_disk` of prompt, chosen and rejected, which are Image features; ties have no form."""
    import datasets

    features = datasets.Features(
        {"prompt": datasets.Value("string"), "chosen": datasets.Image(), "rejected": datasets.Image()}
    )
    saved = {}
    for split, groups in splits.items():
        ordered = [(g, c if c.p > 0.5 else c.swapped()) for g, c in _pairs(groups) if c.is_strict]
        columns = {
            "prompt": [group.prompt for group, _ in ordered],
            "chosen": [{"bytes": group.candidates[c.i], "path": None} for group, c in ordered],
            "rejected": [{"bytes": group.candidates[c.j], "path": None} for group, c in ordered],
        }
        saved[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(saved).save_to_disk(str(folder))
    return folder


def _pairs(groups: Sequence[PreferenceGroup]) -> Iterator[tuple[PreferenceGroup, Comparison]]:
    return ((group, c) for group in groups for c in group.comparisons)


def _save(folder: Path, images: str, image: bytes | None) -> str:
    """Write an image once; returns its path in the folder."""
    assert image is not None, "the shapes world lacks no image"
    path = folder / images / f"{media.digest(image)}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return f"{images}/{path.name}"
