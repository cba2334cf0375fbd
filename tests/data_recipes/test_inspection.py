from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from data_recipes.inspection import Spread, TagSummary, inspect_dataset, summarize
from prefrm import media
from prefrm.errors import ConfigError, DatasetError
from prefrm.records import (
    Comparison,
    DatasetInfo,
    PreferenceGroup,
    SplitCounts,
    fingerprint,
    write_groups,
    write_info,
)
from tests.data_recipes.sources import video

SMALL, WIDE = (media.encode_png(Image.new("RGB", size, "red")) for size in ((8, 8), (300, 100)))

FULL = PreferenceGroup(
    id="full",
    prompt="a red square",
    candidates=(SMALL, WIDE, SMALL),
    comparisons=(
        Comparison(i=0, j=1, p=1.0),  # agrees with the quality
        Comparison(i=0, j=2, p=0.0),  # contradicts it
        Comparison(i=1, j=2, p=0.5),
    ),
    quality=(1.0, 0.5, 0.5),
    tags={"skill": "colors"},
)
BROKEN = PreferenceGroup(
    id="broken",
    prompt="a blue square",
    candidates=(b"junk", SMALL, None),
    comparisons=(),
    tags={"skill": "colors"},
)


def write(folder: Path, **splits: list[PreferenceGroup]) -> None:
    for split, groups in splits.items():
        write_groups(groups, folder, split)
    prints = {split: fingerprint(groups) for split, groups in splits.items()}
    write_info(folder, DatasetInfo(recipe="hand", options={}, fingerprints=prints))


def test_a_split_is_counted() -> None:
    info = DatasetInfo(recipe="hand", options={}, fingerprints={"train": "another"})
    summary = summarize([FULL, BROKEN], info, "train")
    assert (summary.groups, summary.prompts, summary.candidates, summary.comparisons) == (2, 2, 5, 3)
    assert (summary.ties, summary.against_quality, summary.missing) == (1, 1, 1)
    assert summary.quality_pairs == 2
    assert summary.group_sizes == {3: 2}
    assert summary.image_sizes == {"8 x 8": 3, "300 x 100": 1}
    assert summary.tags == {"skill": {"colors": TagSummary(groups=2, comparisons=3, ties=1)}}
    assert summary.fingerprint_matches is False
    (line,) = summary.unreadable
    assert line.startswith("record broken, candidate 0: ")


def test_videos_texts_contexts_and_criteria_are_counted() -> None:
    answers = PreferenceGroup(
        id="answers",
        prompt="What is it?",
        candidates=("short", "a longer one", "longest of them"),
        comparisons=(
            Comparison(i=0, j=1, p=0.0),
            Comparison(i=1, j=2, p=0.0),
            Comparison(i=0, j=2, p=1.0),
            Comparison(i=0, j=2, p=0.5),
        ),
        context=(WIDE,),
        criterion="helpfulness",
    )
    clips = replace(answers, id="clips", candidates=(video("a"), video("b"), video("a")[:99]), criterion="")
    clips = replace(clips, comparisons=(), context=())
    info = DatasetInfo(recipe="hand", options={}, fingerprints={})
    found = summarize([answers, clips], info, "train")
    assert (found.kinds, found.criteria) == ({"text": 1, "video": 1}, {"helpfulness": 1, "": 1})
    assert (found.context_images, found.image_sizes) == (1, {"300 x 100": 1})
    assert found.longer_wins == 2 / 3
    assert found.text_characters == Spread(least=5, median=12, most=15)
    assert found.video_frames == Spread(least=10, median=10, most=10)
    assert found.video_seconds is not None and found.video_seconds.median == pytest.approx(1.0)
    assert sum(found.video_sizes.values()) == 2
    (line,) = found.unreadable
    assert line.startswith("record clips, candidate 2: ")


def test_a_folder_is_summarized_and_leaks_are_found(tmp_path: Path) -> None:
    write(tmp_path, train=[FULL], test=[BROKEN])
    clean = inspect_dataset(tmp_path)
    assert list(clean.splits) == ["train", "test"]
    assert clean.shared_prompts == ()
    # Both groups hold SMALL.
    assert clean.shared_images == 1
    assert clean.splits["train"].fingerprint_matches is True

    write(tmp_path, train=[FULL], test=[replace(FULL, prompt="A red  square")])
    leaking = inspect_dataset(tmp_path, split="test")
    assert list(leaking.splits) == ["test"]
    assert leaking.shared_prompts == ("a red square",)
    assert leaking.shared_images == 2


def test_places_and_digests_tell_labels_or_do_not(tmp_path: Path) -> None:
    """HPDv3 always has the preferred image first; by digest, one of its two pairs has."""
    groups = [
        replace(
            FULL, id=f"{n}", candidates=(SMALL, WIDE), comparisons=(Comparison(i=0, j=1, p=p),), quality=None
        )
        for n, p in enumerate((1.0, 0.0, 0.5))
    ]
    write_groups(groups, tmp_path, "train")
    counts = SplitCounts(groups=3, candidates=6, strict=2, ties=1, first_wins=1.0)
    info = DatasetInfo(recipe="hand", options={}, fingerprints={}, splits={"train": counts})
    write_info(tmp_path, info)
    summary = inspect_dataset(tmp_path).splits["train"]
    assert (summary.first_wins, summary.digest_wins) == (1.0, 0.5)
    all_first = summarize(groups[:1], info, "test")
    assert (all_first.first_wins, all_first.digest_wins) == (
        None,
        float(media.digest(SMALL) < media.digest(WIDE)),
    )


def test_an_altered_split_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, train=[FULL])
    write_groups([BROKEN], tmp_path, "train")
    assert inspect_dataset(tmp_path).splits["train"].fingerprint_matches is False


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a dataset"):
        inspect_dataset(tmp_path)
    write(tmp_path)
    with pytest.raises(DatasetError, match="holds no split"):
        inspect_dataset(tmp_path)
    write(tmp_path, train=[FULL])
    with pytest.raises(DatasetError, match=r"splits found in .*: train"):
        inspect_dataset(tmp_path, split="test")
    with pytest.raises(ConfigError, match="unknown split 'dev'; it must be one of train, validation, test"):
        inspect_dataset(tmp_path, split="dev")
