"""An image file reduced to what its pixels need: no text, profiles, thumbnails, further frames, EXIF.

Bombs hide there: text that inflates, millions of empty segments, tags that point at each other. A decoder
that is never handed any of it cannot be hurt by it. No pixel is decoded here. Of the metadata, the
orientation is read, wherever `PIL.ImageOps.exif_transpose` looks for it. A video is recognised, not read.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from prefrm.errors import MediaError

__all__ = ["UPRIGHT", "Essence", "essence", "is_video", "other_format", "video_format"]

# An encoder that writes 20 MB in pieces of 8 KB makes 2,560.
MAX_PARTS = 20_000
# Progressive encoders make about ten. Each takes as long as decoding the whole image, however short it is.
MAX_SCANS = 100
# Of EXIF, whose orientation is near its front, and of an inflated text in a PNG: Pillow's own bound.
MAX_METADATA_BYTES = 2**20

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_SIGNATURE = b"Exif\0\0"
XMP_SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
ORIENTATION, UPRIGHT = 0x0112, 1
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")
# TIFF's integer types in struct's letters: SHORT, LONG, SSHORT, SLONG. EXIF asks for SHORT; some write LONG.
INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}
# A PNG's texts that hold EXIF in hexadecimal, as ImageMagick writes it, and XMP.
RAW_PROFILE, XMP_KEYWORD = b"Raw profile type exif", b"XML:com.adobe.xmp"
PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})

# JPEG's markers: start of scan, end of image; the applications' own and comments are left out, but for JFIF's
# and Adobe's, which say what the colours are.
SOS, EOI = 0xDA, 0xD9
LEFT_OUT = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}
WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})

WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
# The flags of a VP8X chunk: without its flag, metadata is not read.
WEBP_PROFILE, WEBP_EXIF, WEBP_XMP = 0x20, 0x08, 0x04

# First bytes of formats that are recognised in order to be converted, or to be named when they are refused.
SIGNATURES = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
# An ISO media file lists its formats from byte 8 on; the first may be mif1 or msf1, of AVIF and HEIC alike.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC"}
LISTED_BRANDS_BYTES = 64
# The first brand of still images and of sequences of them; any other one is of a video (or of its sound).
IMAGE_BRANDS = frozenset({*BRANDS, b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"miaf"})
# The first box of a QuickTime file without a list of brands, as older cameras write them.
QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide"})
EBML_SIGNATURE = b"\x1a\x45\xdf\xa3"
# Of a transport stream: packets of this length, each of which starts with this byte.
TS_PACKET, TS_SYNC = 188, 0x47


@dataclass(frozen=True, slots=True, kw_only=True)
class Essence:
    """The reduced file, and the EXIF orientation, 1 (upright) to 8, of its metadata.

    The orientation is None for a file that is returned whole, metadata included. `scans` is how often a
    decoder passes over the image: more than once only for a JPEG of several scans.
    """

    data: bytes
    orientation: int | None = None
    scans: int = 1


def essence(data: bytes) -> Essence:
    """The parts of a PNG, JPEG or WebP file that a decoder needs; any other file is returned whole.

    Of an animation that is the first frame. A broken file stays broken.

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


def other_format(data: bytes) -> str:
    """The format of an encoded image other than PNG, JPEG and WebP, by its first bytes; "" if unknown."""
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4]), LISTED_BRANDS_BYTES)
        brands = (data[n : n + 4] for n in range(8, end, 4))
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), "")
    return next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), "")


def video_format(data: bytes) -> str:
    """The container of an encoded video by its first bytes, such as "MP4"; "" if it is not a video.

    MP4 stands for QuickTime as well, and WEBM for all of Matroska. An animation in an image format (GIF,
    WebP, AVIF) is an image. Nothing further is read: the rest may be damaged, or be sound alone.
    """
    box = data[4:8]
    if (box == b"ftyp" and data[8:12] not in IMAGE_BRANDS) or box in QUICKTIME_BOXES:
        return "MP4"
    if data.startswith(EBML_SIGNATURE):
        return "WEBM"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "AVI"
    starts = data[: 3 * TS_PACKET : TS_PACKET]
    return "MPEG-TS" if starts == bytes([TS_SYNC] * 3) else ""


def is_video(data: bytes) -> bool:
    """Whether encoded data is a video, by its first bytes (`video_format`)."""
    return video_format(data) != ""


