"""What one packet of an H.264 video makes a decoder decode, counted before one does.

A packet is one frame, but it may hold any number of pictures, all of which FFmpeg decodes and of which it
shows one: a file of 1 MB takes half a minute. Formats: ITU-T H.264, 7.3 and annex B, and ISO/IEC 14496-15
(lengths in the place of start codes).
"""

import re
from collections.abc import Iterator
from itertools import islice

from prefrm.errors import MediaError

__all__ = ["check_packet"]

# Two fields make a frame.
MOST_PICTURES = 2
# Slices of a picture, and parameters and remarks beside them; encoders write 1 to 32 slices.
MOST_UNITS = 64
START_CODE = re.compile(rb"\x00\x00\x01")
SLICES = (1, 5)


def check_packet(data: bytes, configuration: bytes) -> None:
    """Check a packet by its units, without decoding any.

    Args:
        data: the packet, as the container holds it.
        configuration: the codec's, from the container's header; it says how units are told apart.

    Raises:
        MediaError: it has more pictures or more units than a frame has, or configures the codec anew.
    """
    # FFmpeg takes a packet that starts like a configuration for one, and splits later packets by it.
    if _has_lengths(configuration) and _has_lengths(data) and data[2] == 0 and data[4] >= 0xFC:
        raise MediaError("the video's codec is configured anew midway; encode it again")
    units = list(islice(_units(data, configuration), MOST_UNITS + 1))
    if len(units) > MOST_UNITS:
        raise MediaError(f"a frame of the video has more than {MOST_UNITS} units; encode it again")
    if (pictures := sum(_starts_picture(data, at) for at in units)) > MOST_PICTURES:
        raise MediaError(f"a frame of the video holds {pictures} pictures; encode it again")


def _has_lengths(configuration: bytes) -> bool:
    return len(configuration) >= 7 and configuration[0] == 1


def _units(data: bytes, configuration: bytes) -> Iterator[int]:
    """Where each unit starts: after a length, and after a start code, which FFmpeg heeds anywhere.

    The start of a length may look like a start code; what follows it then starts no picture, since the first
    bit of a unit is 0.
    """
    if _has_lengths(configuration):
        size, at = 1 + configuration[4] % 4, 0
        while at + size < len(data):
            length, at = int.from_bytes(data[at : at + size]), at + size
            if not 0 < length <= len(data) - at:
                break
            yield at
            at += length
    yield from (found.end() for found in START_CODE.finditer(data))


def _starts_picture(data: bytes, at: int) -> bool:
    """Whether a unit is the slice with the first macroblock: number 0 is written as a bit that is 1."""
    return at + 1 < len(data) and data[at] % 32 in SLICES and data[at + 1] >= 128
