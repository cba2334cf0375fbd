"""A vision-language model of toy size that has learnt to see the shapes world and its sisters.

It has the captioner's architecture and starts from its weights; `python -m data_recipes.shapes.viewer.train`
goes on with lessons about edits, videos, answers and criteria. As the captioner, it was never shown a
preference. The weights come from a trial with earlier lessons, not from the present script. Importing this
package imports neither torch nor transformers.
"""

from pathlib import Path

__all__ = ["CHECKPOINT"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped weights: a folder for `AutoModelForImageTextToText`, `AutoTokenizer`, `AutoImageProcessor`."""
