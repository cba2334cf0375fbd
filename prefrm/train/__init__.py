"""Train a judge on preference groups, and export it as a bundle. Needs the extra `train`."""

from prefrm.errors import missing_extra

try:
    import accelerate  # noqa: F401
    import peft  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "peft", "train") from error

from prefrm.train.config import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    MixConfig,
    OptimConfig,
    TrainConfig,
)
from prefrm.train.fit import fit
from prefrm.train.run import TrainResult, run

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "MixConfig",
    "OptimConfig",
    "TrainConfig",
    "TrainResult",
    "fit",
    "run",
]
