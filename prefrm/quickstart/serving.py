"""Stage 5: `prefrm serve` as a separate process, and the stock Triton clients against the local engine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from prefrm.errors import ScoringError, ServerUnavailableError
from prefrm.protocol import OUTPUTS, encode_groups, encode_matrices, largest_difference
from prefrm.quickstart.settings import THREADS
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["Address", "over_grpc", "over_http", "served"]

STARTUP_SECONDS = 120.0
SHUTDOWN_SECONDS = 20.0
ANSWER_SECONDS = 60.0
# Either side runs the same weights in float32 on the same machine; the wires carry float32 too.
TOLERANCE = 1e-5
# The server listens on loopback, where no proxy that the environment names has a say.
CHANNEL_ARGS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server listens, each as host:port, and the names of its models."""

    http: str
    grpc: str
    metrics: str
    models: tuple[str, ...]

    @property
    def model(self) -> str:
        """The one model that is served here."""
        return self.models[0]


@contextmanager
def served(bundle: Path, folder: Path) -> Iterator[Address]:
    """Serve `bundle` from another process on free ports; the log goes to `folder/server.log`.

    The server ends with the block, and with this process however it ends: SIGTERM and SIGHUP leave the
    block as `SystemExit`, and a process that is killed leaves the server an empty standard input.

    Raises:
        ServerUnavailableError: the server did not start in time, or at all; the end of its log is quoted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "address.json", folder / "server.log"
    file.unlink(missing_ok=True)
    process = None
    with _signals_unwind(), log.open("w", encoding="utf-8") as output:
        try:
            process = subprocess.Popen(
                _command(bundle, file),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
            )
            yield _wait(process, file, log)
        finally:
            if process is not None:
                _end(process)


def _command(bundle: Path, file: Path) -> list[str]:
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    # -P: a file in the current folder must not pass for a module.
    python = [sys.executable, "-P", "-m", "prefrm"]
    # The local engine runs on the CPU as well, or the two would differ by more than rounding.
    return [
        *python,
        "serve",
        str(bundle),
        *ports,
        "--device=cpu",
        "--stop-with-stdin",
        f"--address-file={file}",
    ]


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """In the main thread, turn signals that would end the process at once into `SystemExit`.

    A signal that is ignored, as `nohup` does, or that has a handler keeps what it has.
    """

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)  # what a shell reports of a program that the signal ended

    deadly: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        both = (signal.SIGTERM, signal.SIGHUP)
        deadly = [number for number in both if signal.getsignal(number) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a process, and kill it if that takes too long or Ctrl-C or a signal cuts the wait short."""
    with process:  # closes its standard input
        try:
            process.terminate()
            process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", file: Path, log: Path) -> Address:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if file.exists():
            return Address(**json.loads(file.read_text(encoding="utf-8")))
        if (status := process.poll()) is not None:
            raise _not_started(f"it ended with status {status}", log)
        time.sleep(0.1)
    raise _not_started(f"it was not ready within {STARTUP_SECONDS:g} s", log)


def _not_started(reason: str, log: Path) -> ServerUnavailableError:
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return ServerUnavailableError(
        f"the server did not start: {reason}; {log} ends with: {' '.join(last) or 'nothing'}"
    )


def over_grpc(server: Address, groups: Sequence[Group], local: Sequence[WinMatrix]) -> float:
    """How far the server's answers are from the local engine's, through the stock gRPC client.

    Args:
        server: where it is.
        groups: each is sent in a request of its own.
        local: their matrices by the engine in this process.

    Returns:
        The largest difference of a number that the wire carries.

    Raises:
        ScoringError: the server did not answer, or with something else than the local engine.
    """
    triton = tritonclient.grpc
    with triton.InferenceServerClient(server.grpc, channel_args=CHANNEL_ARGS) as client:
        return _compare(
            "gRPC", client, triton.InferInput, server, groups, local, client_timeout=ANSWER_SECONDS
        )


def over_http(server: Address, groups: Sequence[Group], local: Sequence[WinMatrix]) -> float:
    """As `over_grpc`, through the stock HTTP client."""
    triton = tritonclient.http
    with triton.InferenceServerClient(
        server.http, connection_timeout=ANSWER_SECONDS, network_timeout=ANSWER_SECONDS
    ) as client:
        return _compare("HTTP", client, triton.InferInput, server, groups, local)


def _compare(
    wire: str,
    client: Any,
    tensor_class: Any,
    server: Address,
    groups: Sequence[Group],
    local: Sequence[WinMatrix],
    **options: Any,
) -> float:
    largest = 0.0
    for group, matrix in zip(groups, local, strict=True):
        inputs = []
        for name, array in encode_groups([group]).items():
            tensor = tensor_class(name, list(array.shape), "BYTES")
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        try:
            response = client.infer(server.model, inputs, **options)
        except (InferenceServerException, HTTPParseError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ScoringError(f"the server gave no answer over {wire}: {reason}") from error
        answers = {spec.name: response.as_numpy(spec.name) for spec in OUTPUTS}
        received = {name: array for name, array in answers.items() if array is not None}
        difference = largest_difference(received, encode_matrices([matrix]))
        # Not `>`, which is false of NaN.
        if not difference <= TOLERANCE:
            raise ScoringError(
                f"the server's answer over {wire} to {group.prompt[:60]!r} differs from the local engine's "
                f"by {difference:.3g} (inf: in what it judged), and rounding explains {TOLERANCE:g}; "
                "both ran the same bundle, so this is a defect to report"
            )
        largest = max(largest, difference)
    return largest
