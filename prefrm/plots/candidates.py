"""Candidates of any kind in a figure: an image, a video as a strip of frames, a text as its first lines."""

from PIL import Image

from prefrm import media
from prefrm.containers import is_video
from prefrm.display import shortened
from prefrm.plots.lettering import Lettering
from prefrm.video import FrameSampling, read_frames, strip

__all__ = ["first_lines", "picture"]

STRIP_FRAMES = 3
# Of a text, more than any tile can show.
MOST_CHARACTERS = 600


def picture(data: bytes) -> Image.Image:
    """An encoded image; or of a video, its first, middle and last frame side by side.

    Raises:
        MediaError: it cannot be read.
        MissingExtraError: it is a video, and PyAV is not installed.
    """
    if not is_video(data):
        return media.decode(data)
    # Evenly spaced frames of a clip are its first and last one, too.
    frames = read_frames(data, FrameSampling(count=STRIP_FRAMES), shrink=_shrunk)
    return strip(frames.images, height=frames.images[0].height)


def first_lines(text: str, lettering: Lettering, room: float, lines: int) -> list[str]:
    """The start of a text in lines of `room` inches; the last one ends with "…" if there is more."""
    return lettering.wrap(shortened(text, MOST_CHARACTERS), room, lines)


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((256, 256))
    return image
