"""From the rows of any source to preference groups: what every dataset needs, written once.

    parts of a source  --scan-->  judgements and contents (images, videos, texts) in a spool on disk
                       --settle-->  each in a split, or left out
                       --group-->  PreferenceGroup

`dataset` makes a recipe of a reader and a function from a row to judgements. The spool bounds memory
whatever the size of the source, and lets a build that was killed go on.
"""

from data_recipes.pipeline.contents import content_name
from data_recipes.pipeline.judgements import Judgement, LeftOut, Rating, Statement, Text, ranked
from data_recipes.pipeline.recipe import AxisOptions, SourceOptions, dataset, one_of

__all__ = [
    "AxisOptions",
    "Judgement",
    "LeftOut",
    "Rating",
    "SourceOptions",
    "Statement",
    "Text",
    "content_name",
    "dataset",
    "one_of",
    "ranked",
]
