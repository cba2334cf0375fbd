"""Load on one server: requests that were serialised before, sent without a stub or a codec in between.

A process of its own. It reads a `Load` as a line of JSON from standard input, puts it on the server, and
writes what came of it as a line of JSON on standard output; until its input ends.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

__all__ = ["TOLERANCE", "Load", "Outcome", "main"]

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# No request is given up while a server works off its queue.
TIMEOUT_S = 120.0
TOLERANCE = 1e-6
# Of the waiting between two requests that are due; a timer is no finer.
TICK_S = 0.002
# A server bounds the calls of one connection, and a rate is offered whatever waits.
CONNECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of a server.

    Attributes:
        target: `host:port`.
        wire: "grpc" or "http".
        seconds: how long requests are sent; all that were sent are awaited.
        concurrency: requests in flight at any time.
        rate: or requests sent a second, whatever becomes of them.
        first: the first request's number, and
        count: from there on, how many are sent, in place of `seconds`.
    """

    target: str
    wire: str = "grpc"
    seconds: float = 0.0
    concurrency: int = 1
    rate: float | None = None
    first: int = 0
    count: int | None = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a load.

    Attributes:
        seconds: from the first request to the last answer.
        latencies_ms: of each request, by its status; "OK" of a right answer, "WRONG" of a wrong one.
    """

    seconds: float = 0.0
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)


Send = Callable[[int], Awaitable[tuple[str, bytes]]]


class _Requests:
    """The requests of a folder, and what they must be answered with."""

    def __init__(self, folder: Path, tolerance: float) -> None:
        self._tolerance = tolerance
        self.messages = {
            wire: [path.read_bytes() for path in sorted(folder.glob(f"*.{wire}"))]
            for wire in ("grpc", "http")
        }
        self._wanted = [
            np.frombuffer(path.read_bytes(), np.float32) for path in sorted(folder.glob("*.answer"))
        ]
        self._seen: list[set[bytes]] = [set() for _ in self._wanted]

    def __len__(self) -> int:
        return len(self._wanted)

    def right(self, wire: str, n: int, answer: bytes) -> bool:
        """Whether request n got its answer. The same bytes are read once."""
        if answer in self._seen[n]:
            return True
        received = _grpc_matrix(answer) if wire == "grpc" else _http_matrix(answer)
        same = received.shape == self._wanted[n].shape and bool(
            np.allclose(received, self._wanted[n], rtol=0, atol=self._tolerance)
        )
        if same:
            self._seen[n].add(answer)
        return same


def _grpc_matrix(answer: bytes) -> Any:
    message = pb.ModelInferResponse.FromString(answer)
    names = [output.name for output in message.outputs]
    return np.frombuffer(message.raw_output_contents[names.index("win_matrix")], np.float32)


def _http_matrix(answer: bytes) -> Any:
    head, _ = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
    offset = len(answer) - sum(output["parameters"]["binary_data_size"] for output in head["outputs"])
    for output in head["outputs"]:
        end = offset + output["parameters"]["binary_data_size"]
        if output["name"] == "win_matrix":
            return np.frombuffer(answer[offset:end], np.float32)
        offset = end
    raise ValueError("the answer has no win_matrix")


async def _put(load: Load, requests: _Requests) -> Outcome:
    outcome, started = Outcome(), time.perf_counter()
    end = started + load.seconds if load.count is None else float("inf")

    async def one(send: Send, number: int) -> None:
        n = number % len(requests)
        before = time.perf_counter()
        status, answer = await send(n)
        after = time.perf_counter()
        if status == "OK" and not requests.right(load.wire, n, answer):
            status = "WRONG"
        outcome.latencies_ms.setdefault(status, []).append((after - before) * 1e3)

    if load.rate is not None:
        await _open_loop(load, requests, one, end)
    else:
        await _closed_loop(load, requests, one, end)
    outcome.seconds = time.perf_counter() - started
    return outcome


async def _closed_loop(
    load: Load, requests: _Requests, one: Callable[[Send, int], Awaitable[None]], end: float
) -> None:
    numbers = iter(range(load.first, sys.maxsize if load.count is None else load.first + load.count))

    async def work(send: Send) -> None:
        for number in numbers:
            if time.perf_counter() >= end:
                return
            await one(send, number)

    if load.wire == "grpc":
        async with grpc.aio.insecure_channel(load.target) as channel:
            send = _grpc_sender(channel, requests)
            await asyncio.gather(*(work(send) for _ in range(load.concurrency)))
    else:
        senders = [await _http_sender(load.target, requests) for _ in range(load.concurrency)]
        await asyncio.gather(*(work(send) for send in senders))


async def _open_loop(
    load: Load, requests: _Requests, one: Callable[[Send, int], Awaitable[None]], end: float
) -> None:
    assert load.rate is not None and load.wire == "grpc"
    started, sent, tasks = time.perf_counter(), 0, set[asyncio.Future[None]]()
    async with AsyncExitStack() as stack:
        # Channels of equal options share a connection, unless told not to.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(load.target, options) for _ in range(CONNECTIONS)]
        senders = [_grpc_sender(await stack.enter_async_context(channel), requests) for channel in channels]
        while (now := time.perf_counter()) < end:
            while sent < (now - started) * load.rate:
                task = asyncio.ensure_future(one(senders[sent % CONNECTIONS], sent))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*tasks)


def _grpc_sender(channel: grpc.aio.Channel, requests: _Requests) -> Send:
    call, messages = channel.unary_unary(METHOD), requests.messages["grpc"]

    async def send(n: int) -> tuple[str, bytes]:
        try:
            return "OK", await call(messages[n], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name, b""

    return send


async def _http_sender(target: str, requests: _Requests) -> Send:
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    messages = requests.messages["http"]

    async def send(n: int) -> tuple[str, bytes]:
        writer.write(messages[n])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
        body = await reader.readexactly(length)
        status = head[0].split()[1]
        return ("OK", body) if status == "200" else (status, b"")

    return send


async def _serve(requests: _Requests) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        outcome = await _put(Load(**json.loads(line)), requests)
        print(json.dumps(asdict(outcome)), flush=True)


def main() -> None:
    """Answer loads until standard input ends. The arguments are the folder of requests and the tolerance."""
    # Ctrl-C reaches every process of a terminal; the one that started this then ends its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(_Requests(Path(sys.argv[1]), float(sys.argv[2]))))


if __name__ == "__main__":
    main()
