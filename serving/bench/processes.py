"""The processes of the benchmark: servers that are waited for, and the one that puts load on them."""

import json
import os
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from prefrm.errors import ConfigError, ServerUnavailableError
from prefrm.protocol import DEFAULT_MODEL
from prefrm.resources import MEBIBYTE
from serving.bench.load import TOLERANCE, Load, Outcome

__all__ = ["LoadProcess", "ServerProcess", "mlserver", "prefrm_server"]

START_S = 180.0
STOP_S = 10.0
ROOT = Path(__file__).parents[2]
# MLServer's own packages come first, then torch and prefrm from here.
MLSERVER = "import sys; sys.path += sys.argv.pop(1).split({!r}); from mlserver.cli import main; main()"
# The best of those that were tried for this model: see docs/serving/load.md.
MLSERVER_BATCH = {"max_batch_size": 32, "max_batch_time": 0.001}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A server that answers.

    Attributes:
        pid: of its process.
        grpc: `host:port`.
        http: `host:port`.
    """

    pid: int
    grpc: str
    http: str

    @property
    def resident_mb(self) -> float:
        """Its resident memory now, in MiB."""
        return float(psutil.Process(self.pid).memory_info().rss / MEBIBYTE)

    @property
    def cpu_seconds(self) -> float:
        """What it has used of the processor so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def prefrm_server(scorer: str, *, threads: int, queued: int | None = None) -> Iterator[ServerProcess]:
    """prefrm's server around a scorer of `serving.bench.scorers`, with a number of threads of torch."""
    with tempfile.TemporaryDirectory() as folder:
        addresses = Path(folder) / "addresses.json"
        command = [sys.executable, "-m", "serving.bench.served", scorer, "--address-file", str(addresses)]
        command += ["--threads", str(threads)]
        if queued is not None:
            command += ["--queued", str(queued)]
        with _process(command, Path(folder), threads=threads) as process:
            _wait(process, addresses.exists, Path(folder))
            found = json.loads(addresses.read_text(encoding="utf-8"))
            yield ServerProcess(pid=process.pid, grpc=found["grpc"], http=found["http"])


@contextmanager
def mlserver(python: Path, workers: int = 0, **batching: Any) -> Iterator[ServerProcess]:
    """MLServer with the two-layer model, in the environment of that interpreter; one thread of torch.

    Raises:
        ConfigError: it is no interpreter that has MLServer.
    """
    http, grpc, metrics = _free_ports(3)
    model = {
        "name": DEFAULT_MODEL,
        "implementation": "serving.bench.mlserver_model.runtime.TwoLayersRuntime",
        **MLSERVER_BATCH,
        **batching,
    }
    # Without its parallel worker, through whose queues every batch would be pickled; no log of each request.
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": workers,
        "debug": False,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        paths = os.pathsep.join([str(ROOT), *site.getsitepackages()])
        command = [str(python), "-c", MLSERVER.format(os.pathsep), paths, "start", str(folder)]
        with _process(command, folder, threads=1) as process:
            server = ServerProcess(pid=process.pid, grpc=f"127.0.0.1:{grpc}", http=f"127.0.0.1:{http}")
            _wait(process, lambda: _model_ready(server.grpc), folder)
            yield server


class LoadProcess:
    """The process that loads servers. Stops with its block.

    Args:
        folder: of requests, as `serving.bench.requests` writes them.
        tolerance: how far a probability of an answer may be from the right one.
    """

    def __init__(self, folder: Path, *, tolerance: float = TOLERANCE) -> None:
        command = [sys.executable, "-m", "serving.bench.load", str(folder), str(tolerance)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(1), cwd=ROOT
        )

    def __enter__(self) -> "LoadProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        if kind is not None:
            # It may be in the middle of a load, whose end nobody waits for any more.
            self._process.terminate()
        self._process.wait()
        self._process.stdout.close()

    def put(self, load: Load) -> Outcome:
        """Put a load on a server, and say what came of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(load)) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise ServerUnavailableError(f"the process that loads the server ended; its load was {load}")
        return Outcome(**json.loads(line))


@contextmanager
def _process(command: list[str], folder: Path, *, threads: int) -> Iterator["subprocess.Popen[bytes]"]:
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(threads), cwd=folder
        )
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()


def _environment(threads: int) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}


def _wait(process: "subprocess.Popen[bytes]", ready: Any, folder: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            last = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ConfigError(
                f"a server of the benchmark did not start: {' '.join(last) or 'it said nothing'}"
            )
        time.sleep(0.05)


def _model_ready(address: str) -> bool:
    with InferenceServerClient(address) as client:
        try:
            return bool(client.is_model_ready(DEFAULT_MODEL))
        except InferenceServerException:
            return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
