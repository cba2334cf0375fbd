"""A vision-language model of a real architecture and of toy size that has learnt to see the shapes world.

It is a `Qwen2_5_VLForConditionalGeneration` of about a million parameters, trained from scratch by
`python -m data_recipes.shapes.captioner.train` to describe scenes and to hold them against prompts. It was
never shown a preference: asked which of two images is better, it says about 50 to 50 until it is fine-tuned
into a judge. Importing this package imports neither torch nor transformers.
"""

from pathlib import Path

__all__ = ["CHECKPOINT"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped weights: a folder for `AutoModelForImageTextToText`, `AutoTokenizer`, `AutoImageProcessor`."""
