"""Stage 7: `report.json`, and `report.md` with its pictures."""

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrm import plots
from prefrm.errors import ConfigError
from prefrm.eval import Evaluation
from prefrm.quickstart.gallery import gallery
from prefrm.quickstart.judging import DataSummary
from prefrm.quickstart.policy import PolicyResult, Sample, mean_oracle
from prefrm.quickstart.resources import Resources
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import WinMatrix

__all__ = ["Judged", "Used", "make_room", "numbers", "write_report"]

NUMBERS = "report.json"
SHOWN_GROUPS = 3
SHOWN_PROMPTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What stages 1 to 4 made and measured.

    Attributes:
        data: what was built.
        before: the untrained judge on the test split.
        after: the trained, calibrated judge on the test split.
        bundle: the exported folder.
        digest: its identity.
        reload_difference: largest difference of p between the trained judge and the bundle.
        groups: the first groups of the test split.
        matrices: theirs, by the bundle.
    """

    data: DataSummary
    before: Evaluation
    after: Evaluation
    bundle: Path
    digest: str
    reload_difference: float
    groups: list[PreferenceGroup]
    matrices: list[WinMatrix]


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What stages 5 and 6 measured: differences of the two wires from the local engine, and the policy."""

    grpc_difference: float
    http_difference: float
    policy: PolicyResult


