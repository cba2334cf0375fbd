"""The recipe `unifiedreward`: the training data of UnifiedReward and UnifiedReward-Think (arXiv 2503.05236,
2505.03318), in its three forms.

    conversations: [{from: human, value}, {from: gpt, value}], images: [path, path]
    problem, solution, images: [path, path]
    caption, jpg_0, jpg_1 (paths), label_0 (1: jpg_0 is chosen)

The verdict is "Image 1 is better ...", "Image 2 is better ..." or "Both images are equally good", with
reasoning in the last <answer>; images are counted from 1. The instruction has a verdict in its example, so
only the answer is read. The prompt is what follows "Text Caption: [" up to the last bracket: captions have
brackets of their own. Rows about videos, single images and answers in words are left out.

The parts hold images of HPDv2, HPDv3 and Open Image Preferences: build with `--apart-from` a dataset before
reporting on it. Answers with reasoning were written by a model, and kept where they agree with people.
"""

import re
from collections.abc import Sequence

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset
from data_recipes.readers import Part, Row, read_files
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

CAPTION = re.compile(r"Text Caption:\s*\[(.*)\]", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
VERDICT = re.compile(r"(Image 1 is better)|(Image 2 is better)|(Both images are equally good)", re.IGNORECASE)
P_FIRST = (1.0, 0.0, 0.5)  # of the groups of VERDICT


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_files(options.source, "*.json")


def _judge(row: Row, options: SourceOptions) -> Statement:
    if "jpg_0" in row:
        label = float(row["label_0"])
        return Judgement(prompt=row["caption"], first=row["jpg_0"], second=row["jpg_1"], p=label)
    if "rejected" in row:
        return LeftOut(reason="answers in words")
    question, answer = _turns(row)
    images = row.get("images") or row.get("image")
    if not isinstance(images, list) or len(images) != 2:
        return LeftOut(reason="not two images")
    caption, p = CAPTION.search(question), _p_first(answer)
    if caption is None or p is None:
        return LeftOut(reason="no verdict on two images of a caption")
    return Judgement(prompt=caption[1], first=images[0], second=images[1], p=p)


def _turns(row: Row) -> tuple[str, str]:
    """The instruction and the answer to it."""
    if "problem" in row:
        return row["problem"], row["solution"]
    turns = {turn["from"]: turn["value"] for turn in row.get("conversations", ())}
    if not {"human", "gpt"} <= turns.keys():
        raise DataError(f"a row has conversations, or problem and solution; this one has {', '.join(row)}")
    return turns["human"], turns["gpt"]


def _p_first(answer: str) -> float | None:
    """P(image 1 is preferred) by the last verdict of the last answer."""
    found = VERDICT.findall([answer, *ANSWER.findall(answer)][-1])
    return next((p for p, text in zip(P_FIRST, found[-1], strict=True) if text), None) if found else None


RECIPE = dataset(
    name="unifiedreward",
    summary="UnifiedReward and -Think: pairs of several datasets as instructions with verdicts",
    source=Source(
        url="https://huggingface.co/collections/CodeGoat24/unifiedreward-training-data-67c300d4fd5eff00fa7f1ede",
        licence="MIT; that of each part's images is its source's",
        size="several parts, such as ImageGen-CoT-Reward-5K, HPD, OIP and EvalMuse",
        needs="the JSON file of a part and its images, as --set images=",
    ),
    read=_read,
    judge=_judge,
)
