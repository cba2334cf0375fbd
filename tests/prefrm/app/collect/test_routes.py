"""The HTTP calls of the page, and twenty annotators that make them, ten of whom are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_recipes.registry import RECIPES
from prefrm.answers import read_answers
from prefrm.answers.annotators import assess_annotators
from prefrm.app.collect.collection import Collection
from prefrm.app.collect.queue import QueueSettings
from prefrm.app.guard import Guard
from prefrm.data import load_groups
from tests.prefrm.app.collect import simulation

pytest.importorskip("fastapi")
NEW = QueueSettings(known=0, repeats=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    RECIPES["shapes"].build(folder, train=170, validation=6, test=12)
    return folder


@pytest.fixture
def client(data: Path, tmp_path: Path) -> Iterator[Any]:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from prefrm.app.collect.routes import collect_router

    groups = load_groups(data, "validation")
    with Collection(tmp_path / "answers.sqlite", groups, settings=NEW) as collection:
        collection.list_groups()
        application = FastAPI()
        application.include_router(collect_router(collection), prefix="/api/collect")
        guard = Guard(application, None, local=True, secure=False)
        yield TestClient(guard, base_url="http://localhost", headers={"x-annotator": "ada%20l."})


def answer(question: int, **more: Any) -> dict[str, Any]:
    return {"question": question, "key": f"k{question}", "verdict": "left", "response_s": 1.5, **more}


def test_an_answer_is_on_the_disk_before_the_next_pair_is_shown(client: Any, tmp_path: Path) -> None:
    reply = client.get("/api/collect/next").json()
    assert (reply["state"], reply["pairs"], reply["by_name"]) == ("question", 0, True)
    shown = reply["question"]
    image = client.get(f"/api/collect/contents/{shown['left']}")
    assert image.headers["content-type"] == "image/png" and "immutable" in image.headers["cache-control"]
    sent = client.post("/api/collect/answers", json=answer(shown["question"])).json()
    _, (kept,) = read_answers(tmp_path / "answers.sqlite")
    assert (kept.question.annotator, kept.verdict, kept.response_s) == ("ada l.", "left", 1.5)
    assert (kept.question.left, kept.question.right) == (shown["left"], shown["right"])
    assert sent["recorded"] and sent["question"]["question"] != shown["question"] and sent["pairs"] == 1
    again = client.post("/api/collect/answers", json=answer(shown["question"])).json()
    assert not again["recorded"] and again["question"] == sent["question"]
    assert len(read_answers(tmp_path / "answers.sqlite")[1]) == 1
    conflict = client.post("/api/collect/answers", json=answer(shown["question"], key="another"))
    assert conflict.status_code == 409 and "answered before" in conflict.json()["detail"]
    assert client.get("/api/collect/next").json()["question"] == sent["question"]


@pytest.mark.parametrize(
    "body",
    [
        answer(1, verdict="both"),
        answer(1, key=""),
        answer(1, response_s=-1),
        answer(1, known=1),
        {"question": "1", "key": "k", "verdict": "left"},
        {},
    ],
)
def test_a_malformed_answer_is_refused_and_the_question_stays(client: Any, body: dict[str, Any]) -> None:
    shown = client.get("/api/collect/next").json()["question"]
    assert client.post("/api/collect/answers", json=body).status_code == 422
    assert client.get("/api/collect/next").json()["question"] == shown


def test_what_there_is_not(client: Any) -> None:
    assert client.get("/api/collect/contents/absent").status_code == 404
    assert client.get("/api/collect/routes.py").status_code == 404
    assert client.get("/api/collect/next", headers={"x-annotator": " "}).status_code == 422
    assert client.post("/api/collect/answers", json=answer(99)).status_code == 409


def test_an_annotator_is_told_nothing_about_why_a_pair_is_shown(client: Any) -> None:
    question = client.get("/api/collect/next").json()["question"]
    assert question.keys() == {"question", "prompt", "criterion", "kind", "context", "left", "right"}


def run(*arguments: object, **more: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    return subprocess.Popen(
        [sys.executable, simulation.__file__, *map(str, arguments)], env=environment, **more
    )


def start_server(answers: Path, data: Path, port: int) -> "subprocess.Popen[bytes]":
    server = run("serve", answers, data, port, stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline() == b"ready\n"
    return server


@pytest.mark.slow
def test_twenty_annotators_ten_of_whom_are_killed_lose_and_double_nothing(data: Path, tmp_path: Path) -> None:
    """1,000 pairs to two people each. Five are killed before they send an answer, five after, and come back;
    the server is killed, too, in the middle of everything."""
    answers, port = tmp_path / "answers.sqlite", _free_port()
    names = [f"a{n:02d}" for n in range(20)]
    server = start_server(answers, data, port)
    url = f"http://127.0.0.1:{port}"
    deaths = {n: ("before" if n % 2 else "after", 5 + 3 * n) for n in range(1, 11)}
    try:
        running = {
            name: run("annotate", url, name, tmp_path, *deaths.get(n, ())) for n, name in enumerate(names)
        }
        for n in deaths:
            assert running[names[n]].wait(timeout=200) == -signal.SIGKILL
            assert len(list(tmp_path.glob("*.pending"))) > 0
        server.kill()
        server.wait()
        server = start_server(answers, data, port)
        for n in deaths:
            running[names[n]] = run("annotate", url, names[n], tmp_path)
        assert [process.wait(timeout=250) for process in running.values()] == [0] * 20
    finally:
        for process in (server, *running.values()):
            process.kill()
            process.wait()
    _, kept = read_answers(answers)
    # What every annotator was told is kept is what is kept, and nothing else.
    told = {line["key"]: line for name in names for line in _lines(tmp_path / f"{name}.jsonl")}
    by_question = {answer.question.id: answer for answer in kept}
    assert len(told) == len(kept) == len(by_question)
    for line in told.values():
        answer = by_question[line["question"]]
        assert (answer.verdict, answer.response_s) == (line["verdict"], simulation.SECONDS)
    new = [answer.question for answer in kept if answer.question.purpose == "new"]
    shown = Counter(question.pair for question in new)
    groups = load_groups(data, "train")
    pairs = sum(len(set(g.candidates)) * (len(set(g.candidates)) - 1) // 2 for g in groups)
    assert len(shown) == pairs > 900 and set(shown.values()) == {2}
    assert len({(question.pair, question.annotator) for question in new}) == len(new)
    assert len(kept) > 2000
    # Those whose names end in 0 toss a coin.
    assert {r.name for r in assess_annotators(kept) if r.unreliable} <= {"a00", "a10"}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
