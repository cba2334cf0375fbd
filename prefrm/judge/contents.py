"""From an encoded image, an encoded video or a text to its content: what a judge reads in its place."""

from PIL import Image

from prefrm.errors import RecordError
from prefrm.judge.layout import Content
from prefrm.judge.processor import JudgeProcessor
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.video import Frames, FrameSampling, check_installed, iterate_frames, read_frames

__all__ = ["ContentReader", "Decoded"]

Decoded = Image.Image | Frames | Content
"""An image; frames in their final size; or the content of a text, and of frames that the family prepares one
by one, which are then not kept in full size."""


class ContentReader:
    """Reads candidates and context images for one judge, in two steps, of which the second is quick.

    Args:
        processor: of the judge, which samples the frames of a video as its specification says.
        limits: of an encoded image or video, checked before anything is decoded.

    Raises:
        MissingExtraError: the judge reads videos, and what decodes them is not installed.
    """

    def __init__(self, processor: JudgeProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._processor = processor
        self._limits = limits
        spec = processor.spec
        self._sampling = None
        if spec.frames is not None:
            check_installed()
            count = spec.frames if spec.frame_rate is None else None
            self._sampling = FrameSampling(count=count, rate=spec.frame_rate, most=spec.frames)

    def __call__(self, data: bytes | str, kind: str) -> Content:
        """The content of an image, a video or a text that is read as one of that kind. Raises as `decode`."""
        return self.prepare(self.decode(data, kind))

    def decode(self, data: bytes | str, kind: str) -> Decoded:
        """What `prepare` makes the content of.

        Raises:
            MediaError: as `prefrm.media.decode`, `prefrm.video.read_frames` or
                `JudgeProcessor.prepare_image`.
            RecordError: as `JudgeProcessor.prepare_text`; or the judge reads nothing of that kind.
        """
        processor = self._processor
        match kind, data:
            case "text", str():
                return processor.prepare_text(data)
            case "video", bytes() if self._sampling is not None:
                if processor.reads_frames_as_images:
                    images = iterate_frames(data, self._sampling, self._limits.video)
                    return tuple(map(processor.prepare_image, images))
                return read_frames(data, self._sampling, self._limits.video, shrink=self._shrunk)
            case "image", bytes():
                image = decode(data, self._limits)
                return processor.shrink(image) or (processor.prepare_image(image),)
        raise RecordError(f"this judge reads no {kind}")

    def prepare(self, decoded: Decoded) -> Content:
        """The content. Raises `MediaError` as `JudgeProcessor.prepare_image`."""
        if isinstance(decoded, Image.Image):
            return (self._processor.prepare_image(decoded),)
        return self._processor.prepare_frames(decoded) if isinstance(decoded, Frames) else decoded

    def _shrunk(self, image: Image.Image) -> Image.Image:
        return self._processor.shrink(image) or image
