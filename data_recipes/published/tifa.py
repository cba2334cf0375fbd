"""The recipe `tifa`: the human annotations of TIFA v1.0 (arXiv 2303.11897), images of five models.

    {"<text_id>_<model>": {text_id, image_path, text, human_scores (two raters, 1 to 5), human_avg}}

Images of one text are compared by `human_avg`, higher is better; a third of the pairs are ties. Raters have
no ids, so their scores are not compared one by one.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Rating, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, files="human_annotations.json", splits={})


def _judge(row: Row, options: SourceOptions) -> Rating:
    return Rating(
        prompt=row["text"],
        candidate=row["image_path"],
        score=row["human_avg"],
        # "coco_669925" is a caption of COCO; others are of drawbench, paintskill and partiprompt.
        tags={"source": row["text_id"].rpartition("_")[0]},
    )


RECIPE = dataset(
    name="tifa",
    summary="TIFA v1.0: ratings of how faithful images are to their text",
    source=Source(
        url="https://github.com/Yushi-Hu/tifa",
        licence="Apache-2.0",
        size="800 images of 160 prompts",
        needs="human_annotations.json and the folder of images (a link beside it) as --set images=",
    ),
    read=_read,
    judge=_judge,
)
