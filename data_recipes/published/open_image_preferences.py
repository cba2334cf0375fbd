"""The recipe `open_image_preferences`: Open Image Preferences v1, as results or binarized.

    results    id ("3368-quality"), images {image_1, image_2, prompt} (URLs), preference.responses (image_1,
               image_2, both_good, both_bad), preference.responses.status, category, evolution, ...
    binarized  id, prompt, chosen, rejected (images; chosen is preferred), category, evolution, ...

Of results, P(image_1 is preferred) is its share of the submitted responses, where "both good" and "both bad"
are half a vote for each image. The images of a URL are looked up by their path in the repository
("image_quality_dev/3368.jpg"): `--set images=` is a folder, or hf:// and the repository that has them. The
prompts "3368-quality" and "3368-simplified" are forms of one prompt and stay in one split. Binarized rows are
a part of results; Rapidata's "more results" are about the same images.
"""

import re
from collections import Counter
from collections.abc import Sequence

from data_recipes.pipeline import Judgement, SourceOptions, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]

RESPONSES, STATUS = "preference.responses", "preference.responses.status"
COLUMNS = ("id", "images", RESPONSES, STATUS, "prompt", "chosen", "rejected", "category", "evolution")
IN_REPOSITORY = re.compile(r"^https?://.*?/resolve/[^/]+/")


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, columns=COLUMNS, splits={})


def _judge(row: Row, options: SourceOptions) -> Statement:
    more = {
        "family": str(row["id"]).partition("-")[0],
        "tags": {name: row[name] for name in ("category", "evolution") if row.get(name)},
    }
    if "chosen" in row:
        return Judgement.voted(row["prompt"], row["chosen"], row["rejected"], (1, 0), **more)
    responses = row[RESPONSES] or ()
    given = zip(responses, row.get(STATUS) or ["submitted"] * len(responses), strict=True)
    votes = Counter(response for response, status in given if status == "submitted")
    both = (votes["both_good"] + votes["both_bad"]) / 2
    first, second = (IN_REPOSITORY.sub("", row["images"][name]) for name in ("image_1", "image_2"))
    return Judgement.voted(
        row["images"]["prompt"], first, second, (votes["image_1"] + both, votes["image_2"] + both), **more
    )


RECIPE = dataset(
    name="open_image_preferences",
    summary="Open Image Preferences: FLUX.1-dev against SD 3.5 large, three annotators a pair",
    source=Source(
        url="https://huggingface.co/datasets/data-is-better-together/open-image-preferences-v1-results",
        licence="Apache-2.0",
        size="results: 10,000 pairs (1 MB, without images); binarized: 2 GB",
        needs="the parquet of results and the images that its URLs name, or the binarized parquet files, or "
        "hf://data-is-better-together/open-image-preferences-v1-binarized",
    ),
    read=_read,
    judge=_judge,
)
