"""Train a judge on preference groups, and export it as a bundle. Needs the extra `train`."""

from prefrm.errors import missing_extra

try:
    import datasets  # noqa: F401
    import peft  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "datasets", "train") from error

from prefrm.train.config import AdapterConfig, DataConfig, OptimConfig, TrainConfig
from prefrm.train.run import TrainResult, fit, run

__all__ = ["AdapterConfig", "DataConfig", "OptimConfig", "TrainConfig", "TrainResult", "fit", "run"]
