"""A server of a collection and annotators that call it, each a process that a test may kill.

    python simulation.py serve ANSWERS DATA PORT          a server, which prints "ready"
    python simulation.py annotate URL NAME FOLDER [DIE]   an annotator; DIE is "before" or "after" and a
    number

An annotator does as the page does: an answer is written down with its idempotency key, sent until there
is a reply, and crossed out. One that dies does so at its n-th answer, before or after the request is sent.
"""

import hashlib
import http.client
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

SETTINGS = {"annotators": 2, "known": 0.05, "repeats": 0.05}
SECONDS = 1.25


def serve(answers: str, data: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI

    from prefrm.app.collect.collection import Collection
    from prefrm.app.collect.queue import QueueSettings
    from prefrm.app.collect.routes import collect_router
    from prefrm.app.guard import Guard
    from prefrm.data import load_groups

    collection = Collection(
        answers,
        load_groups(data, "train"),
        settings=QueueSettings(**SETTINGS),
        known=load_groups(data, "test"),
    )
    collection.list_groups()
    application = FastAPI()
    application.include_router(collect_router(collection), prefix="/api/collect")
    print("ready", flush=True)
    uvicorn.run(
        Guard(application, None, local=True, secure=False), port=port, log_level="warning", access_log=False
    )


def verdict_of(name: str, left: str, right: str) -> str:
    """An annotator's own, whichever stands left: most agree, and say "tie" or "skip" now and then."""
    first, second = sorted((left, right))
    number = hashlib.sha256(f"{first} {second}".encode()).digest()[0]
    if name.endswith("0"):
        number = hashlib.sha256(f"{name} {first} {second} {secrets.token_hex(4)}".encode()).digest()[0]
    if number < 16:
        return "tie"
    return "left" if (left == first) == (number % 2 == 0) else "right"


def annotate(url: str, name: str, folder: Path, die: str = "", number: int = 0) -> None:
    """Answer until nothing is left; one line in `NAME.jsonl` for each reply."""
    client, count = _Client(url, name), 0
    pending, log = folder / f"{name}.pending", folder / f"{name}.jsonl"
    while True:
        if pending.exists():
            body = json.loads(pending.read_text())
            reply = client.call("POST", "/api/collect/answers", body)
            _append(log, {**body, "recorded": reply["recorded"]})
            pending.unlink()
        else:
            reply = client.call("GET", "/api/collect/next")
        while reply["state"] == "question":
            question = reply["question"]
            verdict = verdict_of(name, question["left"], question["right"])
            key = secrets.token_hex(8)
            body = {"question": question["question"], "key": key, "verdict": verdict, "response_s": SECONDS}
            pending.write_text(json.dumps(body))
            count += 1
            if (die, count) == ("before", number):
                os.kill(os.getpid(), signal.SIGKILL)
            if (die, count) == ("after", number):
                client.send("POST", "/api/collect/answers", body)
                os.kill(os.getpid(), signal.SIGKILL)
            reply = client.call("POST", "/api/collect/answers", body)
            _append(log, {**body, "recorded": reply["recorded"]})
            pending.unlink()
        if reply["state"] == "done":
            return
        time.sleep(0.2)


class _Client:
    """Repeats a request, unchanged, until there is a reply."""

    def __init__(self, url: str, name: str) -> None:
        self._host, self._name = urlsplit(url).netloc, name
        self._connection = http.client.HTTPConnection(self._host, timeout=30)

    def send(self, method: str, path: str, body: object = None) -> None:
        headers = {"x-annotator": self._name, "content-type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)

    def call(self, method: str, path: str, body: object = None) -> dict:
        while True:
            try:
                self.send(method, path, body)
                reply = self._connection.getresponse()
                content = reply.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                time.sleep(0.1)
                continue
            if reply.status != 200:
                raise RuntimeError(f"{method} {path}: {reply.status} {content!r}")
            return json.loads(content)


def _append(log: Path, line: object) -> None:
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(arguments[0], arguments[1], int(arguments[2]))
    else:
        url, name, folder, *death = arguments
        annotate(url, name, Path(folder), *(death[:1]), *map(int, death[1:]))
