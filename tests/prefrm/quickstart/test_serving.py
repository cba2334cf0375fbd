"""The quickstart's server ends with whatever started it, and its parity check fails when it should."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from prefrm.errors import ScoringError, ServerUnavailableError
from prefrm.protocol import encode_matrices
from prefrm.quickstart import serving
from prefrm.quickstart.serving import Address, over_grpc, over_http, served
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

# In the server's place: it says its process id for the name of the model, and then waits.
CHILD = """
import json, os, signal, sys, time

if sys.argv[2:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
address = dict.fromkeys(("http", "grpc", "metrics"), "127.0.0.1:1") | {"models": [str(os.getpid())]}
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(address, file)
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""

# Starts `prefrm serve` with a light judge, says that it serves, and waits. The package as such imports torch.
PARENT = """
import sys, time
from pathlib import Path
from types import ModuleType
import prefrm

package = ModuleType("prefrm.quickstart")
package.__path__ = [str(Path(prefrm.__file__).parent / "quickstart")]
sys.modules["prefrm.quickstart"] = package
from prefrm.quickstart import serving

command = serving._command

def light(bundle, file):
    # In the place of `python -P -m prefrm serve`.
    return [sys.executable, "-m", "tests.serving.light_serve", *command(bundle, file)[5:]]

serving._command = light
with serving.served(Path(sys.argv[1]), Path(sys.argv[1]) / "server"):
    print("serving", flush=True)
    time.sleep(60)
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a light process in the place of the server."""

    def put(*arguments: str) -> None:
        monkeypatch.setattr(
            serving, "_command", lambda bundle, file: [sys.executable, "-c", CHILD, str(file), *arguments]
        )

    put()
    return put


def gone(server: Address) -> bool:
    return not psutil.pid_exists(int(server.model))


def test_the_server_ends_with_the_block(child, tmp_path: Path) -> None:
    with served(tmp_path, tmp_path / "server") as server:
        assert not gone(server)
    assert gone(server)


def test_the_server_ends_with_an_exception(child, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), served(tmp_path, tmp_path / "server") as server:
        _ = 1 / 0
    assert gone(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_server_ends_with_a_signal(
    default_signals: None, child, tmp_path: Path, number: signal.Signals
) -> None:
    with pytest.raises(SystemExit) as ended, served(tmp_path, tmp_path / "server") as server:
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert ended.value.code == 128 + number
    assert gone(server)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_or_handled_stays_so(default_signals: None, child, tmp_path: Path) -> None:
    seen = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with served(tmp_path, tmp_path / "server") as server:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert gone(server)
        assert seen == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_thread_can_serve_too(child, tmp_path: Path) -> None:
    seen = []

    def serve() -> None:
        with served(tmp_path, tmp_path / "server") as server:
            seen.append(server)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert gone(seen[0])


def test_a_server_that_does_not_stop_is_killed(child, tmp_path: Path, monkeypatch) -> None:
    child("stubborn")
    monkeypatch.setattr(serving, "SHUTDOWN_SECONDS", 0.2)
    with served(tmp_path, tmp_path / "server") as server:
        pass
    assert gone(server)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_an_interrupt_while_it_stops_kills_it(
    default_signals: None, child, tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    child("stubborn")
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), number))
    begun = time.monotonic()
    with pytest.raises(error), served(tmp_path, tmp_path / "server") as server:
        interrupt.start()
    assert time.monotonic() - begun < serving.SHUTDOWN_SECONDS / 2
    assert gone(server)


