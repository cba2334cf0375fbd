"""The view "Watch": its endpoints, and the page in Debian's chromium while a run writes."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prefrm.app.runs import Run
from prefrm.app.watch import charts, watch_view
from prefrm.group_log import GroupLog, LoggedGroup
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.app.browser import chromium


def image(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 40, 255 - shade)).save(buffer, format="PNG")
    return buffer.getvalue()


def redness(prompt: str, candidate: bytes | str) -> float:
    if isinstance(candidate, str):
        return float(len(candidate))
    with Image.open(io.BytesIO(candidate)) as opened:
        return float(opened.getpixel((0, 0))[0]) / 50  # type: ignore[index]


def logged(step: int, prompt: str, candidates: tuple[Any, ...], **fields: Any) -> LoggedGroup:
    group = Group(prompt=prompt, candidates=candidates, context=fields.pop("context", ()))
    (matrix,) = FakeScorer(redness).score([group])
    rates = matrix.win_rate(on_missing="drop")
    known = {"matrices": {"judge": matrix}, "rewards": {"judge": rates.tolist()}, "step": step}
    return LoggedGroup(**{"group": group, "advantages": (rates - 0.5).tolist(), **known, **fields})


SHADES = (10, 200, 90, 150)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a group whose third candidate is missing."""
    folder = tmp_path / "run"
    (folder / "groups").mkdir(parents=True)
    lines = [
        {"iteration": n, "loss": 1 / n, "eval/judge": 0.5 + n / 100, "eval/oracle": 0.9 - n / 100}
        for n in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = (*map(image, SHADES[:2]), None, image(SHADES[3]))
    GroupLog(folder / "groups").add([logged(2, "the <reddest> square", images, context=(image(0),))])
    return folder


@pytest.fixture
def client(run: Path) -> Iterator[Any]:
    fastapi = pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    application = fastapi.FastAPI()
    application.include_router(watch_view([Run(run, "a run")]).router, prefix="/api/watch")
    with TestClient(application) as client:
        yield client


def test_the_state_is_sent_when_it_has_changed(client: Any, run: Path) -> None:
    assert client.get("/api/watch/runs").json() == ["a run"]
    first = client.get("/api/watch/0/state")
    (group,) = first.json()["groups"]
    assert (group["step"], group["prompt"]) == (2, "the <reddest> square")
    again = f"/api/watch/0/state?version={first.headers['x-version']}"
    assert client.get(again).status_code == 204
    GroupLog(run / "groups").add([logged(3, "another", (image(1), image(2)))])
    assert [one["prompt"] for one in client.get(again).json()["groups"]] == [
        "another",
        "the <reddest> square",
    ]
    assert client.get("/api/watch/1/state").status_code == 404


def test_a_card_shows_the_candidates_from_the_best_on(client: Any) -> None:
    (group,) = client.get("/api/watch/0/state").json()["groups"]
    card = client.get(f"/api/watch/0/{group['id']}").text
    assert "the &lt;reddest&gt; square" in card and "<reddest>" not in card
    strip = card[card.index("<ol") : card.index("</ol>")]
    # The second is the reddest, the third is missing.
    places = re.findall(r'href="([^"]+)/(\d)"', strip)
    assert [int(place) for _, place in places] == [1, 3, 0, 2]
    assert re.findall(r"<dd>([^<]+)</dd>", strip)[-2:] == ["none", "none"]
    assert "not judged" in card.lower()

    url = places[0][0]
    whole = client.get(f"{url}/1")
    assert (whole.content, whole.headers["content-type"]) == (image(200), "image/png")
    thumbnail = client.get(f"{url}/context-0/thumbnail")
    assert thumbnail.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(thumbnail.content)) as opened:
        assert opened.size == (24, 24)
    for absent in ("2", "4", "-1", "context-1", "x"):
        assert client.get(f"{url}/{absent}").status_code == 404
    assert client.get("/api/watch/0/groups:x.0").status_code == 404


