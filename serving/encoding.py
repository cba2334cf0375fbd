"""Base64 in pieces, so that no step holds the interpreter's lock for as long as a large image takes."""

import binascii
from collections.abc import Iterable

from serving.steps import Steps

__all__ = ["decode_base64"]


def decode_base64(pieces: Iterable[bytes]) -> Steps[bytes]:
    """What padded base64 of the standard alphabet stands for. Raises `ValueError` if it is not that."""
    decoded, rest = [], b""
    for piece in pieces:
        # The last four characters wait: no others may be padded.
        text = rest + piece
        whole = max(0, len(text) // 4 - 1) * 4
        if b"=" in text[:whole]:
            raise ValueError("Excess data after padding")
        decoded.append(binascii.a2b_base64(text[:whole], strict_mode=True))
        rest = text[whole:]
        yield
    decoded.append(binascii.a2b_base64(rest, strict_mode=True))
    return b"".join(decoded)
