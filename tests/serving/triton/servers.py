"""The two servers that are compared: NVIDIA's Triton with an export, and prefrm's own."""

import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["TRITON", "Addresses", "triton"]

# Where `make test-triton` puts it (install.py).
TRITON = Path(__file__).resolve().parents[3] / ".triton"
START_S = 300
STOP_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens, each as `host:port`."""

    http: str
    grpc: str


@contextmanager
def triton(repository: Path, log: Path, *models: str) -> Iterator[Addresses]:
    """The real tritonserver on loopback, with these models of the repository loaded, until the block ends."""
    http, grpc = free_ports(2)
    command = [
        str(TRITON / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={TRITON / 'backends'}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        # The configuration is whole; completing it would start the judge once more.
        "--disable-auto-complete-config",
        "--allow-metrics=false",
        "--exit-timeout-secs=10",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
    ]
    with log.open("w") as output:
        # In a group of its own, since the Python backend's stubs are processes, too.
        running = subprocess.Popen(
            command,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{http}", running, log)
            yield Addresses(http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}")
        finally:
            stop(running)


def environment() -> dict[str, str]:
    """What makes the stub find the Python that it was built for, and its packages."""
    libraries = [str(TRITON / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    path = f"{TRITON / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # How many threads share a sum decides its last bit.
    return os.environ | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "OMP_NUM_THREADS": "1"}


def wait_until_ready(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and running.poll() is None:
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"tritonserver did not become ready:\n{log.read_text()[-4000:]}")


def stop(running: subprocess.Popen[bytes]) -> None:
    """End the server and all its stubs; asked first, it also removes its shared memory."""
    running.terminate()
    with suppress(subprocess.TimeoutExpired):
        running.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
