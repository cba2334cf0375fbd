"""The recipe `mmrb2`: text-to-image pairs and edits of Multimodal RewardBench 2 (arXiv 2512.16899).

    Hub   pair_id, prompt_text, prompt_images, response_a_images, response_b_images (one each), chosen ("A" or
          "B"), human_annotations (JSON: three whole numbers of 1 to 6; 6 = A is much better), ...
    JSON  t2i.json and edit.json as the repository's build_from_hf.py writes them: id, prompt_content,
          response_a and response_b {response_content}, chosen, human_annotations, prompt_source, ...

The context of an edit is the images of its prompt, one to three. The text has a placeholder for each, in
their order; of several, they become "[image 1]", "[image 2]", ...

`chosen` is A where the mean of the annotations is above 3.5. The majority may say otherwise, as in [6, 3, 3].
Published accuracies are by `chosen`, over both orders. The repository's README names other fields, and its
*_response_only.json have no prompts. More than half of the text-to-image pairs are two images of one model.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "Mmrb2Options"]

TASKS = ("t2i", "edit")
COLUMNS = ("prompt_text", "prompt_images", "response_a_images", "response_b_images", "chosen")
PLACEHOLDER = re.compile(r"<image_\d+>")
LABELS = ("chosen", "annotators")
P_A = {"A": 1.0, "B": 0.0}
FOR_A = 4  # annotations from here on favour A


@dataclass(frozen=True, slots=True, kw_only=True)
class Mmrb2Options(SourceOptions):
    """Which task and which labels are read."""

    task: Annotated[str, "t2i or edit"] = "t2i"
    labels: Annotated[str, "chosen (the published label) or annotators (share of the three)"] = "chosen"

    def __post_init__(self) -> None:
        super(Mmrb2Options, self).__post_init__()
        one_of("task", self.task, TASKS)
        one_of("labels", self.labels, LABELS)


def _read(options: Mmrb2Options) -> Sequence[Part]:
    task = options.task
    built = Path(options.source, f"{task}.json")
    return read_source(
        str(built) if built.is_file() else options.source,
        columns=(*COLUMNS, "human_annotations", "prompt_source"),
        files=f"{task}/*",
        splits={"test": "test", task: "test"},
        config=task,
    )


def _judge(row: Row, options: Mmrb2Options) -> Statement:
    on_hub = "prompt_text" in row
    content = (
        _content(row["prompt_text"], row.get("prompt_images") or ()) if on_hub else row["prompt_content"]
    )
    prompt, context = _asked(content)
    first, second = (
        _only(row[f"{name}_images"] if on_hub else _values(row[name]["response_content"], "image"))
        for name in ("response_a", "response_b")
    )
    more: dict[str, Any] = {
        "context": context,
        "tags": {"source": row["prompt_source"]} if row.get("prompt_source") else {},
    }
    if options.labels == "annotators":
        found = row.get("human_annotations") or []
        marks = json.loads(found) if isinstance(found, str) else found
        votes = sum(mark >= FOR_A for mark in marks)
        return Judgement.voted(prompt, first, second, (votes, len(marks) - votes), **more)
    if not row["chosen"]:
        return LeftOut(reason="not labelled", prompt=prompt)
    if (chosen := row["chosen"].upper()) not in P_A:
        raise DataError(f"chosen must be A or B; received {row['chosen']!r}")
    return Judgement(prompt=prompt, first=first, second=second, p=P_A[chosen], **more)


def _content(text: str, images: Sequence[Any]) -> list[Sequence[Any]]:
    """A prompt of the Hub in the form of the repository: texts, and images in the place of placeholders."""
    texts = [("text", piece) for piece in PLACEHOLDER.split(text)]
    placed = [("image", image) for image in images]
    return [piece for pair in zip_longest(texts, placed) for piece in pair if piece is not None]


def _asked(content: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """The text of a prompt and its images."""
    images = _values(content, "image")
    names = iter(f"[image {n}]" if len(images) > 1 else "" for n in range(1, len(images) + 1))
    words = (next(names) if kind == "image" else value.strip() for kind, value in content)
    return " ".join(filter(None, words)), images


def _values(content: Sequence[Sequence[Any]], kind: str) -> list[Any]:
    return [value for name, value in content if name == kind]


def _only(images: Sequence[Any]) -> Any:
    """The one image of a response. Raises `DataError` if there are none or several."""
    if len(images) != 1:
        raise DataError(f"a response has one image; received {len(images)}")
    return images[0]


RECIPE = dataset(
    name="mmrb2",
    summary="Multimodal RewardBench 2: text-to-image pairs or edits, with three annotations each",
    source=Source(
        url="https://huggingface.co/datasets/rl-research/multimodal-rewardbench-2",
        licence="CC-BY-NC-4.0 (images of FLUX: non-commercial)",
        size="1,000 pairs of each task, to test; 2 GB with the other tasks",
        needs="the folder t2i or edit with its parquet files, or t2i.json, edit.json and their images, or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=Mmrb2Options,
)
