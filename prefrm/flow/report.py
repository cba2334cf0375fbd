"""Evaluation on held-out prompts with the same seeds every time, and what a run leaves to look at.

output/metrics.jsonl   one line for each iteration; evaluations under "eval/NAME"
output/samples/        sheets of the same prompts and seeds: iteration-00000.png is before the training
output/curves.png      rewards of the training samples and of evaluations
output/report.json     and report.md
Shapes: N images.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prefrm.files import write_whole
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import seed_of
from prefrm.flow.scoring import Reward, encode_images

__all__ = ["Evaluation", "Metrics", "write_report"]

# An iteration that no run has: of the seeds of evaluations.
EVALUATION = 2**31
# Rows and columns of a sheet.
SHEET_PROMPTS, SHEET_IMAGES = 8, 6


class Evaluation:
    """Draws and scores held-out prompts.

    Args:
        policy: as it is at the time of a call.
        prompts: held-out ones.
        images: of each prompt.
        steps: of the sampler.
        batch: images in one call of the pipeline.
        seed: of the run.
        rewards: by name, those of the training and others.
        folder: of the sheets.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[str],
        *,
        images: int,
        steps: int,
        batch: int,
        seed: int,
        rewards: Mapping[str, Reward],
        folder: Path,
    ) -> None:
        self._policy, self._prompts, self._images, self._steps = policy, prompts, images, steps
        self._batch, self._seed, self._rewards, self._folder = batch, seed, rewards, folder
        with policy.using(None):
            self._before = self._draw()

    def before(self) -> dict[str, float]:
        """Of the policy before its training: a scorer prefers it to itself in half of the cases."""
        return self._scores(self._before, 0)

    def now(self, iteration: int) -> dict[str, float]:
        """Mean rewards by name; of a judge, the mean probability that it prefers a sample to an earlier one."""
        return self._scores(self._draw(), iteration)

    def _draw(self) -> Tensor:
        places = [(p, n) for p in range(len(self._prompts)) for n in range(self._images)]
        parts = []
        for i in range(0, len(places), self._batch):
            some = places[i : i + self._batch]
            drawn = self._policy.draw(
                [self._prompts[p] for p, _ in some],
                seeds=[seed_of(self._seed, EVALUATION, p, n) for p, n in some],
                steps=self._steps,
            )
            assert drawn.images is not None
            parts.append(drawn.images.cpu())
        return torch.cat(parts)

    def _scores(self, images: Tensor, iteration: int) -> dict[str, float]:
        shown = images.unflatten(0, (len(self._prompts), -1))[:SHEET_PROMPTS, :SHEET_IMAGES]
        self._folder.mkdir(parents=True, exist_ok=True)
        _sheet(shown).save(self._folder / f"iteration-{iteration:05d}.png")
        drawn, before = encode_images(images), encode_images(self._before)
        prompts = [prompt for prompt in self._prompts for _ in range(self._images)]
        return {name: reward.against(prompts, drawn, before) for name, reward in self._rewards.items()}


class Metrics:
    """A line of JSON for each iteration; a resumed run takes back what it does again."""

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() and done else []
        # A line that a kill cut short is never of an iteration that a checkpoint knows.
        known = takewhile(lambda line: line.endswith("}"), before)
        self.lines = [line for line in map(json.loads, known) if line["iteration"] <= done]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Append a line."""
        line = {"iteration": iteration, **{k: v for k, v in numbers.items() if np.isfinite(v)}}
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Points (iteration, value)."""
        return [(line["iteration"], line[name]) for line in self.lines if name in line]


def write_report(output: Path, facts: Mapping[str, Any], metrics: Metrics) -> None:
    """Write report.json, report.md and the learning curves."""
    from prefrm.plots import learning_curve

    names = dict.fromkeys(name for line in metrics.lines for name in line)
    curves = {name: metrics.curve(name) for name in names if name.startswith(("reward/", "eval/"))}
    learning_curve(curves, title=facts["method"], xlabel="iteration").savefig(output / "curves.png")
    write_whole(output / "report.json", json.dumps(facts, indent=2))
    rows = [
        f"| {name} | {before:.3f} | {facts['reward_after'][name]:.3f} |"
        for name, before in facts["reward_before"].items()
    ]
    if facts["oracle_before"] is not None:
        rows.append(f"| oracle | {facts['oracle_before']:.3f} | {facts['oracle_after']:.3f} |")
    sheets = sorted((output / "samples").glob("*.png"))
    text = [
        f"# {facts['method']}, seed {facts['seed']}",
        f"{facts['images']} images in {facts['seconds']['total']:.0f} s, at most "
        f"{facts['peak_rss_mb']:.0f} MiB of memory.",
        "Held-out prompts with the same seeds before and after; of a judge, the mean probability that it "
        "prefers a sample to one from before the training.",
        "\n".join(["| reward | before | after |", "|---|---|---|", *rows]),
        "![learning curves](curves.png)",
        *(f"![samples](samples/{sheet.name})" for sheet in (sheets[:1] + sheets[-1:])),
    ]
    write_whole(output / "report.md", "\n\n".join(text) + "\n")


def _sheet(images: Tensor) -> Image.Image:
    """A row for each prompt, of images [prompts, images, 3, H, W] in [0, 1]."""
    rows = torch.cat([torch.cat([*row], dim=2) for row in images], dim=1)
    return Image.fromarray((rows.nan_to_num() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
