"""The recipe `mmrb2`: the text-to-image pairs of Multimodal RewardBench 2 (arXiv 2512.16899).

    Hub   pair_id, prompt_text, response_a_images, response_b_images (one each), chosen ("A" or "B"),
          human_annotations (JSON: three whole numbers of 1 to 6; 6 = A is much better), prompt_source, ...
    JSON  t2i.json as the repository's build_from_hf.py writes it: id, prompt_content, response_a and
          response_b {response_content}, chosen, human_annotations, prompt_source, ...

`chosen` is A where the mean of the annotations is above 3.5. The majority may say otherwise, as in [6, 3, 3].
Published accuracies are by `chosen`, over both orders. The repository's README names other fields, and its
t2i_response_only.json has no prompts. More than half of the pairs are two images of one model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "Mmrb2Options"]

TASK = "t2i"
COLUMNS = ("prompt_text", "response_a_images", "response_b_images", "chosen", "human_annotations")
LABELS = ("chosen", "annotators")
P_A = {"A": 1.0, "B": 0.0}
FOR_A = 4  # annotations from here on favour A


@dataclass(frozen=True, slots=True, kw_only=True)
class Mmrb2Options(SourceOptions):
    """Which labels are read."""

    labels: Annotated[str, "chosen (the published label) or annotators (share of the three)"] = "chosen"

    def __post_init__(self) -> None:
        super(Mmrb2Options, self).__post_init__()
        one_of("labels", self.labels, LABELS)


def _read(options: Mmrb2Options) -> Sequence[Part]:
    built = Path(options.source, f"{TASK}.json")
    return read_source(
        str(built) if built.is_file() else options.source,
        columns=(*COLUMNS, "prompt_source"),
        files=f"{TASK}/*",
        splits={"test": "test", TASK: "test"},
        config=TASK,
    )


def _judge(row: Row, options: Mmrb2Options) -> Statement:
    on_hub = "prompt_text" in row
    prompt = row["prompt_text"] if on_hub else _only(row["prompt_content"], "text")
    first, second = (
        _only([("image", image) for image in row[f"{name}_images"]], "image")
        if on_hub
        else _only(row[name]["response_content"], "image")
        for name in ("response_a", "response_b")
    )
    tags = {"source": row["prompt_source"]} if row.get("prompt_source") else {}
    if options.labels == "annotators":
        found = row.get("human_annotations") or []
        marks = json.loads(found) if isinstance(found, str) else found
        votes = sum(mark >= FOR_A for mark in marks)
        return Judgement.voted(prompt, first, second, (votes, len(marks) - votes), tags=tags)
    if not row["chosen"]:
        return LeftOut(reason="not labelled", prompt=prompt)
    if (chosen := row["chosen"].upper()) not in P_A:
        raise DataError(f"chosen must be A or B; received {row['chosen']!r}")
    return Judgement(prompt=prompt, first=first, second=second, p=P_A[chosen], tags=tags)


def _only(content: Sequence[Sequence[Any]], kind: str) -> Any:
    """The one piece of that kind. Raises `DataError` if there are none or several."""
    found = [value for name, value in content if name == kind]
    if len(found) != 1:
        raise DataError(f"a text-to-image pair has one {kind} a side; received {len(found)}")
    return found[0]


RECIPE = dataset(
    name="mmrb2",
    summary="Multimodal RewardBench 2, text-to-image: pairs with three annotations each",
    source=Source(
        url="https://huggingface.co/datasets/rl-research/multimodal-rewardbench-2",
        licence="CC-BY-NC-4.0 (images of FLUX: non-commercial)",
        size="1,000 pairs, to test; 2 GB with the other tasks",
        needs="the folder t2i with its parquet files, or t2i.json and images/, or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=Mmrb2Options,
)
