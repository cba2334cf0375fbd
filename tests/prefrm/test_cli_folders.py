"""`prefrm label` and `prefrm score --best` on folders of images, as people lay them out."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prefrm.bundle import write_bundle
from prefrm.cli import run
from prefrm.protocol import BUNDLE_PARAMETER
from prefrm.winmatrix import FakeScorer
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


def brightness(prompt: str, image: bytes) -> float:
    return sum(image) % 101 / 30


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    facts = {BUNDLE_PARAMETER: "a" * 64}
    with background(JudgeServer(FakeScorer(brightness), ModelInfo(name="judge", facts=facts))) as addresses:
        yield addresses.grpc_url


@pytest.fixture
def images(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """Four images of two prompts, and one that cannot be read."""
    folder = tmp_path / "images"
    for n, name in enumerate(("a red cat/0", "a red cat/1", "two dogs/0", "two dogs/1")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png(n))
    (folder / "two dogs" / "broken.png").write_bytes(b"no image")
    return folder


def ranking(out: Path) -> list[dict[str, str]]:
    with (out / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_labelled_and_its_files_are_ranked(
    url: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    assert run(["label", url, str(images), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{images}: 4 images in 2 groups; left out: 1 broken image",
        "2 groups, 2 pairs judged, 0 not judged",
        f"2 pairs of images for Diffusion-DPO's train.py: {out / 'diffusion_dpo'}",
        "no table for TRL's DPOTrainer: the dataset has no texts",
        f"the files of each prompt, best first: {out / 'ranking.csv'}",
    ]
    left_out, prompts = captured.err.splitlines()
    assert left_out.startswith("left out: record images:4: ") and "two dogs/broken.png" in left_out
    assert sorted(prompts.removeprefix("prompts: ").split(", ")) == ["'a red cat'", "'two dogs'"]
    rows = ranking(out)
    assert sorted((row["prompt"], row["rank"]) for row in rows) == [
        ("a red cat", "1"), ("a red cat", "2"), ("two dogs", "1"), ("two dogs", "2"),
    ]  # fmt: skip
    for better, worse in (rows[:2], rows[2:]):
        assert float(better["win_rate"]) > float(worse["win_rate"])
        high, low = ((images / row["file"]).read_bytes() for row in (better, worse))
        assert brightness("", high) > brightness("", low)
    assert pq.read_metadata(out / "diffusion_dpo" / "train.parquet").num_rows == 2


def test_the_same_command_continues_and_a_folder_that_changed_is_refused(
    url: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], png: Callable[..., bytes]
) -> None:
    command = ["label", url, str(images), "--out", str(tmp_path / "labels")]
    assert run(command) == 0
    first = capsys.readouterr()
    assert run(command) == 0
    assert capsys.readouterr() == first
    (images / "two dogs" / "2.png").write_bytes(png(9))
    assert run(command) == 2
    assert (
        "give the same data in the same order, or another output folder"
        in capsys.readouterr().err.splitlines()[-1]
    )
    assert run(["label", url, str(images / "two dogs"), "--out", str(tmp_path / "labels")]) == 2
    assert f"has labels of {images}; give another --out" in capsys.readouterr().err


def test_what_cannot_be_labelled_is_one_line(
    url: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path, *options: str) -> str:
        assert run(["label", url, str(folder), "--out", str(tmp_path / "labels"), *options]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no images or videos" in refused(empty)
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "a folder of images, which has no splits" in refused(images, "--split", "test")
    for path in images.glob("*/[1b]*.png"):
        path.unlink()
    assert "left out: 2 only candidate of its prompt" in refused(images)


def test_the_best_files_are_ranked(
    url: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(map(str, images.glob("*/*.png")))
    readable = [file for file in files if "broken" not in file]
    expected = sorted(readable, key=lambda file: -brightness("", Path(file).read_bytes()))
    command = ["score", url, "--prompt", "an animal", *files, "--best", "3"]
    assert run(command) == 0
    captured = capsys.readouterr()
    lines = [line.split("  ") for line in captured.out.splitlines()]
    assert [(rank, file) for rank, _, file in lines] == list(zip("123", expected[:3], strict=True))
    assert [float(rate) for _, rate, _ in lines] == sorted((float(line[1]) for line in lines), reverse=True)
    (left_out,) = captured.err.splitlines()
    assert left_out.startswith("left out: ") and "broken.png" in left_out
    assert run([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["rank"], one["candidate"]) for one in answer["best"]] == list(enumerate(expected[:3], 1))
    assert answer["candidates"] == readable


def test_too_little_to_rank_is_one_line(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = ["score", "grpc://127.0.0.1:9/judge", "--prompt", "p", "--best", "2"]
    assert run([*nobody, str(images)]) == 2
    assert capsys.readouterr().err == f"prefrm: {images} is a folder; name its files: {images}/*\n"
    pair = images / "two dogs"
    assert run([*nobody, str(pair / "0.png"), str(pair / "broken.png")]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "prefrm: --best ranks at least 2 files; of these 2, 1 can be read"
    ]


@pytest.fixture
def hundred(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """Prompts as folders, as a metadata.jsonl with folders below, and as file names: four images each."""
    folder = tmp_path / "images"
    rows = []
    for n in range(100):
        prompt, k = divmod(n, 4)
        name = {
            0: f"a cat with {prompt} hats/{k}.png",
            1: f"by_metadata/{n:03}.png",
            2: f"{prompt} dogs asleep_{k}.png",
        }[prompt % 3]
        if prompt % 3 == 1:
            rows.append({"file_name": name, "text": f"{prompt} birds"})
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(n))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.slow
def test_a_judge_labels_and_ranks_a_hundred_images_and_ctrl_c_ends_it(
    judge: object, hundred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "labels"
    write_bundle(bundle, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n")
    command = ["label", str(bundle), str(hundred), "--out", str(out)]
    _interrupted(command, out)
    assert run(command) == 0
    printed = capsys.readouterr().out
    assert f"{hundred}: 100 images in 25 groups\n25 groups, 150 pairs judged, 0 not judged\n" in printed
    rows = ranking(out)
    assert len({row["file"] for row in rows}) == 100
    assert {row["prompt"] for row in rows} >= {"a cat with 0 hats", "1 birds", "2 dogs asleep"}
    files = sorted(str(path) for path in hundred.rglob("*.png"))
    assert run(["score", str(bundle), "--prompt", "a cat", *files, "--best", "3"]) == 0
    assert [line.split("  ")[2] in files for line in capsys.readouterr().out.splitlines()] == [True] * 3


def _interrupted(command: list[str], out: Path) -> None:
    """Ctrl-C, once the folder is being read or its images are judged."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "prefrm", *command], env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            end = time.monotonic() + 120
            while not (out / "dataset").exists():
                assert running.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert err.splitlines()[-1] == "prefrm: interrupted"
    assert "Traceback" not in err
