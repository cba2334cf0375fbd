"""The top of a figure about a group: its prompt, its criterion and its context images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from prefrm.errors import MediaError
from prefrm.plots.candidates import picture
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import EDGE, HATCH, INK, MISSING, SOFT, TITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Heading", "write_lines"]

MOST_TITLE_LINES = 3
NOTE = Lettering(points=9)
# In inches: a line of the title, the line of the criterion, and what stands left of criterion and context.
TITLE_LINE, CRITERION_LINE, LABEL = 0.25, 0.22, 0.72
# In inches: the most of a context image, what is around it, and the room for a count of those left out.
TALLEST, WIDEST, GAP, REST = 0.8, 1.4, 0.08, 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What stands above the candidates of a group.

    Attributes:
        title: the lines of the prompt.
        criterion: on one line, "" for none.
        context: images as they are drawn, None for one that cannot be read.
        sizes: width and height of each, in inches.
        left_out: number of context images that do not fit.
    """

    title: tuple[str, ...]
    criterion: str = ""
    context: tuple[Image.Image | None, ...] = ()
    sizes: tuple[tuple[float, float], ...] = ()
    left_out: int = 0

    @classmethod
    def of(cls, prompt: str, room: float, *, criterion: str = "", context: Sequence[bytes] = ()) -> "Heading":
        """The heading in `room` inches: three lines of the prompt, and as many context images as fit."""
        images = [_read(one) for one in context]
        sizes = [_size(one) for one in images]
        ends = [LABEL + sum(width + GAP for width, _ in sizes[: n + 1]) for n in range(len(sizes))]
        fit = len(sizes) if not ends or ends[-1] <= room else max(1, sum(end <= room - REST for end in ends))
        return cls(
            title=tuple(TITLE.wrap(prompt, room, MOST_TITLE_LINES)),
            criterion=NOTE.fit(criterion, room - LABEL),
            context=tuple(images[:fit]),
            sizes=tuple(sizes[:fit]),
            left_out=len(images) - fit,
        )

    @property
    def height(self) -> float:
        """In inches."""
        pictures = max((height + 2 * GAP for _, height in self.sizes), default=0.0)
        return TITLE_LINE * len(self.title) + CRITERION_LINE * bool(self.criterion) + pictures

    def draw(self, figure: "Figure", left: float, top: float) -> None:
        """Draw it below `top` inches, to the right of `left` inches."""
        write_lines(figure, self.title, TITLE, left, top - TITLE_LINE / 2, TITLE_LINE, INK)
        top -= TITLE_LINE * len(self.title)
        if self.criterion:
            top -= CRITERION_LINE
            for x, text in ((0.0, "criterion"), (LABEL, self.criterion)):
                write_lines(figure, [text], NOTE, left + x, top + CRITERION_LINE / 2, 0.0, SOFT)
        if self.context:
            self._draw_context(figure, left, top - GAP)

    def _draw_context(self, figure: "Figure", left: float, top: float) -> None:
        middle = top - max(height for _, height in self.sizes) / 2
        write_lines(figure, ["context"], NOTE, left, middle, 0.0, SOFT)
        x = left + LABEL
        for image, (width, height) in zip(self.context, self.sizes, strict=True):
            _draw(figure, image, x, middle - height / 2, width, height)
            x += width + GAP
        if self.left_out:
            write_lines(figure, [f"and {self.left_out} more"], NOTE, x, middle, 0.0, SOFT)


def write_lines(
    figure: "Figure",
    lines: Sequence[str],
    lettering: Lettering,
    left: float,
    top: float,
    step: float,
    color: str,
) -> None:
    """Lines of text from `left` inches, the middle of the first at `top` inches, `step` inches apart."""
    width, height = (float(x) for x in figure.get_size_inches())
    text: dict[str, Any] = {"fontsize": lettering.points, "weight": lettering.weight, "color": color}
    for n, line in enumerate(lines):
        figure.text(left / width, (top - n * step) / height, line, va="center", **text)


def _read(data: bytes) -> Image.Image | None:
    try:
        return picture(data)
    except MediaError:
        return None


def _size(image: Image.Image | None) -> tuple[float, float]:
    if image is None:
        return TALLEST, TALLEST
    scale = min(TALLEST / image.height, WIDEST / image.width)
    return image.width * scale, image.height * scale


def _draw(
    figure: "Figure", image: Image.Image | None, left: float, bottom: float, width: float, height: float
) -> None:
    across, up = (float(x) for x in figure.get_size_inches())
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    if image is None:
        axes.patch.set(facecolor=MISSING, edgecolor=EDGE, hatch=HATCH)
    else:
        axes.imshow(image, aspect="auto", interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(EDGE)
