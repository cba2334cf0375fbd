"""The benchmark of the engine: all methods for real on a tiny model, what it writes, and what it refuses."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Tokenizer

from prefrm.bench import engine as benchmark
from prefrm.bench import meters
from prefrm.bench.contents import BOUNDS, bench_contents
from prefrm.bench.engine import bench_engine, read_settings
from prefrm.bench.engine_report import EngineReport, write_engine_report
from prefrm.bench.meters import PeakMemory, matrix_product_rate, timed
from prefrm.bench.methods import METHODS, EngineMethod, PlainMethod, both_orders, noise_images
from prefrm.bench.random_model import PROMPT, SIX_LAYERS, build_judges, build_tokenizer, side_of
from prefrm.bench.rounds import Rounds, Settings
from prefrm.cli.program import run
from prefrm.judge import Judge
from tests.prefrm.bench.shapes import TINY

CPU = torch.device("cpu")
SETTINGS = Settings(
    device=CPU,
    dtype=torch.float32,
    sizes=(2, 5),
    rounds=2,
    sample=6,
    batch_sizes=(1, 4),
    compared=3,
)


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(meters, "SIDES", {"cpu": 64})


@pytest.fixture(scope="module")
def report() -> EngineReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meters, "SIDES", {"cpu": 64})
        return bench_engine(SETTINGS, TINY)


@pytest.fixture(scope="module")
def judges() -> dict[str, Judge]:
    return build_judges(TINY, 25, device=CPU, dtype=torch.float32)


def test_every_method_has_a_row_at_every_size(report: EngineReport):
    rows = json.loads(report.to_json())["rows"]
    assert [(row["method"], row["k"]) for row in rows] == [(m, k) for k in (2, 5) for m in METHODS]
    issued = {"method", "k", "seconds", "speedup", "of_floor", "peak_mb", "max_abs_diff"}
    for row in rows:
        assert issued < set(row) and row["image_tokens"] == 25
        assert row["seconds"] > 0 and row["peak_mb"] >= 0
        assert 0 < row["of_floor"] == pytest.approx(row["floor_seconds"] / row["seconds"])
        assert row["pairs_per_second"] == pytest.approx(row["k"] * (row["k"] - 1) / 2 / row["seconds"])
    plain = {row["k"]: row["seconds"] for row in rows if row["method"] == "plain"}
    assert all(row["speedup"] == pytest.approx(plain[row["k"]] / row["seconds"]) for row in rows)


def test_the_engine_says_what_its_references_say(report: EngineReport):
    for row in report.rows:
        assert row.max_abs_diff is None if row.method == "plain" else row.max_abs_diff < 1e-5


def test_a_difference_is_seen(monkeypatch):
    score = EngineMethod.score
    monkeypatch.setattr(EngineMethod, "score", lambda self, k: score(self, k) + np.float32(0.25))
    rows = bench_engine(replace(SETTINGS, rounds=1, sizes=(4,)), TINY).rows
    assert all(row.max_abs_diff == pytest.approx(0.25, abs=1e-5) for row in rows if row.method != "plain")


def test_the_plain_method_is_timed_on_a_sample_and_scaled(report: EngineReport, monkeypatch):
    batch = report.plain_batch_size["25"]
    timed_pairs = {row.k: row.timed_pairs for row in report.rows if row.method == "plain"}
    # Two comparisons are fewer than a sample; of twenty, as many whole batches as six hold.
    assert timed_pairs == {2: 2, 5: {1: 6, 4: 4}[batch]}
    rounds = Rounds(TINY, 25, replace(SETTINGS, batch_sizes=(2,)))
    rounds.run()
    seen = []

    def read(images, pairs):
        seen.append(list(pairs))
        time.sleep(0.06)

    monkeypatch.setattr(rounds.plain, "prepare", lambda k: [])
    monkeypatch.setattr(rounds.plain, "read", read)
    # Six of twenty comparisons in 0.06 seconds.
    assert rounds._plain(5) == pytest.approx(0.2, rel=0.5)
    assert seen == [both_orders(5)[:6]]


def test_the_plain_method_takes_the_batch_size_that_is_best_and_fits(judges, monkeypatch):
    plain = PlainMethod(judges["joint"], noise_images(2, side_of(25)))

    def read(images, pairs):
        if len(pairs) > 8:
            raise torch.OutOfMemoryError("too many")
        # A call and a pair have their price; two too many pairs have another.
        time.sleep(0.004 + 0.001 * len(pairs) + (0.05 if len(pairs) == 8 else 0))

    monkeypatch.setattr(plain, "read", read)
    advanced = []
    plain.choose_batch_size((1, 4, 8, 16), tries=2, advance=advanced.append)
    assert plain.batch_size == 4 and advanced == list(range(8))


def test_batches_change_no_verdict_and_verdicts_differ(judges):
    plain = PlainMethod(judges["joint"], noise_images(4, side_of(25)))
    images, pairs = plain.prepare(4), both_orders(4)
    one = plain.read(images, pairs)
    plain.batch_size = 5
    torch.testing.assert_close(plain.read(images, pairs), one, atol=1e-5, rtol=0)
    assert one.std() > 1e-3


def test_the_judges_share_one_backbone(judges):
    assert len({id(judge.model) for judge in judges.values()}) == 1
    assert {judge.spec.head for judge in judges.values()} == {"verdict", "scalar", "embedding"}


def test_texts_have_as_many_tokens_as_for_qwen(judges):
    """Cut into words as Qwen's tokenizer does it, whose vocabulary has each of these as one token."""
    layout, tokenizer = judges["joint"].processor.layout, build_tokenizer()
    filled = layout.fill(PROMPT)
    read = tokenizer.convert_ids_to_tokens(filled.closing)
    assert read == [
        *("<|vision_end|>", "\n", "Which", " image", " matches", " the", " prompt", " better", ","),
        *(" ", "1", " or", " ", "2", "?", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"),
    ]
    assert len(read) == 20 and filled.prompt_tokens == 31
    published = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    for text in (PROMPT, "user\nPrompt:\n", "\nImage 1:", "\nWhich image matches the prompt better, 1 or 2?"):
        spans = [span for _, span in published.pre_tokenize_str(text)]
        assert [span for _, span in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)] == spans


