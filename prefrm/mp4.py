"""The index that an MP4 file makes a demuxer build, counted before one does.

A few bytes of an MP4 may claim millions of frames, for each of which a demuxer keeps an entry: a file of 3 KB
takes gigabytes and minutes. Formats: ISO/IEC 14496-12 (boxes) and 14496-14.
"""

import struct
from collections.abc import Iterator

from prefrm.errors import MediaError

__all__ = ["check_index"]

MAX_BOXES = 100_000
# Boxes that state a number of samples, and where it stands after the box's name.
SAMPLE_COUNTS = {b"stsz": 12, b"stz2": 12, b"trun": 8}
# Each edit of a track may repeat all of its samples. The number of edits, likewise.
EDITS, EDIT_COUNT = b"elst", 8
# Boxes that hold no other ones: media data, and data of other programs, such as where a picture comes from.
OPAQUE = frozenset({b"mdat", b"uuid"})
# A header in compressed form, which no current program writes: its size once inflated is not known.
COMPRESSED = b"cmov"


def check_index(data: bytes, most: int) -> None:
    """Check an MP4 or QuickTime file by its boxes, without decoding anything.

    Tables of samples are searched for by name wherever boxes may stand, so that none can hide.

    Args:
        data: the file.
        most: entries of the index: samples of all tracks, counted once for each edit.

    Raises:
        MediaError: the file is truncated, its header is compressed, or its index has more entries.
    """
    samples, edits = 0, 0
    for start, end in _header_boxes(data):
        if data.find(COMPRESSED, start, end) >= 0:
            raise MediaError("the video's header is compressed; convert the video to a current MP4")
        samples += sum(_counts(data, name, at, start, end) for name, at in SAMPLE_COUNTS.items())
        edits += _counts(data, EDITS, EDIT_COUNT, start, end)
    if (entries := samples * max(1, edits)) > most:
        raise MediaError(
            f"the video's index has {entries} entries (samples of all tracks, once for each edit); the limit "
            f"is {most}"
        )


def _header_boxes(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each box of the outermost level in which others may stand."""
    offset = 0
    for _ in range(MAX_BOXES):
        if offset == len(data):
            return
        if offset + 8 > len(data):
            break
        size, name = struct.unpack_from(">I4s", data, offset)
        head = 8
        if size == 1 and offset + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, offset + 8), 16
        # Size 0 stands for the rest of the file.
        end = len(data) if size == 0 else offset + size
        if end < offset + head or end > len(data):
            break
        if name not in OPAQUE:
            yield offset, end
        offset = end
    raise MediaError("the video is truncated or corrupt: its boxes do not end where the file does")


def _counts(data: bytes, name: bytes, at: int, start: int, end: int) -> int:
    """The sum of the counts of all boxes of a name between `start` and `end`."""
    total = 0
    while (start := data.find(name, start, end)) >= 0:
        total += int.from_bytes(data[start + at : start + at + 4])
        start += len(name)
    return total
