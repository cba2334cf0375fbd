"""A vision-language model of toy size that has learnt to see the shapes world and its sisters.

It has the captioner's architecture with three more layers, and starts from its weights:
`python -m data_recipes.shapes.viewer.train` goes on with lessons about edits, videos, answers and criteria.
As the captioner, it was never shown a preference. The shipped weights come from these courses, the first
three in an earlier form: without marks at the parts of a question that is read again, and with a few tokens
more. Importing this package imports neither torch nor transformers.
"""

from pathlib import Path

__all__ = ["CHECKPOINT"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped weights: a folder for `AutoModelForImageTextToText`, `AutoTokenizer`, `AutoImageProcessor`."""
