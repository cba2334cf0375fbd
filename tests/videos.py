"""Clips for tests, and files that a hostile person would send in the place of one."""

import io
import struct

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT, RATE = 64, 48, 24


def frames(count, size=(WIDTH, HEIGHT)):
    """Images that a codec keeps apart: a bar of light that moves, over a grey that grows."""
    images = []
    for index in range(count):
        pixels = np.full((size[1], size[0], 3), 8 * index % 200, dtype=np.uint8)
        pixels[:, (4 * index) % size[0] :][:, :8] = 255
        images.append(Image.fromarray(pixels))
    return images


def clip(images, codec="libx264", format="mp4", *, ticks=None, rotation=None, sound=False, **options):
    """The images as an encoded video; `ticks` are their times in 1/RATE of a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options=options) as container:
        quiet = {"libx265": {"x265-params": "log-level=none"}}.get(codec, {})
        stream = container.add_stream(codec, rate=RATE, options={"threads": "1", **quiet})
        (stream.width, stream.height), stream.pix_fmt = images[0].size, "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if sound:
            _add_sound(container)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            if ticks is not None:
                frame.pts = ticks[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _add_sound(container):
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def sound_alone():
    """An MP4 without a picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        _add_sound(container)
    return buffer.getvalue()


def patched(data, name, at, *numbers, form=">I"):
    """The file with numbers written `at` bytes after the start of a box's name."""
    where, changed = data.index(name) + at, bytearray(data)
    for index, number in enumerate(numbers):
        struct.pack_into(form, changed, where + struct.calcsize(form) * index, number)
    return bytes(changed)


def claiming_frames(count):
    """An MP4 of a few bytes whose one fragment claims frames that take no bytes of it."""
    data = clip(frames(4), movflags="frag_keyframe+empty_moov+default_base_moof")
    # No flag is left by which a frame has fields of its own.
    return patched(data, b"trun", 4, 1, count)


def claiming_size(width, height):
    """A WebM whose first frame claims another size than the file's header."""
    data = clip(frames(2), "libvpx", "webm")
    # The start code of a key frame of VP8.
    return patched(data, b"\x9d\x01\x2a", 3, width, height, form="<H")


def of_pictures(count, *, start_codes=False, size=(WIDTH, HEIGHT)):
    """An MP4 of one frame of H.264, whose packet holds more pictures; told apart by start codes, or by
    lengths."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(clip(frames(1, size)))) as whole,
        av.open(buffer, "w", format="mp4") as container,
    ):
        track = whole.streams.video[0]
        stream = container.add_stream_from_template(track)
        (own,) = (packet for packet in whole.demux(track) if packet.size)
        # The encoder's remarks stand before the picture.
        picture = bytes(own)[4 + int.from_bytes(bytes(own)[:4]) :]
        data = picture * count
        if start_codes:
            data = b"\0\0\1".join([picture[4:]] * count)
            data = struct.pack(">I", len(data)) + data
        packet = av.Packet(data)
        packet.stream, packet.time_base, packet.is_keyframe = stream, own.time_base, True
        packet.pts = packet.dts = 0
        container.mux(packet)
    return buffer.getvalue()


def of_remarks(count):
    """An MP4 of one frame of HEVC, whose packet holds empty remarks before the picture."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(clip(frames(8), "libx265"))) as whole,
        av.open(buffer, "w", format="mp4") as container,
    ):
        track = whole.streams.video[0]
        stream = container.add_stream_from_template(track)
        own = next(packet for packet in whole.demux(track) if packet.size)
        packet = av.Packet((struct.pack(">I", 3) + b"\x4e\x01\x80") * count + bytes(own))
        packet.stream, packet.time_base, packet.is_keyframe = stream, own.time_base, True
        packet.pts = packet.dts = 0
        container.mux(packet)
    return buffer.getvalue()


def referring_to(path):
    """An MP4 whose frames are said to be in another file."""
    data = clip(frames(4))
    where = data.index(b"dref")
    old = data[where - 4 : where + 24]
    entry = b"url \0\0\0\0" + f"file://{path}".encode() + b"\0"
    new = (
        struct.pack(">I", 20 + len(entry))
        + b"dref"
        + bytes(4)
        + struct.pack(">II", 1, 4 + len(entry))
        + entry
    )
    assert len(old) == 28
    changed = data.replace(old, new)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size = int.from_bytes(data[data.index(box) - 4 : data.index(box)])
        changed = patched(changed, box, -4, size + len(new) - len(old))
    return changed


def of_many_tracks(count):
    """A WebM whose header lists tracks before the one that it has."""
    data = clip(frames(4), "libvpx", "webm")
    entry = b"\xd7\x81\x01\x83\x81\x01\x86\x85V_VP9"
    tracks = (b"\xae" + bytes([0x80 | len(entry)]) + entry) * count
    header = b"\x16\x54\xae\x6b" + (0x0800000000 | len(tracks)).to_bytes(5)
    # Of a segment whose size is not known, so that it may be longer.
    start = data.index(b"\x18\x53\x80\x67")
    return data[: start + 4] + b"\x01" + b"\xff" * 7 + header + tracks + data[start + 12 :]


def nested(depth):
    """An MP4 of boxes in boxes."""
    box = b""
    for _ in range(depth):
        box = struct.pack(">I", len(box) + 8) + b"trak" + box
    return struct.pack(">I4s4s", 12, b"ftyp", b"isom") + box


BOMBS = {
    "an mp4 whose fragment claims 200 million frames": lambda: claiming_frames(200_000_000),
    "an mp4 whose fragment claims as many frames as are let through": lambda: claiming_frames(72_000),
    "an mp4 whose table claims 80 million frames": lambda: patched(
        clip(frames(4)), b"stsz", 8, 1, 80_000_000
    ),
    "an mp4 of 18,000 edits": lambda: patched(clip(frames(4)), b"elst", 8, 18_000),
    "an mp4 of 20,000 boxes in boxes": lambda: nested(20_000),
    "a webm of 300,000 tracks": lambda: of_many_tracks(300_000),
    "a webm whose frame claims 16,383 x 16,383 pixels": lambda: claiming_size(16_383, 16_383),
    "a webm cut in half": lambda: (whole := clip(frames(30), "libvpx", "webm"))[: len(whole) // 2],
    "an mp4 cut in half": lambda: (whole := clip(frames(30)))[: len(whole) // 2],
    "an mp4 whose frame is 3,000 pictures": lambda: of_pictures(3_000, size=(1280, 720)),
    "an mp4 whose frame is 3,000 pictures by start codes": lambda: of_pictures(
        3_000, start_codes=True, size=(1280, 720)
    ),
    "an mp4 whose frame has 300,000 remarks": lambda: of_remarks(300_000),
    "sound": sound_alone,
}
"""Files that a decoder must not spend memory or time on, by what they are; each value makes the bytes."""