def _png(data: bytes) -> Essence:
    kept, exif, offset = [PNG_SIGNATURE], b"", len(PNG_SIGNATURE)
    texts: dict[bytes, tuple[bytes, int, int]] = {}
    for _ in range(MAX_PARTS):
        if offset + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        # A capital first letter marks what a decoder must understand.
        if kind[0] & 0x20 == 0 or kind == b"tRNS":
            kept.append(data[offset:end])
        elif kind == b"eXIf":
            exif = data[offset + 8 : min(end - 4, offset + 8 + MAX_METADATA_BYTES)]
        elif kind in PNG_TEXTS:
            keyword = data[offset + 8 : min(offset + 88, end - 4)].partition(b"\0")[0]
            if keyword in (RAW_PROFILE, XMP_KEYWORD):
                # The last one counts, so that at most two texts are inflated.
                texts[keyword] = kind, offset + 8 + len(keyword) + 1, end - 4
        if kind == b"IEND":
            break
        offset = end
    else:
        raise _too_many("chunks")
    if not exif and RAW_PROFILE in texts:
        exif = _raw_profile(_text(data, *texts[RAW_PROFILE]))
    xmp = _text(data, *texts[XMP_KEYWORD]) if XMP_KEYWORD in texts else b""
    return Essence(data=b"".join(kept), orientation=_orientation(exif, xmp))


def _text(data: bytes, kind: bytes, start: int, end: int) -> bytes | memoryview:
    """The text of a PNG chunk, which follows its keyword at `start`; empty if it is damaged."""
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        start += 1
    elif kind == b"iTXt":
        compressed = data[start : start + 1] != b"\0"
        # Two bytes on compression, then a language and a translated keyword, each ended by a zero.
        for skipped in (2, 0):
            if (start := data.find(b"\0", start + skipped, end) + 1) == 0:
                return b""
    text = memoryview(data)[start:end]
    if not compressed:
        return text
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(text, MAX_METADATA_BYTES)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else inflated


def _raw_profile(text: bytes | memoryview) -> bytes:
    """EXIF out of ImageMagick's text: an empty line, the profile's name, its length, then hexadecimal."""
    lines = bytes(text[:MAX_METADATA_BYTES]).split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode("ascii"))
    except (IndexError, ValueError):
        return b""


def _jpeg(data: bytes) -> Essence:
    kept, exif, xmp, offset, scans = [data[:2]], bytearray(), b"", 2, 1
    for _ in range(MAX_PARTS):
        # What stands between two segments is skipped, as decoders do.
        offset = data.find(b"\xff", offset)
        if offset < 0 or offset + 4 > len(data):
            break
        marker = data[offset + 1]
        if marker == SOS:
            if (scans := data.count(b"\xff\xda", offset)) > MAX_SCANS:
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
            # EXIF that does not fit into one segment continues in the next.
            if len(exif) < MAX_METADATA_BYTES:
                exif += data[offset + 4 + len(EXIF_SIGNATURE) : end]
        elif data.startswith(XMP_SIGNATURE, offset + 4):
            xmp = data[offset + 4 : end]
        offset = max(end, offset + 2)
    else:
        raise _too_many("segments")
    return Essence(data=b"".join(kept), orientation=_orientation(bytes(exif), xmp), scans=scans)


def _webp(data: bytes) -> Essence:
    kept, exif, xmp, offset, framed, flags = [], b"", b"", 12, False, 0
    for _ in range(MAX_PARTS):
        if offset + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, offset)
        end = offset + 8 + length + length % 2
        if kind in WEBP_KEPT and not (kind == b"ANMF" and framed):
            chunk = data[offset:end]
            if kind == b"VP8X" and len(chunk) > 8:
                flags = chunk[8]
                chunk = chunk[:8] + bytes([flags & ~(WEBP_PROFILE | WEBP_EXIF | WEBP_XMP)]) + chunk[9:]
            kept.append(chunk)
            framed = framed or kind == b"ANMF"
        elif kind == b"EXIF" and flags & WEBP_EXIF:
            exif = exif or data[offset + 8 : min(end, offset + 8 + MAX_METADATA_BYTES)]
        elif kind == b"XMP " and flags & WEBP_XMP:
            xmp = xmp or data[offset + 8 : end]
        offset = end
    else:
        raise _too_many("chunks")
    body = b"WEBP" + b"".join(kept)
    return Essence(data=b"RIFF" + struct.pack("<I", len(body)) + body, orientation=_orientation(exif, xmp))


def _too_many(parts: str) -> MediaError:
    return MediaError(f"the image consists of more than {MAX_PARTS} {parts}")


def _orientation(exif: bytes, xmp: bytes | memoryview = b"") -> int:
    # Twice in files of some writers, and not at all in others.
    found = _tiff_orientation(exif.removeprefix(EXIF_SIGNATURE).removeprefix(EXIF_SIGNATURE))
    if found is None and (match := XMP_ORIENTATION.search(xmp)):
        found = int(bytes(match[1]))
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def _tiff_orientation(tiff: bytes) -> int | None:
    """The orientation in the first directory of a TIFF structure; 0 if it is not one integer."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == ORIENTATION:
                if kind not in INTEGERS or values != 1:
                    return 0
                return int(struct.unpack_from(f"{order}{INTEGERS[kind]}", tiff, entry + 8)[0])
    except struct.error:
        pass
    return None