def test_texts_stand_in_the_card(client: Any, run: Path) -> None:
    GroupLog(run / "groups").add([logged(3, "why?", ("<i>because</i>", "so", None))])
    group = client.get("/api/watch/0/state").json()["groups"][0]
    card = client.get(f"/api/watch/0/{group['id']}").text
    assert "&lt;i&gt;because&lt;/i&gt;" in card and "missing" in card and "<img" not in card


def test_a_damaged_log_is_named_and_the_rest_is_shown(client: Any, run: Path) -> None:
    assert client.get("/api/watch/0/state").json()["mistake"] == ""
    damaged = run / "groups" / f"{2 * 10**18:020d}-9-1-0123abcd.parquet"
    damaged.write_bytes(b"PAR1")
    state = client.get("/api/watch/0/state").json()
    assert damaged.name in state["mistake"] and state["charts"] and len(state["groups"]) == 1


def test_curves_that_may_part_share_a_chart_and_what_stays_as_it_is_is_hidden() -> None:
    points = [(1.0, 0.1), (2.0, 0.4)]
    metrics = {
        "lr": points,
        "reward/judge": [(1.0, 0.5), (2.0, 0.5 + 1e-9)],
        "eval/judge": points,
        "eval/oracle": points,
        "train/rewards/preference/mean": points,
    }
    found = [(chart["title"], sorted(chart["series"]), chart["shown"]) for chart in charts(metrics)]
    assert found == [
        ("eval", ["judge", "oracle"], True),
        ("train/rewards/preference/mean", ["train/rewards/preference/mean"], True),
        ("lr", ["lr"], False),
        ("reward/judge", ["reward/judge"], False),
    ]


@pytest.fixture
def url(run: Path) -> Iterator[str]:
    """Of the page of `prefrm app` in a process of its own."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "prefrm", "app", "--watch", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if line.startswith("ready: ")).split()[1]
        finally:
            process.terminate()


@pytest.mark.browser
@pytest.mark.slow
def test_a_person_watches_a_run(url: str, run: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    log = GroupLog(run / "groups")
    log.add([logged(3, f"group {n}", tuple(map(image, SHADES))) for n in range(60)])
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 900})
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url) if url not in request.url else None)
        page.goto(url)
        cards = page.locator(".prefrm-watch-group")
        page.get_by_text("61 groups, the newest first").wait_for()
        page.locator(".prefrm-chart", has_text="eval").get_by_text("oracle").wait_for()
        # What is in sight is loaded, and nothing far below it.
        first = cards.first.locator("img").first
        first.wait_for()
        page.wait_for_function("image => image.naturalWidth > 0", arg=first.element_handle())
        assert cards.last.locator("img").count() == 0
        cards.last.scroll_into_view_if_needed()
        cards.last.locator(".prefrm-not-judged").wait_for()
        cards.last.locator(".prefrm-strip .prefrm-missing").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        # A new step comes without a reload, and the card that was read stays the same element.
        page.evaluate("window.kept = document.querySelector('.prefrm-watch-group:last-child')")
        log.add([logged(4, "a new step", tuple(map(image, SHADES)))])
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"iteration": 4, "loss": 0.1}\n')
        page.get_by_text("62 groups, the newest first").wait_for()
        assert page.evaluate("window.kept.isConnected")
        page.get_by_text("step 4, last change less than a minute ago").wait_for()
        page.locator("select[data-step]").select_option("4")
        page.get_by_text("1 of 62 groups").wait_for()
        assert page.locator(".prefrm-watch-group:visible h3").all_text_contents() == ["a new step"]
        page.locator("select[data-step]").select_option("")
        page.locator("[data-prompt][type=search]").fill("REDDEST")
        page.get_by_text("1 of 62 groups").wait_for()

        found = axe.Axe().run(page).response["violations"]
        assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        assert not foreign