def test_a_start_that_takes_too_long_is_called_so(child, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(serving, "STARTUP_SECONDS", 0.0)
    with (
        pytest.raises(ServerUnavailableError, match=r"it was not ready within 0 s; .* ends with: nothing"),
        served(tmp_path, tmp_path / "server"),
    ):
        pass


def test_the_server_imports_nothing_from_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "prefrm.py").write_text("raise SystemExit('the wrong prefrm')")
    monkeypatch.chdir(tmp_path)
    command = serving._command
    # Without a bundle it ends before it imports torch.
    monkeypatch.setattr(serving, "_command", lambda bundle, file: command(bundle, file)[:5])
    with (
        pytest.raises(ServerUnavailableError, match=r"it ended with status 2; .*nothing to serve"),
        served(tmp_path / "no-bundle", tmp_path / "server"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_prefrm_serve_ends_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    children: list[psutil.Process] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "serving\n"
            children = psutil.Process(parent.pid).children()
            # A terminal sends Ctrl-C to the server as well.
            to = os.killpg if number is signal.SIGINT else os.kill
            to(parent.pid, number)
            assert parent.wait(30) == (143 if number is signal.SIGTERM else -number)
            _, alive = psutil.wait_procs(children, timeout=30)
            assert len(children) == 1
            assert not alive
        finally:
            for process in (parent, *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def utility(prompt: str, image: bytes) -> float:
    return sum(image) % 1009 / 300


SCORER = FakeScorer(utility, first_bonus=0.25)


@pytest.fixture
def groups(png: Callable[..., bytes]) -> list[Group]:
    return [Group(prompt=str(n), candidates=(png(n), png(n + 10), png(n + 20), None)) for n in range(2)]


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a machine behind a proxy, at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for name in ("grpc_proxy", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    return proxy


@pytest.fixture
def fake_server() -> Iterator[Address]:
    with background(JudgeServer(SCORER, ModelInfo(name="judge"))) as addresses:
        yield Address(
            http=addresses.http, grpc=addresses.grpc, metrics=addresses.metrics, models=addresses.models
        )


@pytest.mark.parametrize("over", [over_grpc, over_http])
class TestParity:
    def test_equal_answers_are_0_apart(self, over, fake_server, groups, dead_proxy) -> None:
        assert over(fake_server, groups, SCORER.score(groups)) == 0.0

    def test_other_answers_are_an_error(self, over, fake_server, groups) -> None:
        other = FakeScorer(lambda prompt, image: utility(prompt, image) * 1.001)
        with pytest.raises(ScoringError, match=r"answer over .* to '0' differs from the local engine's by"):
            over(fake_server, groups, other.score(groups))

    def test_a_refusal_is_one_line(self, over, fake_server, groups) -> None:
        unknown = Address(http=fake_server.http, grpc=fake_server.grpc, metrics="", models=("nobody",))
        with pytest.raises(ScoringError, match=r"gave no answer over .*nobody") as error:
            over(unknown, groups, SCORER.score(groups))
        assert "\n" not in str(error.value)
        assert isinstance(error.value.__cause__, InferenceServerException)

    def test_nobody_there_is_one_line(self, over, groups) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        server = Address(http=nobody, grpc=nobody, metrics=nobody, models=("judge",))
        with pytest.raises(ScoringError, match="gave no answer over") as error:
            over(server, groups, SCORER.score(groups))
        assert "\n" not in str(error.value)


def changed(name: str, value: object) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[1] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("win_matrix", np.nan),
        changed("win_matrix", 0.123),
        changed("win_rate", 0.123),
        changed("order_gap", np.nan),
        changed("order_gap", 0.123),
        changed("tie", 0.123),
        changed("valid", False),
        changed("error", b"too large"),
        lambda tensors: tensors.pop("order_gap"),
        lambda tensors: tensors.update(win_matrix=tensors["win_matrix"][:, :3, :3]),
    ],
)
def test_nothing_that_the_wire_carries_may_differ(change, groups, monkeypatch) -> None:
    asked: list[float] = []

    class Client:
        def __init__(self, address: str, **options: object) -> None:
            self.answers = iter(SCORER.score(groups))

        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *failure: object) -> None:
            pass

        def infer(self, model: str, inputs: Sequence[object], *, client_timeout: float) -> SimpleNamespace:
            asked.append(client_timeout)
            tensors = encode_matrices([next(self.answers)])
            if len(asked) == 2:
                change(tensors)
            return SimpleNamespace(as_numpy=tensors.get)

    monkeypatch.setattr(tritonclient.grpc, "InferenceServerClient", Client)
    server = Address(http="", grpc="", metrics="", models=("judge",))
    local: list[WinMatrix] = SCORER.score(groups)
    with pytest.raises(ScoringError, match="answer over gRPC to '1' differs"):
        over_grpc(server, groups, local)
    assert asked == [serving.ANSWER_SECONDS] * 2
