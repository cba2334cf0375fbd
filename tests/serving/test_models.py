"""Several models in one server: names, versions, loading and unloading, on both wires."""

import asyncio
import threading
import time

import httpx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from prefrm.client import connect
from prefrm.errors import BundleError, ConfigError, RequestError
from prefrm.protocol import encode_groups
from prefrm.winmatrix import FakeScorer, Group
from serving.dataplane import DataPlane
from serving.errors import ExpiredError, FailedError, InvalidRequestError, UnknownModelError, UnsupportedError
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.metrics import Metrics
from serving.observing.requests import Request
from serving.running import background
from serving.server import Server

CLIENTS = {"grpc": triton_grpc, "http": triton_http}


def model(name: str, version: str, bonus: float) -> LoadedModel:
    """A judge whose utilities grow with its bonus."""
    scorer = FakeScorer(lambda prompt, image: bonus * (sum(image) % 101) / 20)
    return LoadedModel(info=ModelInfo(name=name, version=version), scorer=scorer)


class Shelf:
    """What can be loaded; a loading makes models of another bonus each time."""

    def __init__(self) -> None:
        self.loads: dict[str, int] = {}

    def load(self, name: str) -> list[LoadedModel]:
        if name not in ("a", "b"):
            raise BundleError(f"there is no bundle {name!r}")
        self.loads[name] = self.loads.get(name, 0) + 1
        return [model(name, version, self.loads[name] * 0.1) for version in ("1", "3")]


def plane(models: list[LoadedModel], loader=None, **limits) -> DataPlane:
    made, metrics = Limits(**limits), Metrics()
    return DataPlane(ModelRepository(models, made, metrics, loader), made, metrics)


def inputs(module, group):
    return [
        module.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)
        for name, array in encode_groups([group]).items()
    ]


@pytest.mark.parametrize("wire", CLIENTS)
def test_versions_and_loading_through_the_stock_client(wire, png):
    shown = Group(prompt="p", candidates=(png(10), png(200)))
    models = [model("a", "1", 0.1), model("a", "10", 0.2), model("a", "9", 0.3), model("b", "1", 0.4)]
    with background(Server(plane(models, Shelf().load))) as served:
        client = CLIENTS[wire].InferenceServerClient(getattr(served, wire))
        index = [
            (row["name"], row["version"], row["state"])
            for row in (
                client.get_model_repository_index()
                if wire == "http"
                else client.get_model_repository_index(as_json=True)["models"]
            )
        ]
        assert index == [("a", "1", "READY"), ("a", "9", "READY"), ("a", "10", "READY"), ("b", "1", "READY")]

        def win(version: str = "") -> float:
            tensors = inputs(CLIENTS[wire], shown)
            return float(client.infer("a", tensors, model_version=version).as_numpy("win_matrix")[0, 0, 1])

        assert win() == win("10")
        assert len({win("1"), win("9"), win("10")}) == 3
        client.load_model("a")
        with pytest.raises(InferenceServerException, match="unknown model: 'a' version 9 is not found"):
            win("9")
        assert win() == win("3")
        client.unload_model("a")
        assert not client.is_model_ready("a")
        assert client.is_model_ready("b")
        with pytest.raises(InferenceServerException, match="unknown model: 'a' has no available versions"):
            win()
        client.load_model("a")
        assert client.is_model_ready("a")
        with pytest.raises(InferenceServerException, match="there is no bundle 'c'"):
            client.load_model("c")
        client.close()


