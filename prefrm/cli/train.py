"""`prefrm train`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from prefrm.cli.training import Overrides, Resume, resumable

__all__ = ["train"]


def train(
    config: Annotated[Path, typer.Argument(help="a YAML file, such as configs/train/shapes.yaml")],
    set_: Overrides = None,
    resume: Resume = False,
) -> None:
    """Train a judge from a preference dataset and export it as a bundle.

    On several devices: `accelerate launch -m prefrm train CONFIG`, or torchrun.
    """
    from prefrm.config import load_config
    from prefrm.eval import accuracy_text
    from prefrm.train import TrainConfig
    from prefrm.train import run as run_training

    settings = load_config(TrainConfig, config, set_ or [])
    with resumable():
        result = run_training(settings, resume=resume)
    if not result.main:
        return
    for record, reason in result.left_out.items():
        print(f"record {record!r}: comparisons were left out: {reason}", file=sys.stderr)
    if result.evaluation is not None:
        accuracy = accuracy_text(result.evaluation.metrics.accuracy)
        print(f"pair accuracy {accuracy}, calibration error {result.evaluation.calibration.ece:.3f}")
    print(f"bundle: {result.bundle}")
