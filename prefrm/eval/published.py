"""Published accuracies by name, each with its definition and the judges whose numbers stand in its column.

A number is comparable with a column only by the column's definition and on its test split.

| name | pairs | the verdict | a tie of the judge | mean |
|---|---|---|---|---|
| `hpdv3` | strict | of the pair | is wrong | over pairs |
| `hpdv2` | strict | of the ranking by win rate | is broken by index | over groups: 1 - inversions / pairs |
| `imagereward` | strict | of the pair | is wrong | over pairs |
| `imagereward_groups` | strict | of the pair | is wrong | over groups |
| `pickapic` | all | of the pair | below a threshold; half right if only one side ties | over votes |
| `genai_bench` | strict | of the pair | is wrong | over votes |
| `mmrb2` | strict | of the pair, once in each order | is wrong | over both orders of all pairs |

A mean over pairs counts each comparison once, whatever its weight; one over votes counts it by its weight,
which is the number of rows of the source that it was merged from.
"""

from collections.abc import Mapping, Sequence

from prefrm.errors import ConfigError
from prefrm.eval.accuracies import Accuracy
from prefrm.eval.definitions import Definition, both_orders, by_ranking, groups_apart
from prefrm.eval.pairs import JudgedGroup, pairs_of
from prefrm.eval.thresholds import Thresholds
from prefrm.records import DatasetInfo

__all__ = ["PUBLISHED", "choose_definitions", "published_accuracies", "why_unpublished"]

HPSV3 = "arXiv 2508.03789"
EACH_PAIR = "share of strict pairs with the right verdict, each pair once; a tie of the judge is wrong"

PUBLISHED: Mapping[str, Definition] = {
    "hpdv3": Definition(
        recipe="hpdv3",
        split="HPDv3 test",
        summary=EACH_PAIR,
        source=HPSV3,
        judges={
            "CLIP ViT-H/14": 0.486,
            "ImageReward": 0.586,
            "Aesthetic Score": 0.599,
            "HPS": 0.638,
            "MPS": 0.643,
            "HPSv2": 0.653,
            "PickScore": 0.656,
            "HPSv3": 0.769,
        },
        layout=pairs_of,
    ),
    "hpdv2": Definition(
        recipe="hpdv2",
        options={"labels": "consensus"},
        split="HPDv2 test, 400 rankings of nine images",
        summary="1 - inversions / pairs of each group's ranking by win rate, then the mean over groups",
        source=f"HPSv2 (arXiv 2306.09341) and its repository; MPS and HPSv3: {HPSV3}",
        judges={
            "ImageReward": 0.740,
            "Aesthetic Score": 0.768,
            "HPS": 0.776,
            "a single human": 0.781,
            "PickScore": 0.798,
            "HPSv2": 0.833,
            "MPS": 0.835,
            "HPSv2.1": 0.841,
            "HPSv3": 0.854,
        },
        layout=by_ranking,
        mean="groups",
    ),
    "imagereward": Definition(
        recipe="imagereward",
        options={"axis": "rank"},
        split="ImageRewardDB test, 6,399 strict pairs",
        summary=EACH_PAIR,
        source=f"ImageReward (arXiv 2304.05977) and its repository; the other judges: {HPSV3}",
        judges={
            "CLIP ViT-H/14": 0.571,
            "Aesthetic Score": 0.574,
            "HPS": 0.612,
            "PickScore": 0.616,
            "ImageReward": 0.651,
            "HPSv3": 0.668,
            "MPS": 0.675,
        },
        layout=pairs_of,
    ),
    "imagereward_groups": Definition(
        recipe="imagereward",
        options={"axis": "rank"},
        split="ImageRewardDB test, 466 rankings",
        summary="share of each group's strict pairs with the right verdict, then the mean over groups",
        source="HPSv2 (arXiv 2306.09341) and its repository",
        judges={"PickScore": 0.629, "a single human": 0.653, "HPSv2": 0.657, "HPSv2.1": 0.668},
        layout=groups_apart,
        mean="groups",
    ),
    "pickapic": Definition(
        recipe="pickapic",
        options={"evaluation": "unique"},
        split="Pick-a-Pic test_unique, the threshold tuned on validation_unique",
        summary="1 for the right one of win, lose and tie, 1/2 where only one side ties, each row once; the "
        "judge ties where |p - (1 - p)| is at most a threshold of 0, 0.1, ..., 1, tuned on validation",
        source=f"PickScore (arXiv 2305.01569) and its repository; the numbers: {HPSV3}",
        judges={
            "Aesthetic Score": 0.568,
            "CLIP ViT-H/14": 0.608,
            "ImageReward": 0.611,
            "MPS": 0.631,
            "HPSv2": 0.638,
            "HPS": 0.667,
            "PickScore": 0.705,
            "HPSv3": 0.728,
        },
        layout=pairs_of,
        mean="votes",
        tuned=True,
    ),
    "genai_bench": Definition(
        recipe="genai_bench",
        options={"task": "image", "version": "test"},
        split="GenAI-Bench image_generation, the strict votes of test",
        summary="share of strict votes with the right verdict, each vote once; a tie of the judge is wrong",
        source="UnifiedReward-Flex and its repository",
        judges={
            "HPSv2": 0.688,
            "PickScore": 0.700,
            "HPSv3": 0.709,
            "UnifiedReward": 0.715,
            "UnifiedReward-Think": 0.723,
            "UnifiedReward-Flex": 0.734,
        },
        layout=pairs_of,
        mean="votes",
    ),
    "mmrb2": Definition(
        recipe="mmrb2",
        options={"task": "t2i", "labels": "chosen"},
        split="MMRB2 text-to-image, 1,000 pairs",
        summary="share of right verdicts, each pair asked in both orders; a tie of the judge is wrong",
        source="MMRB2 (arXiv 2512.16899) and its repository",
        judges={
            "CLIPScore": 0.510,
            "ImageReward": 0.540,
            "HPSv2": 0.547,
            "PickScore": 0.586,
            "Qwen3-VL-8B": 0.594,
            "UnifiedReward-7B": 0.598,
            "HPSv3": 0.602,
            "GPT-4o": 0.603,
            "Qwen3-VL-32B": 0.641,
            "GPT-5": 0.705,
            "Gemini 2.5 Pro": 0.705,
            "Gemini 3 Pro": 0.744,
        },
        layout=both_orders,
    ),
}
"""Every definition by its name."""


