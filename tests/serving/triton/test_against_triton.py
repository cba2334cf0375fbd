"""The same calls to NVIDIA's Triton and to prefrm's server: alike, or different in a way that has a name.

Triton serves an export of the bundle that prefrm serves. Statuses and payloads are compared, not the texts of
errors.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from prefrm.bundle import MANIFEST, read_manifest
from prefrm.client import connect, connect_async
from prefrm.winmatrix import Group
from serving.bundles import BundleShelf, EngineOptions
from serving.dataplane import DataPlane
from serving.limits import Limits
from serving.models import ModelRepository
from serving.observing.metrics import Metrics
from serving.running import background
from serving.server import Server
from serving.triton.model import BUNDLE_FOLDER
from serving.triton.repository import write_repository
from tests.serving.triton import calls_http, calls_inference, calls_server, calls_stream
from tests.serving.triton.calls_control import STEPS
from tests.serving.triton.conftest import KINDS, noise
from tests.serving.triton.differences import DIFFERENCES
from tests.serving.triton.registry import CALLS, Call
from tests.serving.triton.servers import TRITON, Addresses, triton
from tests.serving.triton.wire import TOLERANCE, Answer, Wire, ask, difference

assert calls_http and calls_inference and calls_server and calls_stream  # Importing them registers the calls.

pytestmark = [
    pytest.mark.triton,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TRITON / "venv").is_dir(),
        reason=f"no Triton in {TRITON}: `make test-triton` puts it there where it can run",
    ),
]
Wires = Callable[[str], Wire]


@pytest.fixture(scope="module")
def bundles(bundle: Path, kinds_of_bundles: dict[str, Path]) -> dict[str, Path]:
    """By the name of the model: `judge` of images, one of each of `KINDS`, `second` and `broken`."""
    return kinds_of_bundles | dict.fromkeys(("judge", "second", "broken"), bundle)


@pytest.fixture(scope="module")
def real(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A Triton that serves an export of each bundle, and could load `second` and `broken`."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    repository.mkdir()
    for name, bundle in bundles.items():
        write_repository(bundle, folder / name, name=name)
        (folder / name / name).rename(repository / name)
    (repository / "broken" / "1" / BUNDLE_FOLDER / MANIFEST).unlink()
    with triton(repository, folder / "log", "judge", *KINDS) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def ours(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """prefrm's server with the same models, in this process."""
    repository = tmp_path_factory.mktemp("repository")
    for name, bundle in bundles.items():
        shutil.copytree(bundle, repository / name)
    (repository / "broken" / "head.safetensors").unlink()
    shelf = BundleShelf([], repository, EngineOptions(device="cpu"))
    limits, metrics = Limits(), Metrics()
    loaded = [model for name in ("judge", *KINDS) for model in shelf.load(name)]
    models = ModelRepository(loaded, limits, metrics, shelf.load)
    with background(Server(DataPlane(models, limits, metrics))) as addresses:
        yield Addresses(http=addresses.http, grpc=addresses.grpc)


def wires(addresses: Addresses, held: ExitStack) -> Wires:
    made: dict[str, Wire] = {}

    def of(kind: str) -> Wire:
        if kind not in made:
            made[kind] = Wire(kind, addresses)
            held.callback(made[kind].close)
        return made[kind]

    return of


@pytest.fixture(scope="module")
def both(real: Addresses, ours: Addresses) -> Iterator[tuple[Wires, Wires]]:
    with ExitStack() as held:
        yield wires(real, held), wires(ours, held)


Answers = tuple[Answer, Answer]


def check(call: Call, answers: Answers) -> None:
    """Triton's answer and prefrm's are alike, or differ as the table says."""
    found = difference(*answers)
    names = {call.name, f"{call.kind}:{call.name}"}
    entries = [entry for entry in DIFFERENCES if names & set(entry.calls)]
    if not entries:
        assert not found
        return
    (entry,) = entries
    assert found, f"{entry.what}: they agree now; strike the difference off"
    assert tuple(answer.status for answer in answers) == (entry.triton, entry.ours)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_both_answer_alike_or_differ_as_named(call: Call, both: tuple[Wires, Wires]) -> None:
    theirs, own = (ask(call.ask, wire(call.kind)) for wire in both)
    check(call, (theirs, own))


@pytest.fixture(scope="module")
def steps(both: tuple[Wires, Wires]) -> dict[str, Answers]:
    """What each step of `calls_control` came to, taken in their order."""
    return {
        str(step): (ask(step.ask, both[0](step.kind)), ask(step.ask, both[1](step.kind))) for step in STEPS
    }


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_loading_and_unloading_are_alike_or_differ_as_named(step: Call, steps: dict[str, Answers]) -> None:
    check(step, steps[str(step)])


@pytest.mark.parametrize("model", ["judge", "edit"])
def test_groups_of_all_sizes_share_batches_and_agree(real: Addresses, ours: Addresses, model: str) -> None:
    """Of edits, every other group has a context and a criterion, inputs of its own request alone."""
    groups = [
        Group(
            prompt="p" * n,
            candidates=tuple(noise(k) for k in range(n, 2 * n + 2)),
            context=(noise(n),) * (model == "edit" and n % 2),
            criterion="hue" * (model == "edit" and n % 2),
        )
        for n in range(1, 6)
    ] * 6
    urls = [f"grpc://{addresses.grpc}/{model}" for addresses in (real, ours)]

    async def at_once(url: str):
        async with connect_async(url) as judge:
            return await asyncio.gather(*(judge.score([group]) for group in groups))

    with closing(Wire("http", real)) as statistics:
        before = counts(statistics, model)
        theirs, own = (asyncio.run(at_once(url)) for url in urls)
        after = counts(statistics, model)
    for (one,), (other,) in zip(theirs, own, strict=True):
        assert abs(one.p - other.p).max() <= TOLERANCE
        assert abs(one.order_gap - other.order_gap).max() <= TOLERANCE
    groups_scored, executions = (now - then for now, then in zip(after, before, strict=True))
    assert groups_scored == len(groups)
    assert executions < len(groups) / 2, "Triton's batches hold one size each"


def test_a_client_knows_the_judge_again_behind_triton(real: Addresses, ours: Addresses, bundle: Path) -> None:
    for url in (f"grpc://{real.grpc}/judge", f"http://{real.http}/judge", f"grpc://{ours.grpc}/judge"):
        with connect(url) as judge:
            assert judge.identity() == read_manifest(bundle).digest


def counts(wire: Wire, model: str) -> tuple[int, int]:
    (found,) = wire.call("get_inference_statistics", model)["model_stats"]
    return found["inference_count"], found["execution_count"]
