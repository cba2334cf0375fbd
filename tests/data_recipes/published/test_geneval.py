"""GenEval: a row for each rater, a URL that is not fetched, and a file for each source of images."""

import csv
from pathlib import Path

from tests.data_recipes.sources import build, preferences, write_image

HEADER = (
    "HITId",
    "Input.index",
    "Input.image_url",
    "Input.caption",
    "Answer.task-real-0",
    "Answer.task-quality",
)
URL = "https://huggingface.co/datasets/djghosh/aigen-images/resolve/main/"
CAPTION = "a photo of a cow"


def write(folder: Path, source: str, ratings: dict[str, list[str]]) -> None:
    """A file of annotations: for each image its ratings on caption fit; those on realism are all 3."""
    rows = []
    for name, given in ratings.items():
        path = f"images/{source}/00001/samples/{name}.png"
        write_image(folder / "hub" / path)
        rows += [("3U7", f"1_{name}", URL + path, CAPTION, "3.0", fit) for fit in given]
    with (folder / f"annotations_{source}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def test_images_of_all_sources_are_compared_by_their_mean_caption_fit(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sdv2",
        {
            "a": ["4", "4", "4", "1", "1"],  # the most votes for 4, and a mean of 2.8
            "b": ["3", "3", "3", "3", "3"],
            "broken": ["4", "4", "4", "4", "4"],
        },
    )
    write(tmp_path, "if-xl", {"c": ["3", "4", "2", "", "3"], "d": ["", "", "", "", ""]})
    built = build("geneval", tmp_path / "out", source=tmp_path, images=tmp_path / "hub")
    assert preferences(tmp_path / "out", *"abcd") == {
        (CAPTION, "a", "b"): (0.0, 1.0),
        (CAPTION, "a", "c"): (0.0, 1.0),
        (CAPTION, "b", "c"): (0.5, 1.0),
    }
    # One for each of its ratings.
    assert built.info.splits["train"].left_out == {"broken image": 5}
