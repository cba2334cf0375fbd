"""Where a verdict comes from, as a picture: blue speaks for the candidate that it is of, orange against it.

Maps of both candidates have one scale, so that their colors compare.

Shapes: H, W of an image; F frames; N words.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm import media
from prefrm.display import one_line, text_color
from prefrm.plots.heading import Heading
from prefrm.plots.lettering import Lettering
from prefrm.plots.style import EDGE, GRID, MISSING, SERIES, SOFT, loss_to_win, new_figure
from prefrm.video import FrameSampling, read_frames, strip
from prefrm.winmatrix import Candidate, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["explanation_figure"]

# In inches: of the figure, of a margin and of a line of words.
WIDTH, MARGIN, WORD_LINE = 9.0, 0.25, 0.24
CAPTION_LINE, FOOTER = 0.45, 0.45
STRIP_FRAMES, MOST_WORD_LINES = 8, 24
WORDS, CAPTION = Lettering(points=9), Lettering(points=9)
# The share of white in the picture below a map, and of it that the strongest color hides. Colors end at this
# quantile of the maps, so that one pixel does not make all others pale.
WHITE, OPACITY, FULL_COLOR = 0.4, 0.5, 0.995
# In inches: the bars of frames with their times, and what tall candidates are limited to.
BARS, TALLEST = 0.95, 4.3


def explanation_figure(
    candidates: Sequence[Candidate],
    maps: Sequence[Floats],
    parts: Sequence[Sequence[Any]],
    *,
    title: str,
    captions: Sequence[str],
    criterion: str = "",
    context: Sequence[bytes] = (),
) -> Any:
    """The figure of an explanation; `savefig` writes it.

    Args:
        candidates: two encoded images, two encoded videos or two texts.
        maps: of each, as of `prefrm.explain.Explanation`: [H, W] over an image, [F] beneath a video's frames,
            [N] behind a text's words. NaN is grey.
        parts: of each, the times of frames in seconds or the words.
        title: such as the prompt.
        captions: of each candidate.
        criterion: by what the candidates were compared, named below the title.
        context: encoded images that belong to the prompt, drawn above the candidates.

    Raises:
        MediaError: an image or a video cannot be read.
    """
    known = np.concatenate([np.abs(one[np.isfinite(one)]).ravel() for one in maps])
    end = float(np.quantile(known, FULL_COLOR)) if known.size else 0.0
    end = end or float(known.max(initial=0.0)) or 1.0
    beside = maps[0].ndim == 2
    rooms = (WIDTH / 2 if beside else WIDTH) - 2 * MARGIN
    shown = [one if isinstance(one, str) else _picture(one or b"", beside) for one in candidates]
    heights = [
        _words_height(words) if isinstance(one, str) else _height(one, rooms) + (0 if beside else BARS)
        for one, words in zip(shown, parts, strict=True)
    ]
    body = max(heights) if beside else sum(heights) + 0.5
    heading = Heading.of(title, WIDTH - 2 * MARGIN, criterion=criterion, context=context)
    height = MARGIN + heading.height + CAPTION_LINE + body + FOOTER
    figure = new_figure(WIDTH, height)
    heading.draw(figure, MARGIN, height - MARGIN)
    top = FOOTER + body
    for n, one in enumerate(shown):
        left = MARGIN + n * WIDTH / 2 if beside else MARGIN
        caption = CAPTION.fit(captions[n], rooms)
        figure.text(left / WIDTH, (top + 0.14) / height, caption, fontsize=9, color=SOFT, va="center")
        inches = (left, top - heights[n], rooms, heights[n])
        if isinstance(one, str):
            _draw_words(_axes(figure, inches), parts[n], maps[n], end, rooms, heights[n])
        elif beside:
            _draw_overlay(_axes(figure, inches), one, maps[n], end)
        else:
            _draw_frames(figure, one, parts[n], maps[n], end, inches)
        top -= 0 if beside else heights[n] + 0.5
    _draw_scale(figure, height)
    return figure


def _picture(data: bytes, is_image: bool) -> Image.Image:
    """An image, or the frames of a video side by side."""
    if is_image:
        return media.decode(data)
    return strip(read_frames(data, FrameSampling(count=STRIP_FRAMES)).images, most=STRIP_FRAMES)


def _height(picture: Image.Image, room: float) -> float:
    return min(TALLEST, room * picture.height / picture.width)


def _axes(figure: Any, inches: tuple[float, float, float, float]) -> "Axes":
    """Axes whose left, bottom, width and height are in inches."""
    width, height = figure.get_size_inches()
    left, bottom, across, up = inches
    axes: Axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
    return axes


def _draw_overlay(axes: "Axes", picture: Image.Image, map_HW: Floats, end: float) -> None:
    grey = np.asarray(picture.convert("L").convert("RGB")).astype(np.float64) / 255
    below = WHITE + (1 - WHITE) * grey
    share = np.nan_to_num(np.abs(map_HW) / end, nan=1.0).clip(0, 1)[..., None] * OPACITY
    color = _colors(map_HW, end)[..., :3]
    axes.imshow(below * (1 - share) + color * share, interpolation="antialiased")
    axes.set_anchor("NW")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(EDGE)


def _draw_frames(
    figure: Any,
    frames: Image.Image,
    times: Sequence[float],
    map_F: Floats,
    end: float,
    inches: tuple[float, float, float, float],
) -> None:
    left, bottom, room, height = inches
    shown = _axes(figure, (left, bottom + BARS, room, height - BARS))
    shown.imshow(np.asarray(frames), aspect="auto", interpolation="antialiased")
    shown.set(xticks=[], yticks=[])
    shown.spines[:].set_color(EDGE)
    bars = _axes(figure, (left, bottom + 0.25, room, BARS - 0.3))
    colors = [SERIES[0] if value >= 0 else SERIES[1] for value in map_F]
    bars.bar(range(len(map_F)), np.nan_to_num(map_F), width=0.9, color=colors)
    bars.axhline(0, color=GRID, linewidth=0.8)
    reach = 1.1 * max(end, float(np.abs(np.nan_to_num(map_F)).max()))
    bars.set(xlim=(-0.5, len(map_F) - 0.5), ylim=(-reach, reach), yticks=[])
    ticks = list(range(0, len(map_F), max(1, len(map_F) // 8)))
    bars.set_xticks(ticks, [f"{times[n]:.1f} s" for n in ticks], fontsize=7, color=SOFT)
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0)


def _draw_words(
    axes: "Axes", words: Sequence[str], map_N: Floats, end: float, room: float, height: float
) -> None:
    axes.set(xlim=(0, room), ylim=(height, 0))
    axes.axis("off")
    colors = _colors(map_N, end)
    for word, color, (x, y) in zip(map(one_line, words), colors, _places(words, room), strict=False):
        axes.text(
            x,
            y,
            word,
            fontsize=WORDS.points,
            va="center",
            color=text_color(tuple(color[:3])),
            bbox={"facecolor": tuple(color[:3]), "edgecolor": "none", "pad": 1.5},
        )


def _places(words: Sequence[str], room: float) -> list[tuple[float, float]]:
    """Where each word starts, in inches, in lines as wide as `room`; those beyond the last line have none."""
    places: list[tuple[float, float]] = []
    x, y = 0.0, WORD_LINE / 2
    for word in map(one_line, words):
        width = WORDS.width(word)
        if x and x + width > room:
            x, y = 0.0, y + WORD_LINE
        if y > MOST_WORD_LINES * WORD_LINE:
            break
        places.append((x, y))
        x += width + 0.09
    return places


def _words_height(words: Sequence[str]) -> float:
    places = _places(words, WIDTH - 2 * MARGIN)
    return (places[-1][1] if places else 0.0) + WORD_LINE / 2


def _draw_scale(figure: Any, height: float) -> None:
    text: dict[str, Any] = {"fontsize": 8, "color": SOFT, "va": "center"}
    y = 0.2
    figure.text(MARGIN / WIDTH, y / height, "speaks against it", **text)
    axes = figure.add_axes(((MARGIN + 1.1) / WIDTH, (y - 0.06) / height, 1.5 / WIDTH, 0.12 / height))
    axes.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap=loss_to_win())
    axes.axis("off")
    figure.text((MARGIN + 2.7) / WIDTH, y / height, "speaks for the candidate", **text)


def _colors(map_: Floats, end: float) -> npt.NDArray[np.float64]:
    """RGBA of each entry; grey where it is NaN."""
    scale = loss_to_win().with_extremes(bad=MISSING)
    return np.asarray(scale(np.ma.masked_invalid(np.clip(map_ / end, -1, 1) / 2 + 0.5)))
