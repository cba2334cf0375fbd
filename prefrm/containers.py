"""An image file without what its pixels do not need: text, profiles, thumbnails, further frames, EXIF.

Bombs hide there: text that inflates, millions of empty segments, tags that point at each other. A decoder
that is never handed any of it cannot be hurt by it. Nothing is decoded here; EXIF's orientation is read.
"""

import re
import struct
from dataclasses import dataclass

from prefrm.errors import MediaError

__all__ = ["Essence", "essence"]

# An encoder that writes 20 MB in pieces of 8 KB makes 2,560.
MAX_PARTS = 20_000
# Progressive encoders make about ten. Each takes as long as decoding the whole image, however short it is.
MAX_SCANS = 100
MAX_TAGS = 512

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_SIGNATURE = b"Exif\0\0"
XMP_SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")

# JPEG's markers: start of scan, end of image; the applications' own and comments are left out, but for JFIF's
# and Adobe's, which say what the colours are.
SOS, EOI = 0xDA, 0xD9
UPRIGHT = 1
LEFT_OUT = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}
WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})

WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
# The flags of ICC profile, EXIF and XMP in a VP8X chunk.
WEBP_METADATA = 0x20 | 0x08 | 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class Essence:
    """The file that is left, and how EXIF (or else XMP) says it is to be turned: 1 to 8, 1 is upright."""

    data: bytes
    orientation: int = UPRIGHT


def essence(data: bytes) -> Essence:
    """What a decoder needs of a PNG, JPEG or WebP file; any other is returned as it is.

    Of an animation it is the first frame. A broken file comes out broken.

    Raises:
        MediaError: the file consists of more parts than any encoder makes.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    return Essence(data=data)


def _png(data: bytes) -> Essence:
    kept, exif, offset = [PNG_SIGNATURE], b"", len(PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        if offset + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        # A capital first letter marks what a decoder must understand.
        if kind[0] & 0x20 == 0 or kind == b"tRNS":
            kept.append(data[offset:end])
        elif kind == b"eXIf":
            exif = data[offset + 8 : end - 4]
        if kind == b"IEND":
            break
        offset = end
    else:
        raise _too_many("chunks")
    return Essence(data=b"".join(kept), orientation=_orientation(exif))


def _jpeg(data: bytes) -> Essence:
    kept, exif, xmp, offset = [data[:2]], b"", b"", 2
    for _ in range(MAX_PARTS):
        # What stands between two segments is skipped, as decoders do.
        offset = data.find(b"\xff", offset)
        if offset < 0 or offset + 4 > len(data):
            break
        marker = data[offset + 1]
        if marker == SOS:
            if data.count(b"\xff\xda", offset) > MAX_SCANS:
                raise MediaError(f"the JPEG has more than {MAX_SCANS} scans")
            kept.append(data[offset:])
            break
        if marker == EOI:
            break
        if marker == 0xFF or marker in WITHOUT_LENGTH:
            offset += 1 if marker == 0xFF else 2
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4])
        if marker not in LEFT_OUT:
            kept.append(data[offset:end])
        elif data.startswith(EXIF_SIGNATURE, offset + 4):
            exif = exif or data[offset + 4 : end]
        elif data.startswith(XMP_SIGNATURE, offset + 4):
            xmp = xmp or data[offset + 4 : end]
        offset = max(end, offset + 2)
    else:
        raise _too_many("segments")
    return Essence(data=b"".join(kept), orientation=_orientation(exif, xmp))


def _webp(data: bytes) -> Essence:
    kept, exif, xmp, offset, framed = [], b"", b"", 12, False
    for _ in range(MAX_PARTS):
        if offset + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, offset)
        end = offset + 8 + length + length % 2
        if kind in WEBP_KEPT and not (kind == b"ANMF" and framed):
            chunk = data[offset:end]
            if kind == b"VP8X" and len(chunk) > 8:
                chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_METADATA]) + chunk[9:]
            kept.append(chunk)
            framed = framed or kind == b"ANMF"
        elif kind == b"EXIF":
            exif = data[offset + 8 : end]
        elif kind == b"XMP ":
            xmp = data[offset + 8 : end]
        offset = end
    else:
        raise _too_many("chunks")
    body = b"WEBP" + b"".join(kept)
    return Essence(data=b"RIFF" + struct.pack("<I", len(body)) + body, orientation=_orientation(exif, xmp))


def _too_many(parts: str) -> MediaError:
    return MediaError(f"the image consists of more than {MAX_PARTS} {parts}")


def _orientation(exif: bytes, xmp: bytes = b"") -> int:
    found = _tiff_orientation(exif.removeprefix(EXIF_SIGNATURE))
    if found is None and (said := _XMP_ORIENTATION.search(xmp)):
        found = int(said[1])
    return UPRIGHT if found is None else found


def _tiff_orientation(tiff: bytes) -> int | None:
    """The first directory's orientation; entries are in the order of their tags, so it is near the front."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for n in range(min(count, MAX_TAGS)):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * n)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None
