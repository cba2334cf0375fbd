"""The page in a browser: a person compares pairs with keys and buttons, offline for a moment, on a phone."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_recipes.registry import RECIPES
from prefrm.answers import Answer, read_answers
from prefrm.app.collect.collection import Collection
from prefrm.app.collect.queue import QueueSettings
from prefrm.app.guard import Guard
from prefrm.data import load_groups
from tests.prefrm.app.browser import chromium

uvicorn = pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.browser, pytest.mark.slow]
READY = "[data-verdict=left]:enabled"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of images, of texts about an image, and of videos."""
    folder = tmp_path_factory.mktemp("data")
    for recipe in ("shapes", "shapes-questions", "shapes-clips"):
        RECIPES[recipe].build(folder / recipe, train=6, validation=6, test=6)
    return folder


class Server:
    """A collection that is served in a thread."""

    def __init__(self, answers: Path, data: Path, **settings: Any) -> None:
        from fastapi import FastAPI

        from prefrm.app.collect.routes import collect_router

        self.path = answers
        self.collection = Collection(
            answers,
            load_groups(data, "train"),
            settings=QueueSettings(known=0, repeats=0, **settings),
            criterion="style",
        )
        self.collection.list_groups()
        application = FastAPI()
        application.include_router(collect_router(self.collection), prefix="/api/collect")
        guard = Guard(application, None, local=True, secure=False)
        self._server = uvicorn.Server(uvicorn.Config(guard, port=0, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://localhost:{port}/api/collect/page.html"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.collection.close()

    def answers(self) -> list[Answer]:
        return read_answers(self.path)[1]


@pytest.fixture
def serve(data: Path, tmp_path: Path) -> Iterator[Any]:
    servers = []

    def start(recipe: str = "shapes", **settings: Any) -> Server:
        servers.append(Server(tmp_path / f"{recipe}.sqlite", data / recipe, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may ask no other server, and whose scripts have no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened, problems = context.new_page(), []
    opened.set_default_timeout(WAIT_MS)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: problems.append(r.url) if "//localhost:" not in r.url else None)
    yield opened
    context.close()
    assert problems == []


def answered(page: Any, server: Server, count: int) -> list[Answer]:
    """Wait until so many answers are kept and the next question is there."""
    for _ in range(600):
        if len(server.answers()) == count:
            page.wait_for_selector(READY)
            return server.answers()
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(server.answers())} answers, not {count}")


def test_keys_and_buttons_answer_and_the_time_between_is_kept(serve: Any, page: Any) -> None:
    server = serve()
    page.goto(server.url)
    page.wait_for_selector(READY)
    assert page.locator("h1:visible").inner_text() and "style" in page.locator(".by").inner_text()
    assert page.locator(".stage img").count() == 2
    for count, (key, verdict) in enumerate(
        [
            ("ArrowLeft", "left"),
            ("ArrowRight", "right"),
            ("ArrowUp", "tie"),
            ("ArrowDown", "both_bad"),
            ("s", "skip"),
        ],
        start=1,
    ):
        page.wait_for_timeout(300)
        page.keyboard.press(key)
        latest = answered(page, server, count)[-1]
        assert latest.verdict == verdict and latest.question.annotator == "me"
        assert 0.2 < latest.response_s <= latest.answered_at - latest.question.asked_at
    for count, verdict in enumerate(["left", "right", "tie", "both_bad", "skip"], start=6):
        page.click(f"[data-verdict={verdict}]")
        assert answered(page, server, count)[-1].verdict == verdict
    left = page.locator(".stage img").first.get_attribute("src")
    assert left.rsplit("/", 1)[1] == server.collection.next("me").left
    assert "8 of" in page.locator("[data-count]").inner_text()


def test_an_answer_that_could_not_be_sent_is_sent_once_after_the_page_is_opened_again(
    serve: Any, page: Any
) -> None:
    """The first reply is lost on its way, and then the page is closed: the same key is sent again."""
    server, keys = serve(), []

    def lose(route: Any) -> None:
        keys.append(route.request.post_data_json["key"])
        route.fetch()
        route.abort()

    page.goto(server.url)
    page.wait_for_selector(READY)
    page.route("**/answers", lose)
    page.keyboard.press("ArrowLeft")
    page.get_by_role("alert").filter(has_text="cannot be reached").wait_for()
    page.unroute("**/answers")
    page.on("request", lambda r: keys.append(r.post_data_json["key"]) if r.method == "POST" else None)
    page.reload()
    page.wait_for_selector(READY)
    assert len(server.answers()) == 1 and len(keys) >= 2 and len(set(keys)) == 1


def test_a_key_that_is_held_down_answers_once(serve: Any, page: Any) -> None:
    server = serve()
    page.goto(server.url)
    page.wait_for_selector(READY)
    page.keyboard.down("ArrowLeft")
    for _ in range(20):
        page.keyboard.down("ArrowLeft")
        page.wait_for_timeout(20)
    assert len(answered(page, server, 1)) == 1


def test_no_time_is_kept_if_the_page_was_hidden(serve: Any, page: Any) -> None:
    server = serve()
    page.goto(server.url)
    page.wait_for_selector(READY)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
        "document.dispatchEvent(new Event('visibilitychange')); delete document.hidden"
    )
    page.keyboard.press("ArrowLeft")
    assert answered(page, server, 1)[0].response_s is None


def test_the_end_and_somebody_else_by_name(serve: Any, page: Any) -> None:
    """The last pair of one person; then another person, whom the same pairs wait for."""
    server = serve(annotators=2)
    total = server.collection.progress().of_pairs
    for n in range(total - 1):
        shown = server.collection.next("me")
        server.collection.answer("me", shown.question, key=str(n), verdict="tie", response_s=None)
    page.goto(server.url)
    page.wait_for_selector(READY)
    page.keyboard.press("ArrowLeft")
    page.get_by_text("All done").wait_for()
    assert len(server.answers()) == total
    page.fill("header input", "ben")
    page.keyboard.press("Tab")
    page.wait_for_selector(READY)
    page.keyboard.press("ArrowLeft")
    assert answered(page, server, total + 1)[-1].question.annotator == "ben"
    page.reload()
    assert page.locator("header input").input_value() == "ben"


@pytest.mark.parametrize(("recipe", "shown"), [("shapes-questions", "pre"), ("shapes-clips", "video")])
def test_texts_about_an_image_and_videos(serve: Any, page: Any, recipe: str, shown: str) -> None:
    server = serve(recipe)
    page.goto(server.url)
    page.wait_for_selector(READY)
    assert page.locator(f".stage {shown}").count() == 2
    assert page.locator(".context img:visible").count() == (recipe == "shapes-questions")
    if shown == "pre":
        question = server.collection.next("me")
        assert page.locator(".stage pre").first.inner_text() == server.collection.content(question.left)
    page.keyboard.press("ArrowRight")
    assert answered(page, server, 1)[0].verdict == "right"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_serious_fault_of_accessibility_and_nothing_to_scroll(
    serve: Any, browser: Any, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    server = serve()
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector(READY)
    found = axe.run(page).response["violations"]
    assert [(v["id"], v["impact"]) for v in found if v["impact"] in ("serious", "critical")] == []
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [width, 800]
    context.close()
