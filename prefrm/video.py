"""Videos at the boundary: from encoded bytes to a few upright frames with their times.

A video from outside is checked before it is decoded: its byte size, container, codec, the size of a frame,
and, by a pass over its packets that decodes none, its frames and seconds. Frames are then decoded one at a
time, and only the sampled ones are kept. FFmpeg (through PyAV) reads from memory alone, with the demuxer that
the first bytes name; a file can make it open no other file and no network. It runs on one thread.

AV1 is not among the default codecs: one packet may hold any number of frames that are decoded and not shown,
so the time to decode it is not bounded by what can be checked first.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from PIL import Image

from prefrm.containers import is_video, video_format
from prefrm.errors import ConfigError, MediaError, missing_extra
from prefrm.media import DEFAULT_LIMITS, ImageInfo, ImageLimits, VideoLimits, check_size, probe
from prefrm.mp4 import check_index
from prefrm.nal_units import LENGTH_SIZE, check_packet

__all__ = [
    "DEFAULT_VIDEO_LIMITS",
    "FrameSampling",
    "Frames",
    "VideoInfo",
    "VideoLimits",
    "check_installed",
    "encode_video",
    "iterate_frames",
    "probe_media",
    "probe_video",
    "read_frames",
    "strip",
]


DEFAULT_VIDEO_LIMITS = DEFAULT_LIMITS.video
# FFmpeg's demuxers, by container, and its software decoders, by codec, where they have another name.
DEMUXERS = {"MP4": "mov", "WEBM": "matroska"}
DECODERS = {"av1": "libdav1d"}
# FFmpeg refuses frames that are larger once padded to whole blocks; ours is the exact bound.
PADDING_FACTOR = 2
# To turn a frame upright, by the degrees counterclockwise of its display matrix.
TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
# Of picture, sound and subtitles. Each takes 50 KB.
MOST_STREAMS = 32
# Of an MP4's index. Sound has two samples for each frame of a film.
ENTRIES_PER_FRAME = 20
# To which a frame of H.264 or HEVC may refer; each takes half of what it takes as RGB.
REFERENCE_FRAMES = 16
# A core takes 5 ns for a pixel of H.264, and 20 to 30 for one of PNG.
SPEEDUP = 4
# VideoReward's largest number of frames.
MOST_FRAMES = 768
# Between the frames of a strip: frames that share a background would otherwise look like one picture.
GAP_COLOR = (176, 176, 176)
EBML_ID, SEGMENT_ID = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """An encoded video: FFmpeg's name of its codec, width and height of a frame in pixels, not yet turned,
    number of frames, and seconds from the first frame to the end of the last one (0 if not known).
    """

    format: str
    codec: str
    width: int
    height: int
    frames: int
    seconds: float

    @property
    def pixels(self) -> int:
        """Pixels of one frame."""
        return self.width * self.height

    @property
    def held_pixels(self) -> int:
        """Pixels that a decoder holds at once, as RGB: the measure of its memory."""
        return self.pixels * (1 + min(self.frames, REFERENCE_FRAMES) // 2)

    @property
    def all_pixels(self) -> int:
        """Pixels of all frames."""
        return self.pixels * self.frames

    @property
    def decoded_pixels(self) -> int:
        """Pixels of an image that is decoded in the same time: the measure of time, as of an image."""
        return self.all_pixels // SPEEDUP


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSampling:
    """Which frames of a video are read: n of its N frames, evenly spaced, the first and the last among them.

    These are the frames numbered `round(i * (N - 1) / (n - 1))` for i from 0 to n - 1 in the order of their
    times, as `qwen_vl_utils` and VideoReward take them; of n = 1, the first. n is `count`, or
    `rate` times the seconds of the video, rounded down; and at least 1, at most `most`, at most N.

    Args:
        count: number of frames, or
        rate: frames a second.
        most: upper bound on the number of frames.

    Raises:
        ConfigError: not one of `count` and `rate` is given, or one is not positive.
    """

    count: int | None = None
    rate: float | None = None
    most: int = MOST_FRAMES

    def __post_init__(self) -> None:
        given = self.rate if self.count is None else self.count
        if (self.count is None) == (self.rate is None) or given is None or not given > 0 or self.most < 1:
            raise ConfigError(
                "frames are sampled by a count or by a rate, each above 0, and most is at least 1; received "
                f"count={self.count}, rate={self.rate}, most={self.most}"
            )

    def indices(self, frames: int, seconds: float) -> list[int]:
        """The numbers of the frames that are read of a video of that many frames and seconds, ascending."""
        # A product that is whole but for the rounding of floats is whole.
        wanted = self.count or int((self.rate or 0.0) * seconds + 1e-6)
        return _evenly(frames, max(1, min(wanted, self.most, frames)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Frames of a video in order.

    Attributes:
        images: RGB, upright.
        times: of each, in seconds from the video's first frame, ascending.
        seconds: from the first frame of the video to the end of its last one; 0 if not known.
    """

    images: tuple[Image.Image, ...]
    times: tuple[float, ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.images)

    @property
    def interval(self) -> float:
        """Seconds of the video for each frame, as `transformers` counts them: all seconds by the number of
        frames."""
        return self.seconds / len(self)

    @classmethod
    def of(cls, images: Sequence[Image.Image], rate: float) -> "Frames":
        """Frames at a constant rate, in frames a second, that are the whole video."""
        times = tuple(index / rate for index in range(len(images)))
        return cls(images=tuple(images), times=times, seconds=len(images) / rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Of a video's packets: the presentation times of its frames in ticks, ascending."""

    info: VideoInfo
    ticks: list[int] = field(repr=False)
    seconds_per_tick: float

    def sampled(self, sampling: FrameSampling) -> list[int]:
        """The times of the frames that are read."""
        return [self.ticks[number] for number in sampling.indices(self.info.frames, self.info.seconds)]


def probe_video(data: bytes, limits: VideoLimits = DEFAULT_VIDEO_LIMITS) -> VideoInfo:
    """Check an encoded video by its headers and packets, of which none is decoded.

    Raises:
        MediaError: it is empty, truncated, beyond a limit, of another container or codec, or has no frames or
            no times.
        MissingExtraError: PyAV is not installed.
    """
    return _index(data, limits).info


def probe_media(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageInfo | VideoInfo:
    """Check an encoded image or video. Raises as `prefrm.media.probe` or `probe_video`."""
    return probe_video(data, limits.video) if is_video(data) else probe(data, limits)


def read_frames(
    data: bytes,
    sampling: FrameSampling,
    limits: VideoLimits = DEFAULT_VIDEO_LIMITS,
    *,
    shrink: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> Frames:
    """The sampled frames of an encoded video.

    The frame of an instant is the first decoded one at or after it, or the last one.

    Args:
        data: the encoded video.
        sampling: which frames.
        limits: bounds, checked before anything is decoded.
        shrink: makes of each frame, as soon as it is decoded, what is kept: this bounds the memory.

    Raises:
        MediaError: as `probe_video`, or a frame is corrupt.
        MissingExtraError: PyAV is not installed.
    """
    index = _index(data, limits)
    wanted = index.sampled(sampling)
    images = tuple(map(shrink, _images(data, wanted, limits)))
    times = tuple((instant - index.ticks[0]) * index.seconds_per_tick for instant in wanted)
    return Frames(images=images, times=times, seconds=index.info.seconds)


def iterate_frames(
    data: bytes, sampling: FrameSampling, limits: VideoLimits = DEFAULT_VIDEO_LIMITS
) -> Iterator[Image.Image]:
    """The images of `read_frames`, each as soon as it is decoded. Raises as that."""
    return _images(data, _index(data, limits).sampled(sampling), limits)


def strip(images: Sequence[Image.Image], *, height: int = 128, most: int = 8, gap: int = 2) -> Image.Image:
    """Frames side by side as one RGB image, in which a video is shown in a report.

    Args:
        images: the frames.
        height: to which each is resized, in pixels.
        most: evenly spaced frames, if there are more.
        gap: grey pixels between two frames.
    """
    chosen = [images[index] for index in _evenly(len(images), min(most, len(images)))]
    sizes = [(max(1, round(image.width * height / image.height)), height) for image in chosen]
    whole = Image.new("RGB", (sum(width + gap for width, _ in sizes) - gap, height), GAP_COLOR)
    left = 0
    for image, size in zip(chosen, sizes, strict=True):
        whole.paste(image.convert("RGB").resize(size), (left, 0))
        left += size[0] + gap
    return whole


def encode_video(images: Sequence[Image.Image], rate: int) -> bytes:
    """An MP4 (H.264, 4:2:0) of images of one size with even sides; the same bytes each time.

    Args:
        images: the frames.
        rate: frames a second.

    Raises:
        ConfigError: there are no images, or sizes differ or are odd.
        MissingExtraError: PyAV is not installed.
    """
    sizes = {image.size for image in images}
    if len(sizes) != 1 or any(side % 2 for size in sizes for side in size):
        raise ConfigError(
            f"frames of a video have one size with even sides; received {sorted(sizes) or 'no frames'}"
        )
    av, buffer = _pyav(), io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "bitexact"}) as container:
        # 18 is what its authors call visually lossless.
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "threads": "1"})
        (stream.width, stream.height), stream.pix_fmt = images[0].size, "yuv420p"
        for image in (*images, None):
            frame = None if image is None else av.VideoFrame.from_image(image.convert("RGB"))
            container.mux(stream.encode(frame))
    return buffer.getvalue()


