"""The recipe `editreward`: EditReward-Data (TIGER-Lab, arXiv 2509.26346), from the Hub or as training JSON.

    Hub   instruction, source_img, left_output_image, right_output_image, vote_type (leftvote, rightvote, a
          tie), left_model, right_model, scores
    JSON  prompt or instruction, path_src, path1, path2, tie_case (may be absent), model1, model2, scores,
          choice_dist and confidence (null)

The prompt is the instruction, and the context the source image. In JSON, `path1` is always the preferred
image, but of a row with `tie_case`, which EditReward's own loader counts as a victory of `path1`. Scores are
not read: those of valid_dataset_1.json, the strict votes of GenAI-Bench on edits, are made up on one axis and
contradict the order of the paths in half of the rows on the other. What exactly the Hub calls a tie could not
be found out: any `vote_type` that begins with "tie" is one, and so is "bothbad_vote".
"""

from collections.abc import Sequence

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

COLUMNS = ("instruction", "source_img", "left_output_image", "right_output_image", "vote_type")
P_LEFT = {"leftvote": 1.0, "rightvote": 0.0, "bothbad_vote": 0.5}


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, columns=COLUMNS)


def _judge(row: Row, options: SourceOptions) -> Statement:
    if "path1" in row:
        return Judgement(
            prompt=row["prompt"] if "prompt" in row else row["instruction"],
            first=row["path1"],
            second=row["path2"],
            p=0.5 if row.get("tie_case") else 1.0,
            context=[row["path_src"]],
        )
    vote = row["vote_type"]
    if vote is None:
        return LeftOut(reason="not labelled", prompt=row["instruction"])
    if vote not in P_LEFT and not vote.startswith("tie"):
        raise DataError(f"vote_type must be leftvote, rightvote or a tie; received {vote!r}")
    return Judgement(
        prompt=row["instruction"],
        first=row["left_output_image"],
        second=row["right_output_image"],
        p=P_LEFT.get(vote, 0.5),
        context=[row["source_img"]],
    )


RECIPE = dataset(
    name="editreward",
    summary="EditReward-Data: pairs of edits of an image, with votes of people",
    source=Source(
        url="https://huggingface.co/datasets/TIGER-Lab/EditReward-Data",
        licence="CC-BY-NC-4.0",
        size="170,772 pairs, 87 GB",
        needs="the parquet files, or hf://, or a training JSON and its images (--set images=)",
    ),
    read=_read,
    judge=_judge,
)
