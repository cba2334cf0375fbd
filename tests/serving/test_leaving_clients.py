"""Clients that cancel, run out of time or vanish in the middle of a batch: all others get the right answers.

Six seeded runs; the environment variable PREFRM_LEAVING_RUNS says another number.
"""

import asyncio
import os
import random
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.http import InferenceServerClient as HttpCodec
from tritonclient.http import InferInput as HttpInput
from tritonclient.utils import InferenceServerException

from prefrm.protocol import MATRIX_OUTPUTS, decode_matrices, encode_groups
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer
from serving.tensors import pack

RUNS = int(os.environ.get("PREFRM_LEAVING_RUNS", "6"))
SIZE, STAYING, LEAVING = 3, 6, 2
KILLED = """
import sys, grpc
call = grpc.insecure_channel(sys.argv[1]).unary_unary("/inference.GRPCInferenceService/ModelInfer")
sys.stdin.readline()
answers = [call.future(open(path, "rb").read()) for path in sys.argv[2:]]
print("sent", flush=True)
[answer.result() for answer in answers]
"""


class SteppedScorer:
    """Each call waits for a step, or for the end of all steps; `calls` holds the prompts of each call."""

    def __init__(self, inner: FakeScorer) -> None:
        self.calls: list[list[str]] = []
        self.free = threading.Event()
        self._inner = inner
        self._steps = threading.Semaphore(0)

    def step(self) -> None:
        self._steps.release()

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.calls.append([group.prompt for group in groups])
        while not self.free.is_set() and not self._steps.acquire(timeout=0.005):
            pass
        return self._inner.score(groups)


