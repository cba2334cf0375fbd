"""How much the quickstart does. The defaults fit into ten minutes on two cores; tests ask for less."""

from dataclasses import dataclass, field

from data_recipes.shapes.recipe import ShapesOptions
from prefrm.train import OptimConfig

__all__ = ["THREADS", "PolicySettings", "Settings"]

THREADS = 1
"""Of each process. More are hardly faster for models this small, many times slower where anything else
runs, and add up in another order on every machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """GRPO on the painter.

    Attributes:
        steps: optimizer steps.
        prompts: prompts in a step.
        group_size: programs sampled for each of them, and compared with each other.
        iterations: steps on the same samples; scoring them costs more than a step.
        lr: peak learning rate; it rises over the first `warmup_steps` and falls linearly to 0.
        warmup_steps: see `lr`.
        beta: weight of the divergence from the policy that it started as. What has no image has no
            reward and so no advantage: nothing else keeps the policy from programs that draw nothing.
        samples: programs that the oracle looks at for every held-out prompt.
        watch_every: steps between two looks.
    """

    steps: int = 80
    prompts: int = 24
    group_size: int = 8
    iterations: int = 2
    lr: float = 1e-3
    warmup_steps: int = 3
    beta: float = 0.1
    samples: int = 4
    watch_every: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it: what to build, how long the judge and the policy learn, and how many groups are compared
    between the engine and the server."""

    data: ShapesOptions = field(default_factory=ShapesOptions)
    judge: OptimConfig = field(default_factory=lambda: OptimConfig(steps=300, batch_size=5, lr=2e-3))
    policy: PolicySettings = field(default_factory=PolicySettings)
    parity_groups: int = 24
