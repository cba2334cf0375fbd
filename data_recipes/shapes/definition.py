"""The definition of a world: prompts, candidates for them, and the claims by which candidates are compared.

A world is a value of these pieces. `recipe` makes preference groups of any of them, and the lessons of a base
model ask about any of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_recipes.shapes.claims import Seen, seen_in
from data_recipes.shapes.oracle import Assessment, Judgeable, read
from data_recipes.shapes.prompt_set import PromptSet
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import Scene
from prefrm import media

__all__ = ["Drawn", "World", "encode_scene", "read_image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Candidates for one prompt, before they are encoded, and the scene of its context image, if any."""

    candidates: tuple[Any, ...]
    context: Scene | None = None


def encode_scene(scene: Scene) -> bytes:
    """The scene's picture as a PNG file."""
    return media.encode_png(render(scene))


def read_image(data: bytes) -> tuple[Seen, ...]:
    """The things that the oracle sees in an encoded image."""
    return read(media.decode(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A world. Views are whatever its claims are decided on: the things in a picture, at least.

    Attributes:
        name: of its recipe.
        summary: one line about it.
        prompts: of type P.
        draw: from a prompt, a number of candidates and a generator to candidates of type C, from perfect to
            mostly wrong, independently of their order.
        claims: from a prompt, a criterion and the things in the context image to what is counted.
        see: the view of a candidate of type C that a perfect reader has.
        encode: a candidate as a record holds it: an encoded image, an encoded video or a text.
        read: the oracle's view of an encoded candidate, whoever made it.
        note: what a candidate was made from, as one line of text; None keeps no note.
        criteria: what candidates are compared by; each prompt is asked with each of them.
    """

    name: str
    summary: str
    prompts: PromptSet[Any]
    draw: Callable[[Any, int, np.random.Generator], Drawn]
    claims: Callable[[Any, str, Sequence[Seen]], Sequence[Judgeable]]
    see: Callable[[Any], Any] = seen_in
    encode: Callable[[Any], bytes | str] = encode_scene
    read: Callable[[Any], Any] = read_image
    note: Callable[[Any], str] | None = Scene.program
    criteria: tuple[str, ...] = ("",)

    def assess(
        self, prompt: str, candidates: Sequence[bytes | str], context: Sequence[bytes] = ()
    ) -> dict[str, tuple[Assessment, ...]]:
        """Count the claims that hold for encoded candidates, under each criterion.

        Raises:
            PromptError: it is not a prompt of this world.
            MediaError: an image or a video cannot be read.
        """
        parsed = self.prompts.parse(prompt)
        around = read_image(context[0]) if context else ()
        views = [self.read(candidate) for candidate in candidates]
        return {
            criterion: tuple(Assessment.of(self.claims(parsed, criterion, around), view) for view in views)
            for criterion in self.criteria
        }

    def verdicts(self, prompt: Any, drawn: Drawn, candidate: Any, criterion: str = "") -> list[bool]:
        """Whether each claim holds, without encoding or reading anything."""
        around = seen_in(drawn.context) if drawn.context else ()
        view = self.see(candidate)
        return [claim.holds(view) for claim in self.claims(prompt, criterion, around)]
