"""Evaluation on held-out prompts with the same seeds every time, and the files that a run leaves to look at.

output/metrics.jsonl   a line for each iteration; evaluations under "eval/NAME"
output/samples/        sheets of the same seeds, a row for each line of prompts.txt; iteration-00000.png is
                       before the training
output/curves.png      rewards of the training's samples, and of evaluations
output/report.json     and report.md
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prefrm.display import markdown_table, one_line
from prefrm.files import write_whole
from prefrm.flow.config import ORACLE
from prefrm.flow.rollout import Sampler, encode_images
from prefrm.rewards.samples import Reward

__all__ = ["DIVERSITY", "PREFIX", "Evaluation", "pixel_distance", "summary", "write_report"]

# The iteration in seeds of evaluations, which no training reaches; rows and columns of a sheet.
EVALUATION, SHEET_PROMPTS, SHEET_IMAGES = 2**31, 8, 6
PREFIX, PROMPTS, DIVERSITY = "eval/", "prompts.txt", "diversity"
FLAT = 1e-6  # range of a curve that is not shown
LINE = 0.8  # of 1, the lightness of lines on a sheet


@dataclass(kw_only=True)
class Evaluation:
    """Draws and scores held-out prompts."""

    sampler: Sampler  # without stochastic steps
    prompts: Sequence[str]
    rewards: Mapping[str, Reward]  # by name, those of the training and others
    folder: Path  # of the sheets

    def __post_init__(self) -> None:
        self._before = self._draw(None)

    def before(self) -> dict[str, float]:
        """Of the policy before its training: a judge prefers it to itself in half of the cases."""
        return self._scores(self._before, 0)

    def now(self, iteration: int, adapter: str) -> dict[str, float]:
        """By name: of a judge, the mean probability that it prefers a sample to one of the policy before."""
        return self._scores(self._draw(adapter), iteration)

    def _draw(self, adapter: str | None) -> Tensor:
        with self.sampler.policy.using(adapter):
            jobs = self.sampler.jobs([*enumerate(self.prompts)])
            batches = (batch for starts in jobs for batch in self.sampler.draw(starts, (), EVALUATION))
            # One by one: the recordings of all samples would take much memory.
            return torch.cat([batch.images for batch in batches])

    def _scores(self, images: Tensor, iteration: int) -> dict[str, float]:
        groups = images.unflatten(0, (-1, self.sampler.group))
        self._save_sheet(
            groups[:SHEET_PROMPTS, :SHEET_IMAGES], self.folder / f"iteration-{iteration:05d}.png"
        )
        prompts = [prompt for prompt in self.prompts for _ in range(self.sampler.group)]
        drawn, before, rewards = encode_images(images), encode_images(self._before), self.rewards.items()
        scores = {name: reward.against(prompts, drawn, before) for name, reward in rewards}
        if self.sampler.group > 1:
            scores[DIVERSITY] = pixel_distance(groups)
        return {PREFIX + name: score for name, score in scores.items()}

    def _save_sheet(self, groups: Tensor, path: Path) -> None:
        """A row for each prompt, and a line around each image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = torch.nn.functional.pad(groups.nan_to_num(), (1, 1, 1, 1), value=LINE)
        sheet = (shown * 255).round().clamp(0, 255).byte().permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        Image.fromarray(sheet.numpy()).save(path)
        write_whole(self.folder / PROMPTS, "".join(f"{one_line(p)}\n" for p in self.prompts[:SHEET_PROMPTS]))


def pixel_distance(images: Tensor) -> float:
    """Diversity in [0, 1]: the mean over pairs of images of a prompt of their root mean squared difference.

    `images` are [P, K >= 2, 3, H, W] in [0, 1]; pairs with a pixel that is NaN do not count.
    """
    pixels = images.float().flatten(2)
    one, other = torch.triu_indices(pixels.shape[1], pixels.shape[1], offset=1)
    return float((pixels[:, one] - pixels[:, other]).square().mean(2).sqrt().nanmean())


def summary(lines: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Numbers of the report from all lines of metrics: first and last evaluation, iterations, images."""
    evaluated = [{k.removeprefix(PREFIX): v for k, v in line.items() if PREFIX in k} for line in lines]
    evaluated = [*filter(None, evaluated)] or [{}]
    before, after = dict(evaluated[0]), dict(evaluated[-1])
    return {
        "oracle_before": before.pop(ORACLE, None),
        "oracle_after": after.pop(ORACLE, None),
        "diversity_before": before.pop(DIVERSITY, None),
        "diversity_after": after.pop(DIVERSITY, None),
        "reward_before": before,
        "reward_after": after,
        "iterations": int(max((line["iteration"] for line in lines), default=0)),
        "images": int(sum(line.get("images", 0) for line in lines)),
    }


def write_report(output: Path, facts: Mapping[str, Any], lines: Sequence[Mapping[str, float]]) -> None:
    """Write report.json, report.md and the learning curves."""
    from prefrm.plots import learning_curve

    names = [name for name in dict.fromkeys(k for line in lines for k in line) if "/" in name]
    curves = {name: [(line["iteration"], line[name]) for line in lines if name in line] for name in names}
    # The mean win rate within groups is always 0.5.
    curves = {name: points for name, points in curves.items() if np.ptp([y for _, y in points]) > FLAT}
    learning_curve(curves, title=facts["method"], xlabel="iteration").savefig(output / "curves.png")
    write_whole(output / "report.json", json.dumps(facts, indent=2))
    before, after = (
        {**facts[f"reward_{when}"], ORACLE: facts[f"oracle_{when}"], DIVERSITY: facts[f"diversity_{when}"]}
        for when in ("before", "after")
    )
    known = [name for name, value in before.items() if value is not None]
    sheets = sorted((output / "samples").glob("*.png"))
    text = [
        f"# {facts['method']}, seed {facts['seed']}",
        f"{facts['images']} images in {facts['iterations']} iterations, {facts['seconds']['total']:.0f} s, "
        f"at most {facts['peak_rss_mb']:.0f} MiB of memory.",
        "Held-out prompts with the same seeds before and after. Of a judge: the mean probability that it "
        "prefers a sample to one of the policy before its training. Diversity: the mean distance in pixels "
        "(root mean square) of two samples of a prompt.",
        markdown_table(
            ["reward", "before", "after"],
            [[name, f"{before[name]:.3f}", f"{after[name]:.3f}"] for name in known],
        ),
        "![learning curves](curves.png)",
        *(f"![samples](samples/{sheet.name})" for sheet in dict.fromkeys([*sheets[:1], *sheets[-1:]])),
        *([f"Rows of the sheets: [samples/{PROMPTS}](samples/{PROMPTS})."] if sheets else []),
    ]
    write_whole(output / "report.md", "\n\n".join(text) + "\n")
