"""A tiny flow-matching model that paints pictures for prompts of the shapes world, often wrong ones.

It is what reinforcement learning of flow policies starts from in the examples and tests: Stable Diffusion
3's pipeline and transformer at toy size, trained from scratch by `python -m data_recipes.shapes.flow.train`.
Colors are learnt before kinds, so among a few samples for one prompt some are better. Importing this package
imports neither torch nor diffusers.
"""

from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["CHECKPOINT", "load"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The folder of the policy `shapes-flow`, in diffusers' layout: the training script makes it."""


def load(folder: str | Path | None = None, **options: Any) -> Any:
    """The `ShapesFlowPipeline` of a folder, in single precision unless an option says otherwise.

    Args:
        folder: what the training script or the pipeline's `save_pretrained` wrote; None is `CHECKPOINT`.
        options: keywords of diffusers' `from_pretrained`.

    Raises:
        ConfigError: the folder has no pipeline.
        MissingExtraError: diffusers or torch is not installed.
    """
    folder = Path(folder or CHECKPOINT)
    if not (folder / "model_index.json").is_file():
        raise ConfigError(
            f"{folder} has no flow model; make it: python -m data_recipes.shapes.flow.train --out {folder}"
        )
    from data_recipes.shapes.flow.pipeline import load_folder

    return load_folder(folder, **options)
