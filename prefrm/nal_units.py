"""The units of a packet of H.264 or HEVC, counted before a decoder reads it.

A packet is one frame, but it may hold any number of pictures, all of which FFmpeg decodes and of which it
shows one: a file of 1 MB takes half a minute. It may also hold any number of units, of each of which FFmpeg
keeps 4 KB. Formats: ITU-T H.264 and H.265, 7.3 and annex B, and ISO/IEC 14496-15 (lengths in the place of
start codes).
"""

import re
from collections.abc import Iterator
from itertools import islice

from prefrm.errors import MediaError

__all__ = ["LENGTH_SIZE", "check_packet"]

# Two fields make a frame.
MOST_PICTURES = 2
# Slices of a picture, and parameters and remarks beside them; encoders write 1 to 32 slices.
MOST_UNITS = 64
START_CODE = re.compile(rb"\x00\x00\x01")
SLICES = (1, 5)
# Of each codec: in a configuration with lengths, the place of the byte that holds their size; and the least
# number of bytes of such a configuration.
LENGTH_SIZE = {"h264": (4, 7), "hevc": (21, 23)}


def check_packet(data: bytes, configuration: bytes, codec: str) -> None:
    """Check a packet by its units, without decoding any.

    Args:
        data: the packet, as the container holds it.
        configuration: the codec's, from the container's header; it says how units are told apart.
        codec: "h264" or "hevc".

    Raises:
        MediaError: it has more pictures or more units than a frame has, or another configuration
            of the codec.
    """
    # FFmpeg takes a packet that starts like a configuration for one, and splits later packets by it.
    starts_like_one = _length_size(data, codec) and data[2] == 0 and data[4] >= 0xFC
    if codec == "h264" and _length_size(configuration, codec) and starts_like_one:
        raise MediaError("the video's codec changes its configuration midway; encode it again")
    units = list(islice(_units(data, _length_size(configuration, codec)), MOST_UNITS + 1))
    if len(units) > MOST_UNITS:
        raise MediaError(f"a frame of the video has more than {MOST_UNITS} units; encode it again")
    if (pictures := sum(_starts_picture(data, at, codec) for at in units)) > MOST_PICTURES:
        raise MediaError(f"a frame of the video holds {pictures} pictures; encode it again")


def _length_size(configuration: bytes, codec: str) -> int:
    """How many bytes the length before a unit has; 0 if units follow start codes."""
    place, least = LENGTH_SIZE[codec]
    if len(configuration) < least or configuration[0] != 1:
        return 0
    return 1 + configuration[place] % 4


def _units(data: bytes, size: int) -> Iterator[int]:
    """Where each unit starts: after a length, and after a start code, which FFmpeg heeds anywhere.

    The start of a length may look like a start code; what follows it then starts no picture, since the first
    bit of a unit is 0.
    """
    if size:
        at = 0
        while at + size < len(data):
            length, at = int.from_bytes(data[at : at + size]), at + size
            if not 0 < length <= len(data) - at:
                break
            yield at
            at += length
    yield from (found.end() for found in START_CODE.finditer(data))


def _starts_picture(data: bytes, at: int, codec: str) -> bool:
    """Whether a unit is the first slice of a picture.

    H.264 writes the number of its first macroblock, 0, as a bit that is 1; HEVC has a flag after a header of
    two bytes, and slices are its types below 32.
    """
    if codec == "hevc":
        return at + 2 < len(data) and data[at] // 2 % 64 < 32 and data[at + 2] >= 128
    return at + 1 < len(data) and data[at] % 32 in SLICES and data[at + 1] >= 128
