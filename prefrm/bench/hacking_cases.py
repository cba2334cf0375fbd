"""What the study of reward hacking compares: rewards, methods and seeds, all with one budget. No torch.

Within a method and a seed nothing but the reward differs: policy, prompts, noise, labels and steps are equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from prefrm.bench.cases import LATE, SCALAR, Kind

__all__ = ["FULL", "JUDGES", "QUICK", "REWARDS", "SECOND", "Cell", "JudgeCase", "RewardCase", "Study"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCase:
    """A judge of the study.

    Attributes:
        kind: head and attention.
        labels: seed of its data, the flips among them; judges with the same seed learn from the same labels.
        seed: of its training.
    """

    kind: Kind
    labels: int = 0
    seed: int = 0


SECOND = "second"
"""The judge that no policy is trained with."""
JUDGES: Mapping[str, JudgeCase] = {
    "scalar": JudgeCase(kind=SCALAR),
    "verdict": JudgeCase(kind=LATE),
    # A head of its own; like a scalar judge it reads each image alone, so it may share errors with that one.
    SECOND: JudgeCase(kind=Kind(head="embedding"), labels=1, seed=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCase:
    """A reward that policies are trained with.

    Attributes:
        name: for tables.
        judges: of `JUDGES`; the log-odds of several are averaged.
        reward: of a group's win matrix, a name in `prefrm.rewards.REWARDS`.
        calibrated: whether each judge's calibration is applied.
    """

    name: str
    judges: tuple[str, ...]
    reward: str = "win_rate"
    calibrated: bool = False


REWARDS = (
    # A scalar judge's matrix is sigmoid(u_i - u_j), of which the Bradley-Terry fit gives back u.
    RewardCase(name="scalar utility", judges=("scalar",), reward="bradley_terry"),
    RewardCase(name="scalar win rate", judges=("scalar",)),
    RewardCase(name="verdict win rate", judges=("verdict",)),
    RewardCase(name="verdict calibrated", judges=("verdict",), calibrated=True),
    # Uncalibrated, the judge with the larger log-odds would decide alone.
    RewardCase(name="ensemble", judges=("scalar", "verdict"), calibrated=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training of the policy."""

    reward: RewardCase
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Unique; the cell's folder."""
        return f"seed{self.seed}-{self.method}-{self.reward.name.replace(' ', '-')}"


# Diffusers' own grid leaves the noise of the last stochastic step in the picture that is judged.
EVEN_GRID = {"rollout": {"even_grid": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Sizes of the study.

    Attributes:
        rewards, methods, seeds: whose every combination is a cell.
        lr: learning rate of each method, the same for all rewards.
        settings: of each method, in place of those of its row.
        groups: of the judges' training data, and of its validation and test split.
        flip: share of the judges' training labels that are flipped.
        judge_steps, judge_batch: optimizer steps of a judge's training, and groups of a step.
        iterations: of each cell.
        prompts, group: of an iteration; their product is its number of images.
        steps: T, of the sampler, in training and evaluation.
        every: iterations from one evaluation to the next.
        held_out, images: prompts of an evaluation, and images of each.
    """

    rewards: tuple[RewardCase, ...] = REWARDS
    methods: tuple[str, ...] = ("nft", "flow_grpo", "flow_grpo_fast")
    seeds: tuple[int, ...] = (0, 1, 2)
    lr: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(("nft", "flow_grpo", "flow_grpo_fast"), 1e-3)
    )
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"flow_grpo": EVEN_GRID})
    groups: tuple[int, int, int] = (400, 150, 300)
    flip: float = 0.25
    judge_steps: int = 80
    judge_batch: int = 4
    iterations: int = 24
    prompts: int = 4
    group: int = 8
    steps: int = 6
    every: int = 6
    held_out: int = 24
    images: int = 2

    @property
    def cells(self) -> list[Cell]:
        """In the order in which they run: one seed of everything first."""
        return [
            Cell(reward=reward, method=method, seed=seed)
            for seed, method, reward in product(self.seeds, self.methods, self.rewards)
        ]

    def settings_of(self, method: str) -> dict[str, Any]:
        """What differs from the method's row: the scale of advantages is the same for all rewards."""
        return {"advantage": {"scale": "group"}, **self.settings.get(method, {})}


FULL = Study()
QUICK = Study(
    rewards=(REWARDS[0], REWARDS[2]),
    methods=("nft",),
    seeds=(0,),
    groups=(120, 40, 40),
    judge_steps=20,
    iterations=8,
    every=4,
    held_out=12,
)
