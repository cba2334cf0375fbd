"""A tiny language model that answers a prompt of the shapes world with a drawing program, often a wrong one.

It is what reinforcement learning starts from in the examples and tests: it was trained by
`python -m data_recipes.shapes.painter.train` on programs with faults, so among a few samples for one
prompt some are right. Importing this package imports neither torch nor transformers.
"""

from pathlib import Path

__all__ = ["CHECKPOINT"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped weights: a folder for `AutoModelForCausalLM` and `AutoTokenizer`."""