class Run:
    """One batch that is left by some: by which clients, and when, is the random numbers' choice.

    A plug keeps the scorer busy while everybody asks; some leave in the queue, the others once the scorer has
    their batch.
    """

    def __init__(self, served: Addresses, scorer: SteppedScorer, judge: FakeScorer, seed: int) -> None:
        self.random = random.Random(seed)
        self.served, self.scorer, self.judge, self.seed = served, scorer, judge, seed
        self.answers: list[tuple[Group, Any]] = []
        self.ways: dict[str, Callable[[list[Group]], Any]] = {
            "cancelled": self.cancelled,
            "late": self.late,
            "closed": self.closed,
            "hung up": self.hung_up,
            "killed": self.killed,
        }

    async def play(self, png: Callable[[int], bytes], folder: Path) -> None:
        self.png, self.folder = png, folder
        async with AsyncExitStack() as stack:
            self.grpc = await stack.enter_async_context(triton.InferenceServerClient(self.served.grpc))
            self.http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
            self.process = await self.start_process(self.groups("killed", LEAVING), stack)
            leave = []
            plug = self.ask(self.groups("plug", 1)[0])
            await self.until(lambda: bool(self.scorer.calls))
            asking = [*self.ways, *["stays"] * STAYING]
            self.random.shuffle(asking)
            for way in asking:
                if way == "stays":
                    self.ask(self.groups(way, 1)[0], wire=self.random.choice(("grpc", "http")))
                else:
                    leave.append(await self.ways[way](self.groups(way, LEAVING)))
                await self.pause(0.003)
            self.random.shuffle(leave)
            early = self.random.randrange(len(leave))
            for go in leave[:early]:
                await go()
            self.scorer.step()
            await asyncio.wait_for(plug, 30)
            await self.until(lambda: len(self.scorer.calls) > 1)
            for go in leave[early:]:
                await go()
                await self.pause(0.01)
            self.scorer.free.set()
            await self.check()

    async def check(self) -> None:
        """Whoever got an answer got the right one, and all who stayed did; and so does who comes next."""
        self.ask(self.groups("stays", 1)[0])
        results = await asyncio.wait_for(
            asyncio.gather(*(task for _, task in self.answers), return_exceptions=True), 60
        )
        for (group, _), result in zip(self.answers, results, strict=True):
            if isinstance(result, WinMatrix):
                assert result.equals(self.judge.score([group])[0]), (self.seed, group.prompt)
            else:
                gone = isinstance(result, asyncio.CancelledError | InferenceServerException)
                assert gone and not group.prompt.startswith("stays"), (self.seed, group.prompt, result)

    def groups(self, way: str, count: int) -> list[Group]:
        """Groups that no other client has."""
        return [
            Group(
                prompt=f"{way} {'.' * self.random.randrange(20)}",
                candidates=tuple(self.png(self.random.randrange(256)) for _ in range(SIZE)),
            )
            for _ in range(count)
        ]

    def ask(self, group: Group, *, wire: str = "grpc", **options: Any) -> "asyncio.Task[WinMatrix]":
        answer = self.by_http(group) if wire == "http" else self.by_grpc(group, **options)
        task = asyncio.create_task(answer)
        self.answers.append((group, task))
        return task

    async def by_grpc(self, group: Group, client: Any = None, **options: Any) -> WinMatrix:
        inputs = []
        for name, array in encode_groups([group]).items():
            inputs.append(triton.InferInput(name, list(array.shape), "BYTES"))
            inputs[-1].set_data_from_numpy(array)
        result = await (client or self.grpc).infer("judge", inputs, **options)
        return _matrix(result)

    async def by_http(self, group: Group) -> WinMatrix:
        body, headers = _http_body(group)
        response = await self.http.post(
            f"http://{self.served.http}/v2/models/judge/infer", content=body, headers=headers
        )
        assert response.status_code == 200, response.text
        length = int(response.headers["Inference-Header-Content-Length"])
        return _matrix(HttpCodec.parse_response_body(response.content, header_length=length))

    async def cancelled(self, groups: list[Group]) -> Any:
        tasks = [self.ask(group) for group in groups]

        async def leave() -> None:
            for task in tasks:
                task.cancel()

        return leave

    async def late(self, groups: list[Group]) -> Any:
        tasks = [self.ask(group, client_timeout=self.random.uniform(0.01, 0.4)) for group in groups]

        async def leave() -> None:
            await asyncio.wait(tasks)

        return leave

    async def closed(self, groups: list[Group]) -> Any:
        client = triton.InferenceServerClient(self.served.grpc)
        for group in groups:
            self.ask(group, client=client)
        return client.close

    async def hung_up(self, groups: list[Group]) -> Any:
        host, _, port = self.served.http.rpartition(":")
        writers = []
        for group in groups:
            body, headers = _http_body(group)
            lines = [f"{name}: {value}" for name, value in {**headers, "Content-Length": len(body)}.items()]
            head = "\r\n".join(["POST /v2/models/judge/infer HTTP/1.1", "Host: judge", *lines, "", ""])
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + body)
            writers.append(writer)

        async def leave() -> None:
            for writer in writers:
                writer.transport.abort()

        return leave

    async def killed(self, _: list[Group]) -> Any:
        self.process.stdin.write(b"\n")
        assert await self.process.stdout.readline() == b"sent\n"

        async def leave() -> None:
            self.process.kill()
            await self.process.wait()

        return leave

    async def start_process(self, groups: list[Group], stack: AsyncExitStack) -> Any:
        """A client that asks once it is told to."""
        paths = []
        for n, group in enumerate(groups):
            request = pb.ModelInferRequest(model_name="judge")
            for name, array in encode_groups([group]).items():
                request.inputs.add(name=name, datatype="BYTES", shape=array.shape)
                request.raw_input_contents.append(pack(array))
            paths.append(self.folder / f"{n}.request")
            paths[-1].write_bytes(request.SerializeToString())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", KILLED, self.served.grpc, *map(str, paths)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

        async def end() -> None:
            if process.returncode is None:
                process.kill()
            await process.communicate()

        stack.push_async_callback(end)
        return process

    async def pause(self, most: float) -> None:
        await asyncio.sleep(self.random.uniform(0, most))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)


def _http_body(group: Group) -> tuple[bytes, dict[str, str]]:
    inputs = []
    for name, array in encode_groups([group]).items():
        inputs.append(HttpInput(name, list(array.shape), "BYTES"))
        inputs[-1].set_data_from_numpy(array)
    body, length = HttpCodec.generate_request_body(inputs)
    return body, {"Inference-Header-Content-Length": str(length)}


def _matrix(result: Any) -> WinMatrix:
    tensors = {spec.name: np.asarray(result.as_numpy(spec.name)) for spec in MATRIX_OUTPUTS}
    return decode_matrices(tensors, count=1, size=SIZE)[0]


@pytest.mark.slow
@pytest.mark.timeout(3 * RUNS + 120)
def test_whoever_leaves_a_batch_the_others_get_their_answers(png, scorer, tmp_path):
    left_in_a_batch: set[str] = set()
    for seed in range(RUNS):
        stepped = SteppedScorer(scorer)
        with background(JudgeServer(stepped, ModelInfo(name="judge"))) as served:
            run = Run(served, stepped, scorer, seed)
            try:
                asyncio.run(run.play(png, tmp_path))
            finally:
                stepped.free.set()
        left_in_a_batch |= {
            way for way in run.ways for call in stepped.calls[1:] for prompt in call if prompt.startswith(way)
        }
    # Each kind was among those that the scorer was working on.
    assert left_in_a_batch == set(run.ways)
