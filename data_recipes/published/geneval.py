"""The recipe `geneval`: the human annotations of GenEval (arXiv 2310.11513).

    annotations_{clip,if-xl,sdv2}.csv: Input.caption, Input.image_url, Answer.task-quality, ...

A row is one of five raters' answers about one image; raters have no ids. `Answer.task-quality` is how well
the image fits the caption, in spite of its name: 4 is the best, 1 the worst. Images are compared by the mean
over raters. The files share 100 captions, so a group holds four images of each source that is there. Images
are named by URLs of a dataset on the Hub, which are not fetched: they are paths in that repository.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Rating, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]

REPOSITORY = "https://huggingface.co/datasets/djghosh/aigen-images/resolve/main/"


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, files="annotations_*.csv", splits={})


def _judge(row: Row, options: SourceOptions) -> Rating:
    fit = row["Answer.task-quality"]
    return Rating(
        prompt=row["Input.caption"],
        candidate=row["Input.image_url"].removeprefix(REPOSITORY),
        score=float(fit) if fit else None,
    )


RECIPE = dataset(
    name="geneval",
    summary="GenEval: ratings by five people of how well images fit captions of objects",
    source=Source(
        url="https://github.com/djghosh13/geneval",
        licence="MIT",
        size="1,200 images of 100 prompts, 6,000 ratings",
        needs="annotations/annotations_*.csv, and --set images=hf://djghosh/aigen-images or a copy of it",
    ),
    read=_read,
    judge=_judge,
    max_candidates=16,
)
