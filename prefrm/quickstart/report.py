"""Stage 7: `report.json`, and `report.md` with its pictures."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrm import plots
from prefrm.display import markdown_table
from prefrm.eval import Evaluation
from prefrm.files import write_json
from prefrm.quickstart.gallery import gallery
from prefrm.quickstart.judging import DataSummary
from prefrm.quickstart.policy import PolicyResult, Sample, mean_oracle
from prefrm.records import PreferenceGroup
from prefrm.resources import Resources
from prefrm.winmatrix import WinMatrix

__all__ = ["Judged", "Used", "draw", "magnitude", "most_telling", "numbers", "write_report"]

SHOWN_GROUPS = 3
NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What stages 1 to 4 made and measured.

    Attributes:
        data: what was built.
        before: the untrained judge on the test split.
        after: the trained, calibrated judge on the test split.
        bundle: the exported folder.
        digest: its identity.
        export_difference: largest difference between the win matrices of the trained judge and those of its
            bundle, loaded again, on the first validation groups.
        groups: the first groups of the test split.
        matrices: theirs, by the bundle.
    """

    data: DataSummary
    before: Evaluation
    after: Evaluation
    bundle: Path
    digest: str
    export_difference: float
    groups: list[PreferenceGroup]
    matrices: list[WinMatrix]


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What stages 5 and 6 measured: differences of the two wires from the local engine, and the policy."""

    grpc_difference: float
    http_difference: float
    policy: PolicyResult


def numbers(judged: Judged, used: Used, resources: Resources, *, seed: int) -> dict[str, Any]:
    """The content of `report.json`, with NaN where nothing could be measured."""
    before, after, policy = judged.before, judged.after, used.policy
    uncalibrated = _uncalibrated(after)
    return {
        "seed": seed,
        "data": asdict(judged.data),
        "judge": {
            "pair_accuracy_before": before.metrics.accuracy.value,
            "pair_accuracy": after.metrics.accuracy.value,
            "pair_accuracy_interval": [after.metrics.accuracy.low, after.metrics.accuracy.high],
            "strict_pairs": after.metrics.accuracy.pairs,
            "by_skill": _joined(_accuracies(before), _accuracies(after)),
            "calibration": "none" if after.applied is None else after.applied.describe(),
            "ece_before": before.calibration.ece,
            "ece_uncalibrated": uncalibrated.calibration.ece,
            "ece": after.calibration.ece,
            "order_gap_before": before.metrics.mean_order_gap,
            "order_gap_uncalibrated": uncalibrated.metrics.mean_order_gap,
            "order_gap": after.metrics.mean_order_gap,
            "kendall_tau": after.metrics.kendall_tau,
        },
        "bundle": {"sha256": judged.digest, "export_max_abs_diff": judged.export_difference},
        "parity": {
            "groups": len(judged.groups),
            "grpc_max_abs_diff": used.grpc_difference,
            "http_max_abs_diff": used.http_difference,
        },
        "policy": {
            "oracle_before": mean_oracle(policy.before),
            "oracle_during": policy.watched,
            "oracle_after": mean_oracle(policy.after),
            "by_skill": _joined(_by_skill(policy.before), _by_skill(policy.after)),
            "rendered_before": _rendered(policy.before),
            "rendered_after": _rendered(policy.after),
            "held_out_prompts": len({sample.prompt.text for sample in policy.after}),
            "held_out_samples": len(policy.after),
            "shown": [
                {"prompt": old.prompt.text, "before": _written(old), "after": _written(new)}
                for old, new in _shown_samples(policy)
            ],
        },
        "seconds": {**resources.seconds, "total": resources.total_seconds},
        "peak_rss_mb": resources.peak_rss_mb,
    }


def write_report(out: Path, facts: dict[str, Any], pictures: dict[str, list[str]]) -> None:
    """Write `report.md` and, last, `report.json`, of which every NaN is a null."""
    evaluation = Path("judge", "evaluation", "report.md")
    more = evaluation if (out / evaluation).is_file() else None
    (out / "report.md").write_text(_markdown(facts, pictures, more), encoding="utf-8")
    valid = json.loads(json.dumps(facts), parse_constant=lambda name: None)
    write_json(out / "report.json", valid)


def draw(folder: Path, judged: Judged, policy: PolicyResult) -> dict[str, list[str]]:
    """Pictures by the section of the report that shows them, as paths beside `report.md`."""
    folder.mkdir()
    figures = {
        "judge": [
            plots.bars(_accuracies(judged.after), title="Pair accuracy, held-out prompts", reference=0.5),
            plots.reliability_figure(
                {
                    "as trained": _uncalibrated(judged.after).calibration.table,
                    "calibrated": judged.after.calibration.table,
                }
            ),
        ],
        "groups": [
            plots.win_matrix_figure(matrix, group.group().encoded, group.prompt)
            for group, matrix in most_telling(judged.groups, judged.matrices)
        ],
        "policy": [
            plots.learning_curve(
                {"oracle, held-out prompts": policy.watched},
                title="The policy, by the oracle that it never sees",
                ylabel="share of claims that hold",
            ),
            gallery(*zip(*_shown_samples(policy), strict=True)),
        ],
    }
    shown: dict[str, list[str]] = {}
    for section, drawn in figures.items():
        for n, figure in enumerate(drawn, 1):
            figure.savefig(folder / f"{section}-{n}.png")
            shown.setdefault(section, []).append(f"{folder.name}/{section}-{n}.png")
    return shown


def most_telling(
    groups: Sequence[PreferenceGroup], matrices: Sequence[WinMatrix]
) -> list[tuple[PreferenceGroup, WinMatrix]]:
    """The groups whose candidates differ most, each of another skill: of the most different qualities, and
    of these the farthest apart."""

    def difference(pair: tuple[PreferenceGroup, WinMatrix]) -> tuple[int, float]:
        quality = pair[0].quality or (0.0,)
        return len(set(quality)), max(quality) - min(quality)

    by_skill: dict[str, tuple[PreferenceGroup, WinMatrix]] = {}
    for group, matrix in sorted(zip(groups, matrices, strict=True), key=difference, reverse=True):
        by_skill.setdefault(group.tags["skill"], (group, matrix))
    return list(by_skill.values())[:SHOWN_GROUPS]


def _shown_samples(policy: PolicyResult) -> list[tuple[Sample, Sample]]:
    """A sample for one prompt of each skill, and one for the same prompt after training."""
    by_skill: dict[str, tuple[Sample, Sample]] = {}
    for before, after in zip(policy.before, policy.after, strict=True):
        by_skill.setdefault(before.prompt.skill, (before, after))
    return list(by_skill.values())


def _written(sample: Sample) -> dict[str, Any]:
    return {"program": sample.program, "oracle": sample.oracle}


def _by_skill(samples: Sequence[Sample]) -> dict[str, float]:
    grouped: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.prompt.skill].append(sample)
    return {skill: mean_oracle(rows) for skill, rows in grouped.items()}


def _accuracies(evaluation: Evaluation) -> dict[str, float]:
    return {skill: entry.value for skill, entry in evaluation.metrics.by_tag["skill"].items()}


def _uncalibrated(evaluation: Evaluation) -> Evaluation:
    return evaluation.as_scored or evaluation


def _joined(before: dict[str, float], after: dict[str, float]) -> dict[str, dict[str, float]]:
    return {
        name: {"before": before.get(name, math.nan), "after": after.get(name, math.nan)}
        for name in before | after
    }


def _rendered(samples: Sequence[Sample]) -> float:
    """The share of programs that draw something."""
    return sum(sample.image is not None for sample in samples) / len(samples)


def _markdown(facts: dict[str, Any], pictures: dict[str, list[str]], more: Path | None) -> str:
    seconds = facts["seconds"]
    sections = [
        "# Quickstart",
        f"Seed {facts['seed']}; {seconds['total']:.0f} s; {facts['peak_rss_mb']:.0f} MB at the peak.",
        *_data_section(facts["data"]),
        *_judge_section(facts["judge"], facts["data"]),
        *_shown(pictures["judge"]),
        *([f"[Everything that was measured of it]({more.as_posix()})"] if more else []),
        *_server_section(facts["bundle"], facts["parity"]),
        *_shown(pictures["groups"]),
        *_policy_section(facts["policy"]),
        *_shown(pictures["policy"]),
        *_programs(facts["policy"]["shown"]),
        "## What it cost",
        markdown_table(["stage", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()]),
    ]
    return "\n\n".join(sections) + "\n"


def _data_section(data: dict[str, Any]) -> list[str]:
    rows = [[split, str(groups), str(data["prompts"][split])] for split, groups in data["groups"].items()]
    return [
        "## The data",
        markdown_table(["split", "groups", "prompts"], rows),
        f"No prompt is in two splits. The train split has {data['comparisons']} comparisons, of which "
        f"{data['ties']} are ties.",
    ]


def _judge_section(judge: dict[str, Any], data: dict[str, Any]) -> list[str]:
    low, high = judge["pair_accuracy_interval"]
    return [
        "## The judge",
        f"Trained on {data['comparisons']} noisy comparisons of {data['groups']['train']} groups, measured "
        f"on {judge['strict_pairs']} strict pairs of {data['prompts']['test']} unseen prompts, with "
        f"clean labels; the 95% interval of the pair accuracy is {_number(low)} to {_number(high)}.",
        _before_after(
            "pair accuracy", judge["pair_accuracy_before"], judge["pair_accuracy"], judge["by_skill"]
        ),
        markdown_table(
            ["", "before", "as trained", "calibrated"],
            [
                [name, *(_number(judge[f"{key}{when}"]) for when in ("_before", "_uncalibrated", ""))]
                for name, key in (("expected calibration error", "ece"), ("mean order gap", "order_gap"))
            ],
        ),
        f"Calibrated is at {judge['calibration']}, fitted on the validation split.",
    ]


def _server_section(bundle: dict[str, Any], parity: dict[str, Any]) -> list[str]:
    return [
        "## The bundle and the server",
        f"The bundle `{bundle['sha256'][:12]}`, loaded again, differs from the judge that was trained, in "
        f"memory, by {magnitude(bundle['export_max_abs_diff'])} at most in the win matrices of a few "
        f"validation groups. {parity['groups']} test groups, scored through the stock Triton clients, "
        f"differ from the local engine by {magnitude(parity['grpc_max_abs_diff'])} (gRPC) "
        f"and {magnitude(parity['http_max_abs_diff'])} (HTTP) at most.",
        "Those whose candidates differ most, each of another skill: row beats column, and the win rate at "
        "the right is a candidate's reward.",
    ]


def _policy_section(policy: dict[str, Any]) -> list[str]:
    prompts, samples = policy["held_out_prompts"], policy["held_out_samples"]
    return [
        "## The policy",
        "Trained by TRL's `GRPOTrainer` on the judge's win rates, each of which crossed the wire. The oracle "
        "reads the pictures and says which share of a prompt's claims holds; it gave no reward. A program "
        f"that draws nothing holds none: {policy['rendered_before']:.1%} of the programs drew something "
        f"before, {policy['rendered_after']:.1%} after.",
        f"Before, while and after it trains, it is watched on all {prompts} held-out prompts, with "
        f"{samples} programs each time; it trains on none of them.",
        _before_after("oracle", policy["oracle_before"], policy["oracle_after"], policy["by_skill"]),
    ]


def _programs(shown: Sequence[dict[str, Any]]) -> list[str]:
    """What was written for the prompts of the gallery."""
    rows = [
        [entry["prompt"], *(_code(entry[when]["program"]) for when in ("before", "after"))] for entry in shown
    ]
    return ["The programs that drew these:", markdown_table(["prompt", "before", "after"], rows, 3)]


def _code(program: str) -> str:
    """In a cell of a table: a policy may write anything, such as a line break or nothing."""
    return f"`{' '.join(program.split())}`" if program.strip() else NOTHING


def _before_after(name: str, before: float, after: float, by_skill: dict[str, dict[str, float]]) -> str:
    rows = {"all": {"before": before, "after": after}, **by_skill}
    return markdown_table(
        [name, "before", "after"],
        [[row, _number(entry["before"]), _number(entry["after"])] for row, entry in rows.items()],
    )


def magnitude(value: float) -> str:
    """A small difference to one digit, or a dash where it could not be measured (NaN)."""
    return NOTHING if math.isnan(value) else f"{value:.0e}"


def _number(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def _shown(paths: Sequence[str]) -> list[str]:
    return [f"![{Path(path).stem}]({path})" for path in paths]
