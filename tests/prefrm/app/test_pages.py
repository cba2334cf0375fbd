"""The views Try and Audit of `prefrm app` in a browser, with an untrained judge of every part."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from data_recipes.registry import get_recipe
from prefrm.records import read_groups
from prefrm.winmatrix import Group, TrainingInputs
from tests.prefrm.app.browser import chromium, faults, is_as_wide_as_the_screen, opened_page, served

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = [pytest.mark.browser, pytest.mark.slow]
PASTE = """files => {
  const transfer = new DataTransfer();
  for (const {name, bytes} of files)
    transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def bundles(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two judges that differ by their heads, which no training has touched."""
    from prefrm.bundle import write_bundle
    from prefrm.judge import Judge, JudgeSpec

    folder, made = tmp_path_factory.mktemp("judges"), []
    for head, template in (("verdict", "match-late-v1"), ("scalar", "fit-alone-v1")):
        judge = Judge.from_base(
            JudgeSpec(base_model=str(tiny_checkpoint), head=head, template=template), "cpu"
        )
        card = {"data_fingerprint": "f" * 64, "metrics": {}, "card": "# A judge\n"}
        trained = TrainingInputs.of(1, "hue")
        write_bundle(folder / head, judge, calibration=None, training_inputs=trained, **card)
        made.append(folder / head)
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    get_recipe("shapes").build(folder, train=6, validation=6, test=6)
    return folder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def url(bundles: list[Path], data: Path, state: Path) -> Iterator[str]:
    names = [f"{path.name}={path}" for path in bundles]
    with served(*names, "--data", str(data), "--state", str(state)) as found:
        yield found


@pytest.fixture(scope="module")
def images(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four candidates of a prompt, and a file that is none."""
    group = next(read_groups(data, "test"))
    folder = tmp_path_factory.mktemp("images")
    for n, candidate in enumerate((*group.candidates, b"no image")):
        (folder / f"shape{n}.png").write_bytes(candidate)  # type: ignore[arg-type]
    return sorted(folder.iterdir())


def test_a_group_is_pasted_dropped_compared_and_found_again_by_its_link(
    browser: Any, url: str, images: list[Path], bundles: list[Path]
) -> None:
    with opened_page(browser) as page:
        page.goto(url)
        page.get_by_role("heading", name="Try").wait_for()
        page.get_by_label("Prompt").fill("a red circle")
        pasted = [{"name": path.name, "bytes": list(path.read_bytes())} for path in images[:2]]
        page.locator("#prefrm-candidates input[type=file]").wait_for(state="attached")
        page.evaluate(PASTE, pasted)
        thumbnails = page.locator("#prefrm-candidates .grid-container img")
        thumbnails.nth(1).wait_for()
        page.locator("#prefrm-candidates input[type=file]").set_input_files(images[2:])
        thumbnails.nth(len(images) - 2).wait_for()
        page.keyboard.press("Control+Enter")
        table = page.locator(".prefrm-matrix")
        table.wait_for()
        page.wait_for_url(re.compile(r"\?trial="))
        link, numbers = page.url, table.locator("td").all_inner_texts()
        name = link.partition("trial=")[2]
        assert page.get_by_text("shape4: ").count() == 1 and page.locator("td.prefrm-missing").count() == 8
        assert faults(page) == []

    found = httpx.get(f"{url}api/try/{name}.json").json()
    from prefrm.engine import open_engine

    group = Group(prompt="a red circle", candidates=tuple(path.read_bytes() for path in images))
    (matrix,) = open_engine(bundles[0]).score([group])
    answer = found["judges"]["verdict"]
    assert np.array_equal(np.array(answer["win_matrix"], np.float32), matrix.p, equal_nan=True)
    assert answer["errors"][-1] == matrix.errors[-1] != ""
    assert found["candidates"] == [path.stem for path in images]
    assert httpx.get(f"{url}api/try/{name}/0.png").content.startswith(b"\x89PNG")

    with opened_page(browser, 390, dark=True) as page:
        page.goto(link)
        page.locator(".prefrm-matrix").wait_for()
        assert page.locator(".prefrm-matrix td").all_inner_texts() == numbers
        assert page.get_by_label("Prompt").input_value() == "a red circle"
        page.locator("#prefrm-candidates .grid-container img").nth(len(images) - 2).wait_for()
        assert is_as_wide_as_the_screen(page) and faults(page) == []


def test_two_judges_stand_side_by_side(browser: Any, url: str, images: list[Path]) -> None:
    with opened_page(browser, dark=True) as page:
        page.goto(url)
        page.get_by_label("Prompt").fill("a red circle")
        page.locator("#prefrm-candidates input[type=file]").set_input_files(images[:3])
        page.locator("#prefrm-candidates .grid-container img").nth(2).wait_for()
        page.get_by_label("Beside it").click()
        page.get_by_role("option", name="scalar").click()
        known = "trained with 1 context image and criterion 'hue'"
        page.get_by_text(f"ready; reads images; scalar: {known}", exact=True).wait_for()
        page.get_by_role("button", name="Compare").click()
        page.locator(".prefrm-matrix").nth(1).wait_for()
        assert page.locator(".prefrm-card h2").all_inner_texts() == ["verdict", "scalar"]
        assert "of 3 pairs" in page.get_by_label("the two judges").inner_text()
        assert faults(page) == []


def test_what_is_missing_is_said(browser: Any, url: str, images: list[Path]) -> None:
    with opened_page(browser) as page:
        page.goto(url)
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("the prompt is empty").wait_for()
        page.get_by_label("Prompt").fill("a red circle")
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("give two candidates or more").wait_for()
        page.goto(f"{url}?trial={'0' * 20}")
        page.get_by_text("there is no trial").wait_for()


def test_findings_of_an_audit_are_kept_and_labels_corrected(
    browser: Any, url: str, data: Path, state: Path
) -> None:
    before = (data / "test.parquet").read_bytes()
    with opened_page(browser) as page:
        page.goto(f"{url}audit")
        page.get_by_role("button", name="Audit").click()
        page.get_by_text("judged: 6 of 6 groups").wait_for()
        finding = page.locator(".prefrm-finding").first
        finding.get_by_label("note").fill("look again")
        finding.get_by_role("button", name="Keep").click()
        finding.get_by_text("kept in findings.csv").wait_for()
        finding.get_by_role("button", name="tie").click()
        finding.get_by_text("written to corrections.csv").wait_for()
        record = finding.get_attribute("aria-label")
        assert faults(page) == []
        page.get_by_label("Order gaps").check()
        page.get_by_text("with the presentation order").first.wait_for()
        # The state is there after a reload as well.
        page.reload()
        pressed = page.locator(".prefrm-finding [aria-pressed=true]")
        pressed.nth(1).wait_for()
        assert pressed.all_inner_texts() == ["Keep", "tie"]
    with (state / "findings.csv").open(newline="") as file:
        (kept,) = csv.DictReader(file)
    assert (kept["record"], kept["judge"], kept["note"]) == (record, "verdict", "look again")
    assert httpx.get(f"{url}api/audit/corrections.csv").text.splitlines()[1].startswith(f"{record},")
    assert (data / "test.parquet").read_bytes() == before
    refused = httpx.post(f"{url}api/audit/correct", json={"record": record, "first": 0, "second": 9, "p": 1})
    assert (refused.status_code, json.loads(refused.text)["error"]) == (
        400,
        f"record {record!r} has no candidate 9",
    )
    with opened_page(browser, 390, dark=True) as page:
        page.goto(f"{url}audit")
        page.locator(".prefrm-finding").first.wait_for()
        assert is_as_wide_as_the_screen(page) and faults(page) == []
