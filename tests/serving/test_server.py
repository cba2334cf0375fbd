"""Starting and stopping: ports, signals, the address file and the command."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import tritonclient.grpc as triton
import typer
from grpc_health.v1 import health_pb2
from typer.testing import CliRunner

from prefrm.client import connect
from prefrm.errors import BundleError, ConfigError, ServerUnavailableError
from prefrm.media import DEFAULT_LIMITS, ImageLimits
from prefrm.winmatrix import FakeScorer, Group, Inputs
from serving.announcing import announce
from serving.commands import serve
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer

# A server process whose scorer judges by length and takes as long as its prompt says.
PROGRAM = """
import sys, time
from pathlib import Path
from prefrm.winmatrix import Inputs, FakeScorer
from serving.announcing import announce
from serving.models import ModelInfo
from serving.limits import Limits
from serving.running import run
from serving.server import JudgeServer

def utility(prompt, image):
    time.sleep(float(prompt))
    return float(len(image))

limits = Limits(drain_s=float(sys.argv[2])) if len(sys.argv) > 2 else Limits()
server = JudgeServer(FakeScorer(utility), ModelInfo(name="judge"), limits=limits)
run(server, on_ready=lambda addresses: announce(addresses, Path(sys.argv[1])))
"""


@pytest.fixture
def process(tmp_path, until, request):
    """A server process and where it listens; a parameter is the seconds it drains for."""
    file = tmp_path / "address.json"
    drain = [str(request.param)] if hasattr(request, "param") else []
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), *drain],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            until(file.exists)
            yield running, Addresses(**json.loads(file.read_text()))
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_was_accepted_and_ends_quickly(process, number, png, until):
    running, addresses = process
    results = []
    group = Group(prompt="0.4", candidates=(png(1), png(2)))
    # Imports of the clients take longer on a busy machine than the scorer.
    both = threading.Barrier(2)

    def score(url):
        with connect(url) as judge:
            both.wait()
            results.extend(judge.score([group]))

    threads = [
        threading.Thread(target=score, args=(url,)) for url in (addresses.grpc_url, addresses.http_url)
    ]
    # A client that is there already asks more often than they take.
    with httpx.Client() as client:
        for thread in threads:
            thread.start()
        until(lambda: "in_flight 2.0" in client.get(f"http://{addresses.metrics}/metrics").text)
    running.send_signal(number)
    # Stopping, but still there to say so.
    until(lambda: httpx.get(f"http://{addresses.http}/v2/health/ready").status_code == 503)
    response = httpx.get(f"http://{addresses.http}/v2/models/judge/ready")
    assert (response.status_code, list(response.json())) == (503, ["error"])
    with triton.InferenceServerClient(addresses.grpc) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("judge")
    for thread in threads:
        thread.join()
    finished = time.monotonic()
    assert running.wait(timeout=10) == 0
    assert time.monotonic() - finished < 3
    assert [matrix.valid.all() for matrix in results] == [True, True]
    assert running.stderr.read() == ""


@contextlib.contextmanager
def busy_for_long(addresses, png, until):
    """While the block runs, the scorer is at work for a minute; yields how its client was answered."""
    answers = []

    def score():
        try:
            with connect(addresses.http_url, unavailable_timeout=0) as judge:
                judge.score([Group(prompt="60", candidates=(png(1), png(2)))])
        except ServerUnavailableError as error:
            answers.append(str(error))

    thread = threading.Thread(target=score)
    thread.start()
    until(lambda: "in_flight 1.0" in httpx.get(f"http://{addresses.metrics}/metrics").text)
    yield answers
    thread.join()


@pytest.mark.parametrize("process", [0.3], indirect=True)
def test_draining_is_a_bound_though_the_scorer_is_busy(process, png, until):
    running, addresses = process
    with busy_for_long(addresses, png, until) as answers:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=10) == 0
    assert ["the server stopped before this request was scored" in answer for answer in answers] == [True]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(process, first, second, png, until):
    running, addresses = process
    with busy_for_long(addresses, png, until) as answers:
        running.send_signal(first)
        until(lambda: httpx.get(f"http://{addresses.http}/v2/health/ready").status_code == 503)
        running.send_signal(second)
        assert running.wait(timeout=10) == -second
    assert len(answers) == 1


def test_an_idle_server_with_an_open_connection_ends_at_once(process):
    running, addresses = process
    host, port = addresses.http.split(":")
    with socket.create_connection((host, int(port))), httpx.Client() as client:
        client.get(f"http://{addresses.http}/v2")
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=10) == 0
        assert time.monotonic() - started < 3


def test_it_prints_every_address(process):
    running, addresses = process
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=10)
    assert out == (
        f"ready: grpc://{addresses.grpc}/judge http://{addresses.http}/judge\n"
        f"metrics: http://{addresses.metrics}/metrics\n"
        f"docs: http://{addresses.http}/docs\n"
    )
    assert err == ""


def test_every_model_is_announced(capfd):
    addresses = Addresses(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3", models=("m", "n"))
    announce(addresses, None)
    assert capfd.readouterr().out.splitlines() == [
        "ready: grpc://127.0.0.1:2/m http://127.0.0.1:1/m",
        "ready: grpc://127.0.0.1:2/n http://127.0.0.1:1/n",
        "metrics: http://127.0.0.1:3/metrics",
        "docs: http://127.0.0.1:1/docs",
    ]


def test_the_address_file_is_whole_or_absent(tmp_path, capfd):
    addresses = Addresses(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3", models=("m", "n"))
    file = tmp_path / "address.json"
    file.write_text("an older and much longer address file that is replaced" * 9)
    announce(addresses, file)
    assert json.loads(file.read_text()) == {
        "http": "127.0.0.1:1",
        "grpc": "127.0.0.1:2",
        "metrics": "127.0.0.1:3",
        "models": ["m", "n"],
    }
    assert os.listdir(tmp_path) == ["address.json"]
    assert "grpc://127.0.0.1:2/m http://127.0.0.1:1/m" in capfd.readouterr().out


def test_an_address_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path):
    addresses = Addresses(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3", models=("m", "n"))
    (tmp_path / "address.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        announce(addresses, tmp_path / "address.json")
    assert os.listdir(tmp_path) == ["address.json"]


@pytest.mark.parametrize("which", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_one_line_and_leaves_nothing_behind(which, scorer, capfd):
    threads = threading.enumerate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = JudgeServer(scorer, ModelInfo(name="judge"), **{f"{which}_port": port})
        with pytest.raises(ConfigError) as caught, background(server):
            pass
    message = str(caught.value)
    assert f"127.0.0.1:{port} for {which}: Address already in use" in message
    assert f"--{which}-port" in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""
    assert set(threading.enumerate()) <= set(threads)


@pytest.mark.parametrize("port", [-1, 99999])
def test_a_port_that_is_none_is_a_mistake(scorer, port):
    with (
        pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} for http: .*0-65535"),
        background(JudgeServer(scorer, ModelInfo(name="judge"), http_port=port)),
    ):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a?b", "ünter"])
def test_a_name_that_does_not_fit_into_a_url_is_refused(name):
    with pytest.raises(ConfigError, match="a model's name is made of letters"):
        ModelInfo(name=name)


def test_two_servers_do_not_share_a_grpc_port(scorer):
    with background(JudgeServer(scorer, ModelInfo(name="judge"))) as first:
        port = int(first.grpc.split(":")[1])
        second = JudgeServer(scorer, ModelInfo(name="judge"), grpc_port=port)
        with pytest.raises(ConfigError, match="in use"), background(second):
            pass


def test_a_port_is_free_again_after_stopping(scorer):
    with background(JudgeServer(scorer, ModelInfo(name="judge"))) as first:
        with triton.InferenceServerClient(first.grpc) as client:
            assert client.is_server_live()
        httpx.get(f"http://{first.http}/v2")
    ports = {f"{w}_port": int(getattr(first, w).split(":")[1]) for w in ("http", "grpc", "metrics")}
    with background(JudgeServer(scorer, ModelInfo(name="judge"), **ports)) as second:
        assert second == first


def test_an_exception_in_the_block_stops_the_server(scorer):
    with pytest.raises(KeyError), background(JudgeServer(scorer, ModelInfo(name="judge"))) as served:
        raise KeyError("the caller's own")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{served.http}/v2")


def test_ctrl_c_while_the_server_starts_stops_it_once_it_has_started(default_signals):
    class Slow:
        stopped = False

        async def start(self):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.sleep(0.2)
            return Addresses(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3", models=("m",))

        async def stop(self):
            self.stopped = True

    server = Slow()
    with pytest.raises(KeyboardInterrupt), background(server):
        pytest.fail("the block ran")
    assert server.stopped


def test_the_health_service_hears_of_the_end(scorer):
    import grpc
    from grpc_health.v1 import health_pb2_grpc

    async def main():
        server = JudgeServer(scorer, ModelInfo(name="judge"))
        addresses = await server.start()
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            states = [(await watch.read()).status]
            stopping = asyncio.ensure_future(server.stop())
            states.append((await watch.read()).status)
            watch.cancel()
            await stopping
        return states

    serving, not_serving = asyncio.run(main())
    assert serving == health_pb2.HealthCheckResponse.SERVING
    assert not_serving == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    "settings", [{"queued_cost": 0}, {"group_size": -1}, {"deadline_s": 0.0}, {"max_queue_delay_s": -0.1}]
)
def test_a_limit_that_nothing_satisfies_is_a_mistake(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Limits(**settings)


def test_http_answers_do_not_wait_for_acknowledgements(served, png):
    # With Nagle's algorithm on, each answer takes the 40 ms of the client's delayed acknowledgement.
    group = Group(prompt="p", candidates=(png(1), png(2)))
    seconds = []
    with connect(served.http_url) as judge:
        for _ in range(20):
            started = time.perf_counter()
            judge.score([group])
            seconds.append(time.perf_counter() - started)
    assert min(seconds[1:]) < 0.03


def test_a_server_on_ipv6(png):
    with background(
        JudgeServer(FakeScorer(lambda p, i: 0.0), ModelInfo(name="judge"), host="::1")
    ) as addresses:
        assert addresses.http.startswith("[::1]:")
        for url in (addresses.grpc_url, addresses.http_url):
            with connect(url) as judge:
                assert judge.score([Group(prompt="p", candidates=(png(1), png(2)))])[0].p[0, 1] == 0.5


class TestCommand:
    @pytest.fixture
    def app(self):
        app = typer.Typer()
        app.command("serve")(serve)
        app.command("other")(lambda: None)
        return app

    def test_it_documents_its_options(self, app):
        result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert result.exit_code == 0
        for option in (
            "--host",
            "--http-port",
            "--grpc-port",
            "--metrics-port",
            "--model-name",
            "--device",
            "--dtype",
            "--address-file",
            "--stop-with-stdin",
        ):
            assert option in result.output

    def test_a_bundle_that_is_not_there_is_a_prefrm_error(self, app, tmp_path):
        arguments = ["serve", str(tmp_path / "nothing"), "--http-port", "0"]
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, BundleError)

    def test_an_address_file_in_no_folder_is_said_before_anything_starts(self, app, tmp_path):
        arguments = ["serve", str(tmp_path), "--address-file", str(tmp_path / "nowhere" / "a.json")]
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, ConfigError)
        assert f"{tmp_path / 'nowhere'} is not a folder" in str(result.exception)

    def test_an_address_file_that_is_a_folder_is_said_before_anything_starts(self, app, tmp_path):
        (tmp_path / "a.json").mkdir()
        arguments = ["serve", str(tmp_path), "--address-file", str(tmp_path / "a.json")]
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, ConfigError)
        assert f"{tmp_path / 'a.json'} is a folder" in str(result.exception)

    def test_the_addresses_of_an_earlier_server_do_not_outlive_the_start(self, app, tmp_path):
        file = tmp_path / "a.json"
        file.write_text("where nobody listens any more")
        result = CliRunner().invoke(app, ["serve", str(tmp_path), "--address-file", str(file)])
        assert isinstance(result.exception, BundleError)
        assert not file.exists()

    @pytest.mark.parametrize(
        ("options", "asked"),
        [
            ([], {}),
            (["--device=cpu", "--dtype=float16"], {"device": "cpu", "dtype": "float16"}),
            (["--tokens=100", "--cache-mb=3"], {"tokens": 100, "cache_bytes": 3 * 2**20}),
            (["--cache-mb=0", "--pairs=40"], {"cache_bytes": 0, "pairs": 40}),
            (["--compile"], {"compile": True}),
            (["--set", "limits.image.max_pixels=9"], {"limits": ImageLimits(max_pixels=9)}),
        ],
    )
    def test_the_engine_is_loaded_where_and_as_the_options_say(
        self, app, tmp_path, monkeypatch, options, asked
    ):
        manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64, inputs=Inputs())
        monkeypatch.setattr("serving.bundles.inspect_bundle", lambda folder: manifest)
        monkeypatch.setattr("serving.bundles.read_manifest", lambda folder: manifest)
        monkeypatch.setattr("serving.commands.check_ports", lambda host, ports: None)
        received = []

        defaults = {
            "device": "auto",
            "dtype": "auto",
            "pairs": "all",
            "compile": False,
            "limits": DEFAULT_LIMITS,
        }

        def load(folder, **settings):
            received.append(settings)
            raise BundleError("far enough")

        monkeypatch.setattr("prefrm.engine.open_engine", load)
        result = CliRunner().invoke(app, ["serve", str(tmp_path), *options])
        assert isinstance(result.exception, BundleError)
        assert received == [defaults | asked]

    def test_a_limit_that_is_none_is_one_line(self, app, tmp_path):
        result = CliRunner().invoke(app, ["serve", str(tmp_path), "--set", "limits.group_sise=3"])
        assert isinstance(result.exception, ConfigError)
        assert "unknown key limits.group_sise (known: image, group_size" in str(result.exception)

    def test_several_bundles_need_names(self, app, tmp_path, monkeypatch):
        manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64, inputs=Inputs())
        monkeypatch.setattr("serving.bundles.inspect_bundle", lambda folder: manifest)
        monkeypatch.setattr("serving.bundles.read_manifest", lambda folder: manifest)
        result = CliRunner().invoke(app, ["serve", str(tmp_path), str(tmp_path)])
        assert isinstance(result.exception, ConfigError)
        assert "NAME:VERSION=BUNDLE" in str(result.exception)

    def test_nothing_to_serve_is_said(self, app, tmp_path):
        result = CliRunner().invoke(app, ["serve"])
        assert isinstance(result.exception, ConfigError)
        assert "nothing to serve" in str(result.exception)
        result = CliRunner().invoke(app, ["serve", "--repository", str(tmp_path)])
        assert isinstance(result.exception, BundleError)
        assert "has no bundle" in str(result.exception)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--host="], "--host is empty"),
            (["--host=no.invalid"], r"cannot listen on no\.invalid"),
            (["--http-port={taken}"], "for http: Address already in use.*--http-port"),
            (["--grpc-port={free}", "--metrics-port={free}"], "for metrics: Address already in use"),
        ],
    )
    def test_a_port_that_cannot_be_had_is_said_before_the_judge_is_loaded(
        self, app, tmp_path, monkeypatch, options, reason
    ):
        manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64, inputs=Inputs())
        monkeypatch.setattr("serving.bundles.inspect_bundle", lambda folder: manifest)
        monkeypatch.setattr("serving.bundles.read_manifest", lambda folder: manifest)
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as probe:
            ports = {"taken": taken.getsockname()[1], "free": probe.getsockname()[1]}
            probe.close()
            any_port = [f"--{which}-port=0" for which in ("http", "grpc", "metrics")]
            given = [option.format(**ports) for option in options]
            # No bundle is there to load, which would be a BundleError.
            result = CliRunner().invoke(app, ["serve", str(tmp_path), *any_port, *given])
        assert isinstance(result.exception, ConfigError)
        assert re.search(reason, str(result.exception))

    def test_a_type_that_is_none_is_a_usage_error(self, app, tmp_path):
        result = CliRunner().invoke(app, ["serve", str(tmp_path), "--dtype=int8"])
        assert result.exit_code == 2

    def test_the_process_ends_when_its_input_does(self):
        program = "import time; from prefrm.shutdown import stop_at_end; stop_at_end(0); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as running:
            try:
                running.stdin.write(b"what is written there says nothing")
                running.stdin.flush()
                with pytest.raises(subprocess.TimeoutExpired):
                    running.wait(1)
                running.stdin.close()
                assert running.wait(20) == -signal.SIGTERM
            finally:
                running.kill()

    def test_the_process_ends_when_its_input_cannot_be_read(self):
        program = (
            "import os, time; from prefrm.shutdown import stop_at_end; "
            "stop_at_end(os.open('.', os.O_RDONLY)); time.sleep(60)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")

    def test_a_closed_input_is_one_line(self, tmp_path):
        command = f"exec '{sys.executable}' -m prefrm serve '{tmp_path}' --stop-with-stdin <&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith("prefrm: --stop-with-stdin: standard input is closed")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("port", ["-1", "99999"])
    def test_a_port_out_of_range_is_a_usage_error(self, app, tmp_path, port):
        result = CliRunner().invoke(app, ["serve", str(tmp_path), f"--http-port={port}"])
        assert result.exit_code == 2
        assert f"{'greater' if port == '-1' else 'less'} than or equal to" in result.output

    def test_the_module_is_light(self):
        program = (
            "import sys, serving.commands; "
            "print([m for m in ('torch', 'fastapi', 'grpc') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_the_entry_point_names_it(self):
        import tomllib

        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        assert project["entry-points"]["prefrm.commands"]["serve"] == "serving.commands:serve"
