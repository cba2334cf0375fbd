"""The shapes world, written in the schema of each source and built again, says what was said of each pair."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from data_recipes.registry import RECIPES
from prefrm import media
from prefrm.records import SPLITS, PreferenceGroup, read_groups
from tests.data_recipes import exports
from tests.data_recipes.exports import said
from tests.data_recipes.sources import build, groups_of

Groups = dict[str, list[PreferenceGroup]]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    """With flipped labels in train: not everything is a ranking, and groups of one prompt may disagree."""
    out = tmp_path_factory.mktemp("shapes")
    RECIPES["shapes"].build(out, train=48, validation=6, test=12, flip=0.2)
    return {split: list(read_groups(out, split)) for split in SPLITS}


@pytest.mark.parametrize(
    ("export", "splits", "votes", "ties"),
    [
        (exports.pickapic, SPLITS, 1, True),
        (exports.hpdv3, ("train", "test"), 2, True),
        (exports.imagereward, SPLITS, 1, True),
        (exports.trl, SPLITS, 1, False),
    ],
)
def test_what_was_exported_is_built_again(
    tmp_path: Path,
    direct: Groups,
    export: Callable[[Path, exports.Splits], Path],
    splits: tuple[str, ...],
    votes: int,
    ties: bool,
) -> None:
    source = export(tmp_path / "in", direct)
    built = build(export.__name__, tmp_path / "out", source=source)
    assert tuple(built.groups) == splits
    again = {split: groups_of(tmp_path / "out", split) for split in splits}
    wanted = {split: said(direct[split], votes=votes, ties=ties) for split in splits}
    # What shares an image with what is held out is left out.
    held: set[str] = set()
    for split in sorted(splits, key=("test", "validation", "train").index):
        kept = {key: each for key, each in wanted[split].items() if not held & set(key)}
        assert said(again[split]) == kept
        held |= {digest for key in kept for digest in key[1:]}
    assert {p for p, _ in said(again["train"]).values()} >= {0.0, 1.0}
    for group in again["train"]:
        assert all(a < b for a, b in pairwise(media.digest(image or b"") for image in group.candidates))