def published_accuracies(
    judged: Sequence[JudgedGroup], thresholds: Thresholds | None = None
) -> dict[str, Accuracy]:
    """Every published definition by its name; without `thresholds`, those that need one are left out."""
    return {
        name: definition.accuracy(judged, thresholds)
        for name, definition in PUBLISHED.items()
        if thresholds is not None or not definition.tuned
    }


def choose_definitions(
    names: Sequence[str], info: DatasetInfo | None = None, *, fitted: str | None = "validation"
) -> tuple[str, ...]:
    """The definitions to show beside published judges: `names`, or without any those of the dataset.

    Those of the dataset are shown only if its test split is the published one (`why_unpublished`), and one
    with a tuned threshold only if it is tuned on the published validation split.

    Args:
        names: as `PUBLISHED` has them.
        info: of the dataset; None if it is unknown or another split than its test split is measured.
        fitted: the split that tunes tie thresholds, if there is one.

    Raises:
        ConfigError: a name is unknown, or needs a validation split and there is none.
    """
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise ConfigError(f"a definition is one of {', '.join(PUBLISHED)}; received {unknown[0]!r}")
    if fitted is None and (tuned := [name for name in names if PUBLISHED[name].tuned]):
        raise ConfigError(
            f"the definition {tuned[0]} needs a tie threshold, which a validation split tunes, and there is "
            "none; build the dataset with one, or name another split by --validation"
        )
    if names or info is None or why_unpublished(info):
        return tuple(names)
    return tuple(
        name
        for name, definition in PUBLISHED.items()
        if definition.is_of(info) and (not definition.tuned or _is_published(info, fitted))
    )


def _is_published(info: DatasetInfo, fitted: str | None) -> bool:
    """Whether a split that tunes thresholds is the published validation split."""
    if fitted != "validation":
        return False
    counts = info.splits.get(fitted)
    return counts is not None and counts.complete and not counts.drawn


def why_unpublished(info: DatasetInfo) -> str:
    """Why the test split of a dataset with published accuracies is not the published one; empty if it is."""
    test = info.splits.get("test")
    if test is None or not any(definition.is_of(info) for definition in PUBLISHED.values()):
        return ""
    if test.drawn:
        return "it was drawn from another split of the source"
    if not test.complete:
        reasons = ", ".join(f"{count} {reason}" for reason, count in test.left_out.items())
        return f"it is not complete: left out: {reasons}"
    return ""