def _evenly(total: int, count: int) -> list[int]:
    """`count` of the numbers below `total`, evenly spaced, the first and the last among them."""
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def check_installed() -> None:
    """Raise `MissingExtraError` if PyAV, which decodes videos, is not installed."""
    _pyav()


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_extra("av", "video") from error
    return av


def _index(data: bytes, limits: VideoLimits) -> _Index:
    with _opened(data, limits) as (container, stream):
        ticks = sorted(_ticks(container, stream, limits))
        if not ticks:
            raise MediaError("the video has no frames")
        span = (ticks[-1] - ticks[0]) * float(stream.time_base)
        if len(ticks) > 1 and span <= 0:
            raise MediaError(f"the video's {len(ticks)} frames are all shown at one time; encode it again")
        # The last frame is taken to be shown as long as the others are.
        alone = float(1 / stream.average_rate) if stream.average_rate else 0.0
        seconds = span * len(ticks) / (len(ticks) - 1) if len(ticks) > 1 else alone
        info = VideoInfo(
            format=video_format(data),
            codec=stream.codec_context.codec.canonical_name,
            width=stream.width,
            height=stream.height,
            frames=len(ticks),
            seconds=seconds,
        )
    if seconds > limits.max_seconds:
        raise MediaError(f"the video lasts {seconds:.1f} seconds; the limit is {limits.max_seconds:g}")
    return _Index(info=info, ticks=ticks, seconds_per_tick=float(stream.time_base))