@pytest.mark.slow
def test_no_request_is_dropped_while_models_come_and_go(png):
    shelf = Shelf()
    shown = Group(prompt="p", candidates=(png(10), png(200)))
    served = background(Server(plane(shelf.load("a"), shelf.load)))
    failures, answers, stop = [], [], threading.Event()

    def ask(url: str) -> None:
        with connect(url) as judge:
            while not stop.is_set():
                try:
                    answers.append(judge.score([shown]))
                except Exception as error:
                    failures.append(error)

    with served as addresses:
        threads = [threading.Thread(target=ask, args=(addresses.grpc_url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        with triton_grpc.InferenceServerClient(addresses.grpc) as client:
            for _ in range(8):
                client.load_model("a")
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len({float(answer[0].p[0, 1]) for answer in answers}) > 2
        with connect(addresses.grpc_url.replace("/a", "/nobody")) as judge, pytest.raises(RequestError):
            judge.score([shown])


def test_a_model_that_leaves_answers_those_it_has(gated, png):
    shown = Group(prompt="p", candidates=(png(1), png(2)))

    async def main():
        info = ModelInfo(name="a")
        served = plane([LoadedModel(info=info, scorer=gated)], Shelf().load)
        served.start()
        answer = asyncio.ensure_future(served.score("a", "", [shown], None, Request(wire="http")))
        while not gated.calls:
            await asyncio.sleep(0.01)
        await served.models.unload("a")
        assert served.repository_index() == [
            {"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
        ]
        gated.gate.set()
        assert len(await answer) == 1
        await served.drain()

    asyncio.run(main())


def test_a_loading_that_fails_leaves_what_was_served():
    async def main():
        served = plane([model("c", "1", 0.1)], Shelf().load)
        served.start()
        with pytest.raises(InvalidRequestError, match="failed to load 'c': there is no bundle 'c'"):
            await served.models.load("c")
        assert served.model_ready("c", "")
        with pytest.raises(InvalidRequestError, match="failed to unload 'd'"):
            await served.models.unload("d")
        await served.drain()

    asyncio.run(main())


def test_without_a_loader_nothing_comes_or_goes():
    async def main():
        served = plane([model("c", "1", 0.1)])
        for call in (served.models.load, served.models.unload):
            with pytest.raises(UnsupportedError, match="--model-control"):
                await call("c")

    asyncio.run(main())


def test_two_models_of_one_name_and_version_are_refused():
    with pytest.raises(ConfigError, match="two models are called 'a', version 1"):
        plane([model("a", "1", 0.1), model("a", "1", 0.2)])


@pytest.mark.parametrize(("name", "version"), [("a/b", "1"), ("", "1"), ("a", "0"), ("a", "x"), ("a", "01")])
def test_names_and_versions_fit_into_a_url(name, version):
    with pytest.raises(ConfigError):
        ModelInfo(name=name, version=version)


def test_a_served_model_is_batched_by_its_own_estimate_of_cost(png):
    class Costly(FakeScorer):
        def cost(self, group: Group) -> int:
            return 700

    scorer = Costly(lambda prompt, image: len(image) / 100)
    served = plane([LoadedModel(info=ModelInfo(name="costly"), scorer=scorer)])

    async def main() -> Request:
        served.start()
        record = Request(wire="grpc")
        await served.score("costly", "", [Group(prompt="p", candidates=(png(1), png(2)))] * 2, None, record)
        await served.drain()
        return record

    assert asyncio.run(main()).cost == 1400


def test_a_replaced_model_answers_all_it_has_accepted_however_long_that_takes(png):
    """The bound on the server's end is none on a model's."""

    class Slow:
        def score(self, groups):
            time.sleep(0.1 * len(groups))
            return FakeScorer(lambda prompt, image: 0.0).score(groups)

    async def main():
        info = ModelInfo(name="a")
        served = plane([LoadedModel(info=info, scorer=Slow())], Shelf().load, drain_s=0.1, batch_cost=2)
        served.start()
        shown = Group(prompt="p", candidates=(png(1), png(2)))
        answers = [
            asyncio.ensure_future(served.score("a", "", [shown], None, Request(wire="http")))
            for _ in range(6)
        ]
        await asyncio.sleep(0.05)
        await served.models.load("a")
        assert [len(answer) for answer in await asyncio.gather(*answers)] == [1] * 6
        await served.drain()

    asyncio.run(main())


def test_a_loading_whose_client_left_goes_on_alone():
    running, most = [], []

    def load(name: str) -> list[LoadedModel]:
        running.append(name)
        most.append(len(running))
        time.sleep(0.1)
        running.remove(name)
        return [model(name, "2", 0.1)]

    async def main():
        served = plane([model("a", "1", 0.1)], load)
        served.start()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(served.models.load("a"), 0.02)
        await served.models.load("a")
        assert served.models.get("a").info.version == "2"
        await served.drain()

    asyncio.run(main())
    assert max(most) == 1


def test_a_loader_that_crashes_is_a_failure_and_no_more(caplog):
    def load(name: str) -> list[LoadedModel]:
        raise MemoryError("no room")

    async def main():
        served = plane([model("a", "1", 0.1)], load)
        served.start()
        with pytest.raises(FailedError, match="failed to load 'a': MemoryError"):
            await served.models.load("a")
        assert served.model_ready("a", "")
        await served.drain()

    asyncio.run(main())


def test_a_loading_that_hangs_is_given_up_and_holds_up_nothing_else():
    gate = threading.Event()

    def load(name: str) -> list[LoadedModel]:
        if name == "stuck":
            gate.wait(20)
        return [model(name, "2", 0.1)]

    async def main():
        served = plane([model("a", "1", 0.1)], load, load_s=0.1)
        served.start()
        with pytest.raises(ExpiredError, match=r"failed to load 'stuck': it takes longer than load_s=0\.1 s"):
            await served.models.load("stuck")
        with pytest.raises(FailedError, match="an earlier attempt still hangs"):
            await served.models.load("stuck")
        await served.models.load("a")
        assert served.models.get("a").info.version == "2"
        await served.drain()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 5
    gate.set()


def test_why_a_loading_failed_is_one_short_line():
    def load(name: str) -> list[LoadedModel]:
        raise BundleError("\x1b[31mred\nlines" + "x" * 10_000)

    async def main():
        served = plane([model("a", "1", 0.1)], load)
        served.start()
        with pytest.raises(InvalidRequestError) as caught:
            await served.models.load("a")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600
        await served.drain()

    asyncio.run(main())


def test_no_version_is_0():
    served = plane([model("a", "1", 0.1)])
    with pytest.raises(UnknownModelError, match="unknown model: 'a' version 0 is not found"):
        served.models.get("a", "0")
    assert served.models.get("a", "01").info.version == "1"


def test_a_server_stops_though_a_model_is_being_loaded():
    begun, over = threading.Event(), threading.Event()
    answers = []

    def load(name):
        begun.set()
        over.wait(20)
        return [model(name, "1", 0.1)]

    with background(Server(plane([model("a", "1", 0.1)], load))) as served:
        url = f"http://{served.http}/v2/repository/models/b/load"
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30)))
        asking.start()
        assert begun.wait(20)
        started = time.monotonic()
    seconds = time.monotonic() - started
    over.set()
    asking.join()
    assert seconds < 10
    assert [answer.status_code for answer in answers] == [503]
    assert answers[0].json() == {"error": "the server stopped before it loaded 'b'"}