def make_room(out: Path) -> None:
    """Remove what an earlier quickstart left in `out`. Raises `ConfigError` if something else is there."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / "data" / "dataset.json").exists() and not (out / NUMBERS).exists():
            raise ConfigError(
                f"{out} holds something that no quickstart wrote; choose another folder with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def numbers(judged: Judged, used: Used, resources: Resources, *, seed: int) -> dict[str, Any]:
    """The content of `report.json`."""
    before, after, policy = judged.before, judged.after, used.policy
    return {
        "seed": seed,
        "data": asdict(judged.data),
        "judge": {
            "pair_accuracy_before": before.metrics.accuracy.value,
            "pair_accuracy": after.metrics.accuracy.value,
            "pair_accuracy_interval": [after.metrics.accuracy.low, after.metrics.accuracy.high],
            "strict_pairs": after.metrics.accuracy.pairs,
            "by_skill": _joined(_accuracies(before), _accuracies(after)),
            "temperature": after.temperature,
            "ece_uncalibrated": _uncalibrated(after).calibration.ece,
            "ece": after.calibration.ece,
            "order_gap": after.metrics.mean_order_gap,
            "kendall_tau": after.metrics.kendall_tau,
        },
        "bundle": {"sha256": judged.digest, "reload_max_abs_diff": judged.reload_difference},
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
            "held_out_samples": len(policy.after),
        },
        "seconds": {**resources.seconds, "total": resources.total_seconds},
        "peak_rss_mb": resources.peak_rss_mb,
    }


def write_report(out: Path, judged: Judged, used: Used, resources: Resources, *, seed: int) -> None:
    """Draw the pictures, then write `report.md` and, last, `report.json`."""
    pictures = _draw(out / "pictures", judged, used.policy)
    facts = numbers(judged, used, resources, seed=seed)
    (out / "report.md").write_text(_markdown(facts, pictures), encoding="utf-8")
    (out / NUMBERS).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _draw(folder: Path, judged: Judged, policy: PolicyResult) -> dict[str, list[str]]:
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
            plots.win_matrix_figure(matrix, group.images, group.prompt)
            for group, matrix in _telling(judged.groups, judged.matrices)
        ],
        "policy": [
            plots.learning_curve(
                {"oracle, held-out prompts": policy.watched},
                title="The policy, by the oracle that it never sees",
                ylabel="share of claims that hold",
            ),
            gallery(_first_of_each_prompt(policy.before), _first_of_each_prompt(policy.after)),
        ],
    }
    shown: dict[str, list[str]] = {}
    for section, drawn in figures.items():
        for n, figure in enumerate(drawn, 1):
            figure.savefig(folder / f"{section}-{n}.png")
            shown.setdefault(section, []).append(f"{folder.name}/{section}-{n}.png")
    return shown


def _telling(
    groups: Sequence[PreferenceGroup], matrices: Sequence[WinMatrix]
) -> list[tuple[PreferenceGroup, WinMatrix]]:
    """The groups whose candidates differ most in true quality, of different skills."""
    spread = sorted(
        zip(groups, matrices, strict=True),
        key=lambda pair: -len(set(pair[0].quality or ())),
    )
    by_skill = {group.tags["skill"]: (group, matrix) for group, matrix in reversed(spread)}
    return list(by_skill.values())[:SHOWN_GROUPS]


def _first_of_each_prompt(samples: Sequence[Sample]) -> list[Sample]:
    """One sample for one prompt of each skill."""
    chosen: dict[str, Sample] = {}
    for sample in samples:
        chosen.setdefault(sample.prompt.skill, sample)
    return list(chosen.values())


def _by_skill(samples: Sequence[Sample]) -> dict[str, float]:
    grouped: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.prompt.skill].append(sample)
    return {skill: mean_oracle(rows) for skill, rows in grouped.items()}


def _accuracies(evaluation: Evaluation) -> dict[str, float]:
    return {skill: entry.value for skill, entry in evaluation.metrics.by_tag["skill"].items()}


def _uncalibrated(evaluation: Evaluation) -> Evaluation:
    return evaluation.tempered(1 / evaluation.temperature)


def _joined(before: dict[str, float], after: dict[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"before": value, "after": after[name]} for name, value in before.items()}


def _rendered(samples: Sequence[Sample]) -> float:
    """The share of programs that draw something."""
    return sum(sample.image is not None for sample in samples) / len(samples)


def _markdown(facts: dict[str, Any], pictures: dict[str, list[str]]) -> str:
    seconds = facts["seconds"]
    sections = [
        "# Quickstart",
        f"Seed {facts['seed']}; {seconds['total']:.0f} s; {facts['peak_rss_mb']:.0f} MB at the peak.",
        *_judge_section(facts["judge"], facts["data"]),
        *_shown(pictures["judge"]),
        *_server_section(facts["bundle"], facts["parity"]),
        *_shown(pictures["groups"]),
        *_policy_section(facts["policy"]),
        *_shown(pictures["policy"]),
        "## What it cost",
        _table(["stage", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()]),
    ]
    return "\n\n".join(sections) + "\n"


def _judge_section(judge: dict[str, Any], data: dict[str, Any]) -> list[str]:
    low, high = judge["pair_accuracy_interval"]
    return [
        "## The judge",
        f"Trained on {data['comparisons']} noisy comparisons of {data['groups']['train']} groups, measured "
        f"on {judge['strict_pairs']} strict pairs of {data['prompts']['test']} unseen prompts, with "
        f"clean labels; the 95% interval of the pair accuracy is {low:.3f} to {high:.3f}.",
        _before_after(
            "pair accuracy", judge["pair_accuracy_before"], judge["pair_accuracy"], judge["by_skill"]
        ),
        f"Expected calibration error: {judge['ece_uncalibrated']:.3f} as trained, {judge['ece']:.3f} at the "
        f"temperature {judge['temperature']:.2f} that was fitted on the validation split. Mean order gap: "
        f"{judge['order_gap']:.3f}.",
    ]


def _server_section(bundle: dict[str, Any], parity: dict[str, Any]) -> list[str]:
    return [
        "## The bundle and the server",
        f"The bundle `{bundle['sha256'][:12]}`, loaded from disk, differs from the judge in memory by "
        f"{bundle['reload_max_abs_diff']:.0e} at most. {parity['groups']} groups, scored through the stock "
        f"Triton clients, differ from the local engine by {parity['grpc_max_abs_diff']:.0e} (gRPC) and "
        f"{parity['http_max_abs_diff']:.0e} (HTTP) at most.",
        "Three of these groups: row beats column, and the win rate at the right is a candidate's reward.",
    ]


def _policy_section(policy: dict[str, Any]) -> list[str]:
    return [
        "## The policy",
        "Trained by TRL's `GRPOTrainer` on the judge's win rates, each of which crossed the wire. The oracle "
        "reads the pictures and says which share of a prompt's claims holds; it gave no reward. A program "
        f"that draws nothing holds none: {policy['rendered_before']:.1%} of the programs drew something "
        f"before, {policy['rendered_after']:.1%} after.",
        _before_after("oracle", policy["oracle_before"], policy["oracle_after"], policy["by_skill"]),
    ]


def _before_after(name: str, before: float, after: float, by_skill: dict[str, dict[str, float]]) -> str:
    rows = {"all": {"before": before, "after": after}, **by_skill}
    return _table(
        [name, "before", "after"],
        [[row, f"{entry['before']:.3f}", f"{entry['after']:.3f}"] for row, entry in rows.items()],
    )


def _shown(paths: Sequence[str]) -> list[str]:
    return [f"![{Path(path).stem}]({path})" for path in paths]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
