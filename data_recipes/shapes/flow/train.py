"""Train the flow model: `python -m data_recipes.shapes.flow.train --out DIR --seed 0`.

From random weights, on one CPU core in about 20 minutes, on rendered scenes that solve prompts of the train
split. Then paints pictures for held-out prompts and prints how the oracle finds them. Equal seeds give equal
weights on one machine.

Shapes: B pictures, C channels, S pixels along each side, T tokens of a prompt.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch.optim.lr_scheduler import LambdaLR

from data_recipes.shapes.flow.pipeline import SHIFT, SIDE, load_folder, save, untrained
from data_recipes.shapes.prompts import SKILLS, parse_prompt, solve, split_prompts
from data_recipes.shapes.render import CANVAS, render
from data_recipes.shapes.world import oracle, prompts

__all__ = ["Report", "draw", "evaluate", "flow_matching_loss", "lessons", "main", "train"]

LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.01
WARMUP = 0.04
LOG_EVERY = 100
UNPROMPTED = 0.1
"""The share of pictures that are learnt without a prompt, for classifier-free guidance (arXiv 2207.12598)."""
TIMESTEPS = 1000
"""The transformer's timestep at noise level 1."""
SEEDS_APART = 1_000_003
"""Between the first pictures' noise of one seed and of the next."""
INFERENCE_STEPS = 10
"""Steps of the sampler while pictures are painted for a report."""


def lessons(rng: np.random.Generator, batch_size: int) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Endless batches: prompts, every skill equally often, and right pictures [B, C, S, S] in [-1, 1]."""
    decks = [[prompt for prompt in split_prompts("train") if prompt.skill == skill] for skill in SKILLS]
    while True:
        skills = rng.integers(len(SKILLS), size=batch_size)
        asked = [decks[skill][rng.integers(len(decks[skill]))] for skill in skills]
        pixels = np.stack([np.asarray(render(solve(prompt, rng)).reduce(CANVAS // SIDE)) for prompt in asked])
        texts = ["" if rng.random() < UNPROMPTED else prompt.text for prompt in asked]
        yield texts, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def flow_matching_loss(pipe: Any, texts: Sequence[str], clean_BCSS: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the velocity, noise - clean, at noise levels drawn from torch's global generator.

    Levels are logit-normal and shifted as the sampler's are (arXiv 2403.03206).
    """
    level_B = torch.sigmoid(torch.randn(len(clean_BCSS)))
    level_B = SHIFT * level_B / (1 + (SHIFT - 1) * level_B)
    level_B111 = level_B[:, None, None, None]
    noise_BCSS = torch.randn_like(clean_BCSS)
    tokens_BTD, pooled_BD = pipe.text_encoder(pipe.text_encoder.tokenize(texts))
    velocity_BCSS = pipe.transformer(
        hidden_states=(1 - level_B111) * clean_BCSS + level_B111 * noise_BCSS,
        timestep=TIMESTEPS * level_B,
        encoder_hidden_states=tokens_BTD,
        pooled_projections=pooled_BD,
    ).sample
    return torch.nn.functional.mse_loss(velocity_BCSS, noise_BCSS - clean_BCSS)


def train(
    out: Path, *, seed: int, steps: int, batch_size: int, width: int = 64, layers: int = 4
) -> tuple[Any, list[float]]:
    """Train, write a folder in diffusers' layout to `out`, and return it loaded, and each step's loss."""
    torch.manual_seed(seed)
    pipe = untrained(width=width, layers=layers)
    learnt = torch.nn.ModuleList([pipe.transformer, pipe.text_encoder]).train()
    print(f"{sum(p.numel() for p in learnt.parameters()):,} parameters", flush=True)
    optimizers = _optimizers(learnt)
    schedules = [LambdaLR(optimizer, lambda step: _rate(step / steps)) for optimizer in optimizers]
    losses = []
    batches = lessons(np.random.default_rng([seed, 1]), batch_size)
    for (texts, clean_BCSS), step in zip(batches, track(range(1, steps + 1), "training"), strict=False):
        loss = flow_matching_loss(pipe, texts, clean_BCSS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        learnt.zero_grad()
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            print(f"step {step}: loss {np.mean(losses[-LOG_EVERY:]):.4f}", flush=True)
    save(pipe, out)
    return load_folder(out), losses


def _rate(progress: float) -> float:
    """The learning rate's factor: up over the first steps, then down along a cosine."""
    return min((progress + 1e-3) / WARMUP, 0.5 * (1 + math.cos(math.pi * progress)))


def _optimizers(learnt: torch.nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for name, p in learnt.named_parameters() if p.ndim == 2 and "transformer_blocks" in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in learnt.parameters() if id(p) not in chosen]
    return (
        torch.optim.Muon(
            matrices,
            lr=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    )


def draw(
    pipe: Any, texts: Sequence[str], *, seed: int, steps: int = INFERENCE_STEPS, batch_size: int = 64
) -> list[Image.Image]:
    """A picture for each prompt, without guidance. The n-th one's noise depends on `seed` and on n alone."""
    pictures: list[Image.Image] = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        generators = [
            torch.Generator().manual_seed(seed * SEEDS_APART + start + n) for n in range(len(batch))
        ]
        pictures += pipe(
            prompt=batch, num_inference_steps=steps, guidance_scale=1, generator=generators
        ).images
    return pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How painted pictures fare.

    Attributes:
        mean: of the oracle's scores, in [0, 1].
        by_skill: the same, skill by skill.
        spread: standard deviation of the scores of one prompt's pictures, mean over prompts.
        varied: share of prompts whose pictures differ in score.
        pictures_per_second: painted on this machine, the oracle not included.
    """

    mean: float
    by_skill: dict[str, float]
    spread: float
    varied: float
    pictures_per_second: float

    def __str__(self) -> str:
        skills = "".join(f"\n  {skill:<18} {value:.3f}" for skill, value in self.by_skill.items())
        return (
            f"oracle score {self.mean:.3f}, within a prompt +-{self.spread:.3f}, "
            f"{self.varied:.0%} of prompts vary, {self.pictures_per_second:.1f} pictures/s{skills}"
        )


def evaluate(
    pipe: Any, *, prompts_per_skill: int, group_size: int = 8, seed: int = 0, steps: int = INFERENCE_STEPS
) -> Report:
    """Paint `group_size` pictures for each of some held-out prompts of every skill."""
    asked = prompts("test", prompts_per_skill * len(SKILLS), seed)
    texts = [text for text in asked for _ in range(group_size)]
    start = time.perf_counter()
    pictures = draw(pipe, texts, seed=seed, steps=steps)
    seconds = time.perf_counter() - start
    scores = np.array([oracle(text, picture) for text, picture in zip(texts, pictures, strict=True)])
    scores_NG = scores.reshape(len(asked), group_size)
    skills = np.array([parse_prompt(text).skill for text in asked])
    return Report(
        mean=float(scores_NG.mean()),
        by_skill={skill: float(scores_NG[skills == skill].mean()) for skill in SKILLS},
        spread=float(scores_NG.std(axis=1).mean()),
        varied=float((np.ptp(scores_NG, axis=1) > 0).mean()),
        pictures_per_second=len(texts) / seconds,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = vars(parser.parse_args())
    # Several threads add up in another order.
    torch.set_num_threads(1)
    pipe, _ = train(arguments.pop("out"), **arguments)
    print(evaluate(pipe, prompts_per_skill=20))


if __name__ == "__main__":
    main()