def _ticks(container: Any, stream: Any, limits: VideoLimits) -> Iterator[int]:
    """The presentation time of each packet that is shown, in ticks of the stream."""
    context = stream.codec_context
    configuration = context.extradata or b""
    # Those that are not shown are decoded all the same.
    for number, packet in enumerate((packet for packet in container.demux(stream) if packet.size), 1):
        if packet.is_corrupt:
            raise MediaError("the video is truncated")
        if number > limits.max_frames:
            raise _too_many(limits)
        _check_decoded(number * stream.width * stream.height, limits)
        if packet.has_sidedata("new_extradata"):
            raise MediaError("the video's codec changes its configuration midway; encode it again")
        if context.name in LENGTH_SIZE:
            check_packet(bytes(packet), configuration, context.name)
        if packet.is_discard:
            continue
        if (tick := packet.dts if packet.pts is None else packet.pts) is None:
            raise MediaError("the video has frames without a time; encode it again")
        yield tick


def _decoded(container: Any, stream: Any, limits: VideoLimits) -> Iterator[Any]:
    """The decoded frames in the order of their times."""
    context = stream.codec_context
    context.thread_count = 1
    context.options = {"max_pixels": str(PADDING_FACTOR * limits.max_pixels)}
    pixels = 0
    # A hostile stream may change its size, and hold more frames than packets.
    for number, frame in enumerate(container.decode(stream), 1):
        if number > limits.max_frames:
            raise _too_many(limits)
        _check_pixels(frame.width, frame.height, limits)
        _check_decoded(pixels := pixels + frame.width * frame.height, limits)
        if frame.pts is None:
            raise MediaError("the video has frames without a time; encode it again")
        yield frame


def _images(data: bytes, wanted: Sequence[int], limits: VideoLimits) -> Iterator[Image.Image]:
    """The frame of each of these times, which are ascending."""
    with _opened(data, limits) as (container, stream):
        count, last = 0, None
        for frame in _decoded(container, stream, limits):
            last = frame
            met = sum(frame.pts >= instant for instant in wanted[count:])
            if met:
                yield from repeat(_image(frame), met)
            count += met
            if count == len(wanted):
                return
        if last is None:
            raise MediaError("the video has no frame that can be decoded; encode it again")
        yield from repeat(_image(last), len(wanted) - count)


