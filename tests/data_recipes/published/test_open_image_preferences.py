"""Open Image Preferences: responses are votes, images are URLs, and two forms of a prompt stay together."""

from pathlib import Path
from typing import Any

from tests.data_recipes.sources import (
    BROKEN,
    build,
    groups_of,
    image,
    preferences,
    write_image,
    write_parquet,
)

REPOSITORY = "https://huggingface.co/datasets/data-is-better-together/image-preferences-filtered/resolve/main"


def result(
    id: str, prompt: str, responses: list[str] | None, status: list[str] | None = None
) -> dict[str, Any]:
    """A row of the results."""
    number, evolution = id.split("-")
    return {
        "id": id,
        "status": "completed",
        "_server_id": "c2306976",
        "images": {
            "image_1": f"{REPOSITORY}/image_{evolution}_dev/{number}.png",
            "image_2": f"{REPOSITORY}/image_{evolution}_sd/{number}.png",
            "prompt": prompt,
        },
        "model_1": "dev",
        "model_2": "sd",
        "evolution": evolution,
        "category": "Manga",
        "sub_category": "detailed",
        "preference.responses": responses,
        "preference.responses.users": responses and ["user"] * len(responses),
        "preference.responses.status": status or (responses and ["submitted"] * len(responses)),
    }


RESULTS = [
    result("1-quality", "a cat, detailed", ["both_good", "image_1", "image_1"]),
    result("2-quality", "a cow, detailed", ["image_2", "both_bad", "image_2", "image_2"]),
    result("3-quality", "a dog, detailed", ["both_good", "both_bad", "both_good"]),
    result("4-quality", "an owl, detailed", ["image_1", "image_2"], ["submitted", "discarded"]),
    result("5-quality", "a pig, detailed", None),
    result("6-quality", "a hen, detailed", ["image_1"]),  # its second image is broken
]


def test_results(tmp_path: Path) -> None:
    for n in range(1, 7):
        write_image(tmp_path / "images" / "image_quality_dev" / f"{n}.png", f"dev {n}")
        write_image(tmp_path / "images" / "image_quality_sd" / f"{n}.png", "broken" if n == 6 else f"sd {n}")
    source = write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", RESULTS)
    images = str(tmp_path / "images")
    built = build("open_image_preferences", tmp_path / "out", source=source.parent, images=images)
    names = [f"{model} {n}" for n in range(1, 7) for model in ("dev", "sd")]
    assert preferences(tmp_path / "out", *names) == {
        ("a cat, detailed", "dev 1", "sd 1"): (round(2.5 / 3, 12), 3.0),
        ("a cow, detailed", "dev 2", "sd 2"): (0.125, 4.0),
        ("a dog, detailed", "dev 3", "sd 3"): (0.5, 3.0),
        ("an owl, detailed", "dev 4", "sd 4"): (1.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"broken image": 1, "no votes": 1}
    assert groups_of(tmp_path / "out")[0].tags == {"category": "Manga", "evolution": "quality"}


def binarized(id: str, prompt: str, chosen: bytes, rejected: bytes) -> dict[str, Any]:
    """A row of the binarized dataset."""
    return {
        "id": id,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_model": "black-forest-labs/FLUX.1-dev",
        "rejected_model": "stabilityai/stable-diffusion-3.5-large",
        "evolution": id.split("-")[1],
        "category": "Manga",
        "sub_category": "detailed",
    }


def test_binarized_and_two_forms_of_a_prompt_are_in_one_split(tmp_path: Path) -> None:
    rows = [
        binarized(f"{n}-{form}", f"{form} cat {n}", image(f"{n} {form} a"), image(f"{n} {form} b"))
        for form in ("quality", "simplified")
        for n in range(40)
    ]
    rows.append(binarized("40-quality", "a dog", image("a"), BROKEN))
    source = write_parquet(
        tmp_path / "data" / "train-00000-of-00001.parquet", rows, images=("chosen", "rejected")
    )
    built = build("open_image_preferences", tmp_path / "out", source=source, shares=(0.25, 0.25))
    split_of = {group.prompt: split for split in built.groups for group in groups_of(tmp_path / "out", split)}
    assert len(split_of) == 80
    assert set(built.groups) == {"train", "validation", "test"}
    assert all(split_of[f"quality cat {n}"] == split_of[f"simplified cat {n}"] for n in range(40))
    split = split_of["quality cat 0"]
    found = preferences(
        tmp_path / "out",
        *(f"{n} {form} {x}" for n in range(40) for form in ("quality", "simplified") for x in "ab"),
        split=split,
    )
    assert found["quality cat 0", "0 quality a", "0 quality b"] == (1.0, 1.0)
