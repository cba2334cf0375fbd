"""GenAI-Bench with ratings: images of a row are compared by the means of their ratings."""

from pathlib import Path
from typing import Any

from tests.data_recipes.sources import BROKEN, build, groups_of, image, preferences, write_parquet

MODELS = ("DALLE_3", "DeepFloyd_I_XL_v1", "Midjourney_6", "SDXL_2_1", "SDXL_Base", "SDXL_Turbo")


def row(
    index: int, prompt: str, images: list[bytes], ratings: list[list[int] | None], advanced: list[str]
) -> dict[str, Any]:
    """A row of the published schema."""
    return {
        "Index": index,
        "Prompt": prompt,
        "Tags": {"advanced": advanced, "basic": ["Attribute", "Scene"]},
        "HumanRatings": dict(zip(MODELS, ratings, strict=True)),
        **dict(zip(MODELS, images, strict=True)),
    }


def test_images_of_a_row_are_compared_by_mean_rating(tmp_path: Path) -> None:
    a, b, c, d, e, f, g, h = map(image, "abcdefgh")
    ratings = [[5, 5, 4], [4, 5, 5], [1, 2, 1], [5, 5, 5], [3, 3, 3], None]
    first = row(0, "a cat", [a, b, c, BROKEN, d, e], ratings, ["Counting"])
    # The prompt recurs: these images are not compared with those above, only with each other.
    other = [[1, 1, 1], [2, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    second = row(1, "A cat", [f, g, h, BROKEN, BROKEN, BROKEN], other, [])
    source = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(source, [first, second], images=MODELS)
    built = build("genai_bench_ratings", tmp_path / "out", source=tmp_path / "data")
    assert preferences(tmp_path / "out", *"abcdefgh") == {
        ("a cat", "a", "b"): (0.5, 1.0),
        ("a cat", "a", "c"): (1.0, 1.0),
        ("a cat", "a", "d"): (1.0, 1.0),
        ("a cat", "b", "c"): (1.0, 1.0),
        ("a cat", "b", "d"): (1.0, 1.0),
        ("a cat", "c", "d"): (0.0, 1.0),
        ("a cat", "f", "g"): (0.0, 1.0),
        ("a cat", "f", "h"): (0.5, 1.0),
        ("a cat", "g", "h"): (1.0, 1.0),
    }
    counts = built.info.splits["train"]
    assert (counts.strict, counts.ties, counts.left_out) == (7, 2, {"broken image": 4})
    by_skills = {group.tags["skills"]: group for group in groups_of(tmp_path / "out")}
    assert e in by_skills["advanced"].candidates  # unrated
    assert len(by_skills["basic"].candidates) == 3


def test_an_image_that_a_row_lacks_takes_its_own_rating_alone(tmp_path: Path) -> None:
    ratings: list[list[int] | None] = [[n, n, n] for n in (1, 2, 3, 4, 5, 5)]
    rows = [row(n, f"cat {n}", [image(f"{n} {m}") for m in MODELS], ratings, []) for n in range(2)]
    rows[0] |= {"DALLE_3": b"", "SDXL_Base": None}
    source = write_parquet(tmp_path / "train.parquet", rows, images=MODELS)
    built = build("genai_bench_ratings", tmp_path / "out", source=source)
    assert sorted(len(group.candidates) for group in groups_of(tmp_path / "out")) == [4, 6]
    assert built.info.left_out == {"broken image": 2}
    assert built.left_out == (
        "record train.parquet:0: the row has no image or video",
        "record train.parquet:0.4: the row has no image or video",
    )


def test_what_the_hub_calls_train_is_split(tmp_path: Path) -> None:
    ratings: list[list[int] | None] = [[n, n, n] for n in (1, 2, 3, 4, 5, 5)]
    rows = [row(n, f"cat {n}", [image(f"{n} {m}") for m in MODELS], ratings, []) for n in range(20)]
    write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, images=MODELS)
    built = build("genai_bench_ratings", tmp_path / "out", source=tmp_path, shares=(0.3, 0.3))
    assert set(built.groups) == {"train", "validation", "test"}
    assert sorted(groups_of(tmp_path / "out")[0].quality or ()) == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]