def _image(frame: Any) -> Image.Image:
    if frame.is_corrupt:
        raise MediaError(f"the video's frame at {frame.time:.2f} seconds is corrupt")
    image = Image.fromarray(np.asarray(frame.to_ndarray(format="rgb24", threads=1)))
    turn = TURNS.get(frame.rotation % 360)
    return image if turn is None else image.transpose(turn)


@contextmanager
def _opened(data: bytes, limits: VideoLimits) -> Iterator[tuple[Any, Any]]:
    """The demuxer of a checked file and its video stream."""
    av = _pyav()
    kind = _check_container(data, limits)
    options = {
        # While it opens a file, FFmpeg decodes no frame to learn more than the headers tell. It hands packets
        # that are not checked yet to no decoder that lists their units: it takes a hundred times their size.
        "skip_frame": "all",
        "codec_whitelist": ",".join(DECODERS.get(x, x) for x in limits.codecs if x not in LENGTH_SIZE),
        "probesize": "32",
        "fpsprobesize": "0",
        "max_streams": str(MOST_STREAMS),
        "max_pixels": str(PADDING_FACTOR * limits.max_pixels),
        "threads": "1",
        "format_whitelist": DEMUXERS[kind],
        "enable_drefs": "0",
    }
    with (
        _reading_errors(),
        av.open(
            io.BytesIO(data),
            "r",
            format=DEMUXERS[kind],
            options=options,
            io_open=_refuse_other_files,
            metadata_errors="ignore",
        ) as container,
    ):
        yield container, _stream(container, limits)


def _stream(container: Any, limits: VideoLimits) -> Any:
    """The video stream. Raises `MediaError` if there is none within the limits."""
    # The picture on the cover of a song is a stream of video, too.
    streams = [one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]
    if not streams:
        raise MediaError("the file has no video stream")
    stream = streams[0]
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "an unknown one"
    if codec not in limits.codecs:
        raise MediaError(
            f"the video's codec is {codec}; the supported ones are {', '.join(limits.codecs)}: convert it to "
            "H.264"
        )
    if not stream.width or not stream.height:
        raise MediaError("the video's header states no size of its frames")
    _check_pixels(stream.width, stream.height, limits)
    return stream


def _check_container(data: bytes, limits: VideoLimits) -> str:
    """The name of the container. Raises `MediaError` if the file is refused."""
    if not data:
        raise MediaError("the video is empty (0 bytes)")
    check_size(len(data), limits)
    kind = video_format(data)
    if kind not in limits.formats:
        other = f" but {kind}; convert it to MP4" if kind else ""
        raise MediaError(f"not a valid {' or '.join(limits.formats)} video{other}")
    if kind == "MP4":
        check_index(data, ENTRIES_PER_FRAME * limits.max_frames)
    if kind == "WEBM" and _segment_end(data) > len(data):
        raise MediaError("the video is truncated: it ends before its segment does")
    return kind


def _segment_end(data: bytes) -> int:
    """Where the first segment of a Matroska file ends, by its header; 0 if that is not known."""
    _, start, size = _element(data, 0)
    name, start, size = _element(data, start + size)
    return start + size if name == SEGMENT_ID else 0


def _element(data: bytes, offset: int) -> tuple[bytes, int, int]:
    """Name of an EBML element with a name of four bytes, where its content starts, and its size; 0 if that is
    not known."""
    first = int.from_bytes(data[offset + 4 : offset + 5])
    length = 9 - first.bit_length()
    size = int.from_bytes(data[offset + 4 : offset + 4 + length]) & ((1 << 7 * length) - 1)
    return data[offset : offset + 4], offset + 4 + length, 0 if size == (1 << 7 * length) - 1 else size


def _refuse_other_files(*_: object) -> Any:
    raise MediaError("the video refers to another file; encode it into one file")


@contextmanager
def _reading_errors() -> Iterator[None]:
    """FFmpeg raises many kinds on hostile input; all of them mean "unreadable"."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"the video is truncated or corrupt: {getattr(error, 'strerror', error)}") from error


def _check_pixels(width: int, height: int, limits: VideoLimits) -> None:
    if width * height > limits.max_pixels:
        raise MediaError(
            f"a frame of the video has {width} x {height} pixels; the limit is {limits.max_pixels}"
        )


def _check_decoded(pixels: int, limits: VideoLimits) -> None:
    if pixels > limits.max_decoded_pixels:
        raise MediaError(
            f"the video's frames have {pixels} pixels in all; the limit is {limits.max_decoded_pixels}"
        )


def _too_many(limits: VideoLimits) -> MediaError:
    return MediaError(f"the video has more than {limits.max_frames} frames; shorten it")
