"""Flow policies: train any flow-matching pipeline of `diffusers` with any scorer.

A published method is a row of settings (`METHODS`) over pieces that all rows share: kernels, stochastic
steps, likelihoods, objectives. Neither the methods nor the settings import torch.
"""

from prefrm.flow.settings import (
    Likelihood,
    Method,
    Objective,
    Regularizer,
    Rollout,
    StochasticSteps,
    with_settings,
)

__all__ = ["Likelihood", "Method", "Objective", "Regularizer", "Rollout", "StochasticSteps", "with_settings"]
