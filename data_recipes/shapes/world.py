"""The world as whoever trains a policy on it sees it: prompts to answer, and how right an answer is.

Packages name such a module under the entry point group `prefrm.worlds`.
"""

from itertools import cycle, islice

from PIL import Image

from data_recipes.shapes.oracle import assess
from data_recipes.shapes.prompts import SKILLS, deck, parse_prompt
from prefrm import media

__all__ = ["oracle", "prompts"]


def prompts(split: str, n: int, seed: int) -> list[str]:
    """`n` prompts of "train", "validation" or "test", which have none in common.

    Skill after skill, each through all its prompts of the split in shuffled order, again and again: the
    prompts of the recipe's groups, in their order.

    Raises:
        PromptError: there is no such split.
    """
    decks = [cycle(deck(split, skill, seed)) for skill in SKILLS]
    return [next(prompt_deck).text for prompt_deck in islice(cycle(decks), n)]


def oracle(prompt: str, image: Image.Image | bytes) -> float:
    """The share of the prompt's claims that hold for a picture, in [0, 1].

    Args:
        prompt: a prompt of the world.
        image: a Pillow image, or an encoded one.

    Raises:
        PromptError: it is not a prompt of the world.
        MediaError: the bytes cannot be read as an image.
    """
    picture = media.decode(image) if isinstance(image, bytes) else image
    return assess(parse_prompt(prompt), picture).score