def test_the_bench_has_as_many_tokens_an_image_as_it_says():
    judge = build_judges(TINY, 256, device=CPU, dtype=torch.float32)["joint"]
    (image,) = PlainMethod(judge, noise_images(1, side_of(256))).prepare(1)
    assert image.tokens == 256 and image.grid == (1, 32, 32)
    assert SIX_LAYERS.image_tokens == (256,)


def test_noise_differs_from_image_to_image():
    images = noise_images(5, 28)
    assert len(set(images)) == 5 and noise_images(5, 28) == images


def test_memory_is_what_a_block_holds_above_what_was_there():
    kept = torch.ones(2**22)
    with PeakMemory(CPU) as little:
        time.sleep(0.02)
    with PeakMemory(CPU) as much:
        held = torch.ones(2**25)
        time.sleep(0.05)
        del held
    assert little.peak_mb < 16 < 100 < much.peak_mb < 200
    assert len(kept) == 2**22


def test_a_rate_is_that_of_products_in_this_type():
    value, seconds = timed(lambda: time.sleep(0.02), CPU)
    assert value is None and 0.02 <= seconds < 1
    assert matrix_product_rate(CPU, torch.float32) > 1e6


def test_the_report_is_json_and_a_table(report: EngineReport, tmp_path: Path):
    write_engine_report(report, tmp_path)
    entries = json.loads((tmp_path / "engine.json").read_text())
    assert entries["device"] == report.device and len(entries["rows"]) == 10
    assert entries["encodes_of_floor"]["25"] > 0
    table = (tmp_path / "engine" / "table.md").read_text()
    assert "medians of 2 alternating rounds" in " ".join(table.split())
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 12 + 5 and len({len(line) for line in lines[:12]}) == 1
    assert [line.split()[1] for line in lines[14:]] == list(BOUNDS)
    assert lines[1].count(":") == 7 and lines[2].split()[1:4:2] == ["plain", "2"]
    assert "scaled" in table
    whole = replace(report, rows=tuple(row for row in report.rows if row.k == 2))
    assert "scaled" not in whole.to_markdown()


@pytest.mark.slow
def test_edits_criteria_and_videos_cost_little_more_than_images():
    """With room for a busy machine; without what groups share, criteria cost 3 times one."""
    rows = bench_contents(SIX_LAYERS, 64, device=CPU, dtype=torch.float32, rounds=3)
    assert [row.name for row in rows] == list(BOUNDS)
    assert all(0 < row.ratio < 1.3 * BOUNDS[row.name] for row in rows)


@pytest.mark.gpu
def test_a_gpu_has_the_same_rows(monkeypatch):
    monkeypatch.setattr(meters, "SIDES", {"cuda": 256})
    on_gpu = replace(SETTINGS, device=torch.device("cuda", 0), dtype=torch.bfloat16)
    found = bench_engine(on_gpu, TINY)
    assert found.dtype == "bfloat16" and len(found.rows) == 10
    assert all(row.peak_mb > 0 and (row.max_abs_diff or 0) < 0.05 for row in found.rows)


def test_the_command_prints_what_was_asked_for(report: EngineReport, monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(benchmark, "bench_engine", lambda settings: asked.append(settings) or report)
    assert run(["bench", "engine", "--quick", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == report.to_markdown()
    arguments = ["--json", "--k", "8,2,8", "--device", "cpu", "--dtype", "bfloat16", "--out", f"{tmp_path}/x"]
    assert run(["bench", "engine", *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(report.to_json())
    assert (tmp_path / "x" / "engine.json").is_file()
    quick, full = asked
    assert quick.sizes == (4, 8) and quick.rounds == 1 and quick.dtype == torch.float32
    assert full.sizes == (2, 8) and full.rounds == 3 and full.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--k", "4,x"], "'4,x'"),
        (["--k", "1,4"], "'1,4'"),
        (["--k", ""], "''"),
        (["--k", "4,100000"], "'4,100000'"),
        (["--dtype", "float8"], "'float8'"),
        (["--device", "meta"], "'meta'"),
        (["--device", "nowhere"], "'nowhere'"),
        (["--rounds"], "--rounds"),
        (["--out", __file__], __file__),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_run_or_made(arguments, named, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "bench_engine", lambda settings: pytest.fail("it ran"))
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "docs"]
    assert run(["bench", "engine", *out, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and named in captured.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_for_by_default():
    settings = read_settings(device="cpu")
    assert settings.sizes == (4, 8, 16, 32, 64) and settings.rounds == 3
    assert settings.dtype == torch.float32
