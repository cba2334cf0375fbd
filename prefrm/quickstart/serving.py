"""Stage 5: `prefrm serve` as a separate process, and the stock Triton clients against the local engine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from prefrm.errors import ServerUnavailableError
from prefrm.protocol import encode_groups
from prefrm.quickstart.settings import THREADS
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["Address", "largest_difference", "served"]

STARTUP_SECONDS = 120.0
SHUTDOWN_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server listens, each as host:port, and the name of its model."""

    http: str
    grpc: str
    metrics: str
    model: str


@contextmanager
def served(bundle: Path, folder: Path) -> Iterator[Address]:
    """Serve `bundle` from another process on free ports; the log goes to `folder/server.log`.

    Raises:
        ServerUnavailableError: the server did not start; the end of its log is quoted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "address.json", folder / "server.log"
    file.unlink(missing_ok=True)
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "prefrm", "serve", str(bundle), *ports, f"--address-file={file}"]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        )
    try:
        yield _wait(process, file, log)
    finally:
        process.terminate()
        try:
            process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", file: Path, log: Path) -> Address:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if file.exists():
            return Address(**json.loads(file.read_text(encoding="utf-8")))
        if process.poll() is not None:
            break
        time.sleep(0.1)
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
    raise ServerUnavailableError(f"the server did not start; {log} ends with: {' '.join(last) or 'nothing'}")


def largest_difference(
    triton: ModuleType, address: str, model: str, groups: Sequence[Group], local: Sequence[WinMatrix]
) -> float:
    """How far the server's matrices are from the local engine's, over p and the order gap.

    Args:
        triton: `tritonclient.grpc` or `tritonclient.http`, unmodified.
        address: host:port.
        model: the served name.
        groups: each is sent in a request of its own.
        local: their matrices by the engine in this process.
    """
    differences = []
    with triton.InferenceServerClient(address) as client:
        for group, matrix in zip(groups, local, strict=True):
            inputs = []
            for name, array in encode_groups([group]).items():
                tensor = triton.InferInput(name, array.shape, "BYTES")
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            response = client.infer(model, inputs)
            for name, expected in (("win_matrix", matrix.p), ("order_gap", matrix.order_gap)):
                differences.append(np.abs(response.as_numpy(name)[0] - expected).max())
    return float(max(differences))
