"""Evaluation on held-out prompts with the same seeds every time, and what a run leaves to look at.

output/metrics.jsonl   a line for each iteration; evaluations under "eval/NAME"
output/samples/        sheets of the same prompts and seeds; iteration-00000.png is before the training
output/curves.png      rewards of the training's samples, and of evaluations
output/report.json     and report.md
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prefrm.files import write_whole
from prefrm.flow.config import ORACLE
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import seed_of
from prefrm.flow.scoring import Reward, encode_images

__all__ = ["Evaluation", "Metrics", "write_report"]

# The iteration in seeds of evaluations, which no training reaches; rows and columns of a sheet.
EVALUATION, SHEET_PROMPTS, SHEET_IMAGES = 2**31, 8, 6
PREFIX = "eval/"


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
        self._policy, self._steps, self._batch, self._seed = policy, steps, batch, seed
        self._places = [(p, n) for p in range(len(prompts)) for n in range(images)]
        self._prompts, self._images = [prompts[p] for p, _ in self._places], images
        self._rewards, self._folder = rewards, folder
        with policy.using(None):
            self._before = self._draw()

    def before(self) -> dict[str, float]:
        """Of the policy before its training: a judge prefers it to itself in half of the cases."""
        return self._scores(self._before, 0)

    def now(self, iteration: int) -> dict[str, float]:
        """By name: of a judge, the mean probability that it prefers a sample to one of the policy before."""
        return self._scores(self._draw(), iteration)

    def _draw(self) -> Tensor:
        drawn = []
        for i in range(0, len(self._places), self._batch):
            seeds = [seed_of(self._seed, EVALUATION, p, n) for p, n in self._places[i : i + self._batch]]
            prompts = self._prompts[i : i + self._batch]
            recording = self._policy.draw(prompts, seeds=seeds, steps=self._steps)
            assert recording.images is not None
            drawn.append(recording.images.cpu())
        return torch.cat(drawn)

    def _scores(self, images: Tensor, iteration: int) -> dict[str, float]:
        self._folder.mkdir(parents=True, exist_ok=True)
        _sheet(images, self._images).save(self._folder / f"iteration-{iteration:05d}.png")
        drawn, before = encode_images(images), encode_images(self._before)
        scores = {
            name: reward.against(self._prompts, drawn, before) for name, reward in self._rewards.items()
        }
        return {PREFIX + name: score for name, score in scores.items()}


class Metrics:
    """A line of JSON for each iteration; a resumed run takes back those that it does again.

    Args:
        path: of the file; None writes none.
        done: iterations that are done.
    """

    def __init__(self, path: Path | None, done: int) -> None:
        self._path, self.lines = path, list[dict[str, float]]()
        if path is not None:
            before = path.read_text(encoding="utf-8").splitlines() if path.exists() and done else []
            # A line that a kill cut short is never of an iteration that a checkpoint knows.
            whole = map(json.loads, takewhile(lambda line: line.endswith("}"), before))
            self.lines += [line for line in whole if line["iteration"] <= done]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Append a line, of the finite numbers."""
        line = {"iteration": iteration, **{k: v for k, v in numbers.items() if math.isfinite(v)}}
        self.lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def summary(self) -> dict[str, Any]:
        """What the report says of all lines: the first and the last evaluation, iterations, images."""
        evaluated = [
            {k.removeprefix(PREFIX): v for k, v in line.items() if PREFIX in k} for line in self.lines
        ]
        evaluated = [*filter(None, evaluated)] or [{}]
        before, after = dict(evaluated[0]), dict(evaluated[-1])
        return {
            "oracle_before": before.pop(ORACLE, None),
            "oracle_after": after.pop(ORACLE, None),
            "reward_before": before,
            "reward_after": after,
            "iterations": int(max((line["iteration"] for line in self.lines), default=0)),
            "images": int(sum(line.get("images", 0) for line in self.lines)),
        }


def write_report(output: Path, facts: Mapping[str, Any], metrics: Metrics) -> None:
    """Write report.json, report.md and the learning curves."""
    from prefrm.plots import learning_curve

    names = [name for name in dict.fromkeys(k for line in metrics.lines for k in line) if "/" in name]
    curves = {
        name: [(line["iteration"], line[name]) for line in metrics.lines if name in line] for name in names
    }
    learning_curve(curves, title=facts["method"], xlabel="iteration").savefig(output / "curves.png")
    write_whole(output / "report.json", json.dumps(facts, indent=2))
    before, after = (
        {**facts[f"reward_{when}"], ORACLE: facts[f"oracle_{when}"]} for when in ("before", "after")
    )
    rows = [
        f"| {name} | {before[name]:.3f} | {after[name]:.3f} |" for name in before if before[name] is not None
    ]
    sheets = sorted((output / "samples").glob("*.png"))
    text = [
        f"# {facts['method']}, seed {facts['seed']}",
        f"{facts['images']} images in {facts['iterations']} iterations, {facts['seconds']['total']:.0f} s, "
        f"at most {facts['peak_rss_mb']:.0f} MiB of memory.",
        "Held-out prompts with the same seeds before and after. Of a judge: the mean probability that it "
        "prefers a sample to one of the policy before its training.",
        "\n".join(["| reward | before | after |", "|---|---|---|", *rows]),
        "![learning curves](curves.png)",
        *(f"![samples](samples/{sheet.name})" for sheet in dict.fromkeys([*sheets[:1], *sheets[-1:]])),
    ]
    write_whole(output / "report.md", "\n\n".join(text) + "\n")


def _sheet(images: Tensor, each: int) -> Image.Image:
    """A row for each prompt, of images [prompts * each, 3, H, W] in [0, 1]."""
    shown = images.unflatten(0, (-1, each))[:SHEET_PROMPTS, :SHEET_IMAGES]
    rows = torch.cat([torch.cat([*row], dim=2) for row in shown], dim=1)
    return Image.fromarray((rows.nan_to_num() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
