"""The page of the benchmark of a GPU: goals, tables, and what could not be measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prefrm.bench.gpu.cards import peak_tflops
from prefrm.bench.gpu.goals import goals, share_of_peak
from prefrm.bench.gpu.page import COMMAND, NOT_RUN, page, write_page
from prefrm.bench.gpu.parts import LORA, PARTS, TINY_PARTS
from prefrm.bench.gpu.results import Result, read_result, write_measured, write_result
from prefrm.bench.gpu.tables import CONFIG_FOLDER, CONFIGS, claimed_memory, step_of
from tests.prefrm.bench.gpu_machine import H100

ROOT = Path(__file__).parents[3]


def cell(method: str, k: int, seconds: float | None, **changes) -> dict:
    values = {
        "method": method,
        "k": k,
        "seconds": seconds,
        "decoded_seconds": seconds and seconds / 2,
        "tflops": 494.7,
        "peak_mb": 2048.0,
        "timed_pairs": k * (k - 1),
        "estimated_from": None,
        "reason": "",
    }
    return values | changes


def row(method: str, k: int, groups: int, comparisons: int, tokens: int, seconds: float, **changes) -> dict:
    values = {"method": method, "k": k, "groups": groups, "comparisons": comparisons, "tokens": tokens}
    return values | {"seconds": seconds, "peak_gib": 9.5, "reason": ""} | changes


def difference(compared: str, method: str, value: float | None, deterministic=False, equal=False) -> dict:
    values = {"compared": compared, "method": method, "dtype": "bfloat16", "deterministic": deterministic}
    return values | {"difference": value, "equal": equal}


ENGINE = {
    "shape": "3b",
    "image_tokens": 256,
    "dtype": "bfloat16",
    "weights_gib": 7.0,
    "plain_batch": 32,
    "encodes_tflops": 494.7,
    "cells": [
        cell("plain", 16, 6.0, estimated_from=8),
        cell("late", 16, 0.2, tflops=300.0),
        cell("joint", 16, 1.0, timed_pairs=100),
        cell("scalar", 16, 0.1, tflops=98.94),
        cell("scalar", 64, None, reason="out of memory"),
    ],
}
TRAINING = {
    "shape": "3b",
    "image_tokens": 324,
    "weights_gib": 7.0,
    "trainable": 60_000_000,
    "rows": [
        row("plain", 2, 4, 8, 6000, 1.0),
        row("joint", 2, 4, 8, 5000, 1.0),
        row("late", 4, 4, 48, 6500, 1.1),
        row("scalar", 4, 4, 24, 0, None, reason="out of memory"),
    ],
}
SERVER = {
    "rows": [{"server": "prefrm grpc: judge-3b", "concurrency": 8, "rps": 20.0}],
    "added_ms": {"grpc": 1.0},
}
SERVER["rows"][0] |= {"p50_ms": 400.0, "p99_ms": 500.0, "of_engine": 0.97, "of_mlserver": None}
DIFFERENCES = {
    "rows": [
        difference("on a CPU and here", "late", 2e-4),
        difference("on a CPU and here", "joint", 2e-3),
        difference("alone and among others", "late", 0.0, deterministic=True, equal=True),
    ]
}
TESTS = {"passed": 3, "failed": 1, "skipped": 0}
TESTS["failures"] = [{"test": "tests.x", "message": "assert 1 == 2"}]


def results() -> list[Result]:
    def of(part: str, measured: dict, status="done", **changes) -> Result:
        options = {"scorer": "judge-3b", "adapter": LORA, "quantize": False, "compile": True}
        asked = {"options": options}
        return Result(part=part, asked=asked, status=status, measured=measured, seconds=61.0, **changes)

    return [
        of("engine-3b-256", ENGINE),
        of("train-3b-lora", TRAINING, status="timed out", lines=("step 3",)),
        of("train-7b-qlora", {}, status="package missing", lines=("bitsandbytes is not installed.",)),
        of("server", SERVER),
        of("differences", DIFFERENCES),
        of("tests", TESTS),
    ]


def test_goals_are_held_against_the_cards_peak():
    found = {(goal.part, goal.text): (goal.figure, goal.reached) for goal in goals(results(), H100)}
    assert found == {
        ("engine-3b-256", "0.4 of the peak in the vision tower"): ("0.50", True),
        ("engine-3b-256", "0.4 of the peak in scalar at K = 16"): ("0.10", False),
        ("engine-3b-256", "late 25 times as fast as plain at K = 16"): ("30.0", True),
        ("train-3b-lora", "joint at K = 2: 0.9 of a plain loop's tokens a second"): ("0.83", False),
        ("differences", "log-odds on a CPU and here, bfloat16: differences below 0.001"): ("2.0e-03", False),
        ("differences", "deterministic=True: the same bits alone and among others, bfloat16"): (
            "the same",
            True,
        ),
    }
    unknown = H100 | {"peak_tflops": None}
    assert share_of_peak(350.0, unknown) == 0.5


def test_a_difference_that_is_no_number_reaches_nothing():
    rows = [difference("on a CPU and here", "late", None), difference("on a CPU and here", "joint", 1e-5)]
    result = Result(part="differences", asked={}, status="done", measured={"rows": rows})
    (goal,) = goals([result], H100)
    assert goal.figure == "NaN" and not goal.reached


def test_the_page_has_every_table_and_every_reason():
    text = page(results(), H100, tiny=False)
    assert "Tiny models" not in text and "NVIDIA H100 80GB HBM3 with 79 GiB" in text
    table = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert [x.strip() for x in table["late"].split("|")[1:5]] == ["late", "4", "4", "48"]
    lines = [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    assert ["plain", "16", "0.167", "0.333", "1.0", "0.50", "2,048", "estimated from K = 8"] in lines
    assert ["late", "16", "5", "10", "30.0", "0.30", "2,048", ""] in lines
    assert ["joint", "16", "1", "2", "6.0", "0.50", "2,048", "timed on 100 comparisons"] in lines
    assert ["scalar", "64", *["-"] * 5, "out of memory"] in lines
    assert "7.0 GiB of weights, its layers compiled. *plain* ran in batches of 32" in " ".join(text.split())
    assert "of which an adapter of rank 32 learns on frozen layers: 60,000,000" in " ".join(text.split())
    assert ["joint", "2", "4", "8", "5,000", "1", "5,000", "8", "4", "9.5", ""] in lines
    assert ["prefrm grpc: judge-3b", "8", "20", "400", "500", "0.97"] in lines
    assert ["alone and among others", "late", "bfloat16", "yes", "0.0e+00", "yes"] in lines
    assert "3 passed, 1 failed, 0 skipped.\n\n- `tests.x`: assert 1 == 2" in text
    assert "**train-3b-lora**: timed out after 61 s\n\n    step 3" in text
    assert "**train-7b-qlora**: package missing after 61 s\n\n    bitsandbytes is not installed." in text
    assert text.count("**Not to the end**") == 1
    # Every table is padded, and no other line is too long to be read as it is.
    assert all(len(line) <= 110 for line in text.splitlines() if line[:1] != "|")
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert titles[0] == "### engine-3b-256" and "### server" in titles


def test_the_memory_of_a_configuration_stands_beside_that_of_its_step():
    name = CONFIGS["train-3b-lora"]
    gib, tokens = claimed_memory((CONFIG_FOLDER / name).read_text())
    text = page(results(), H100, tiny=False)
    cells = next([x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines() if name in line)
    assert cells == [name, f"{gib:.1f}", f"{tokens:,}", "9.5", "6,500"]
    assert 5 < gib < 24 and 1000 < tokens < 20_000
    assert name not in page(results(), H100, tiny=True)


TRAINED = [(part, CONFIGS[part.name]) for part in PARTS if part.name in CONFIGS]


@pytest.mark.parametrize(("part", "name"), TRAINED, ids=[name for _, name in TRAINED])
def test_a_part_trains_as_its_configurations(part, name):
    config = yaml.safe_load((CONFIG_FOLDER / name).read_text())
    assert part.options["adapter"] == config["adapter"] == LORA
    assert part.options["quantize"] == (config["judge"].get("quantize") == "nf4")
    assert config["optim"]["gradient_checkpointing"] and config["dtype"] == "bfloat16"
    side = 28 * int(part.options["image_tokens"] ** 0.5)
    assert side**2 <= config["judge"]["max_pixels"] < (side + 28) ** 2
    rows = [{"method": method, "k": k, "groups": groups} for method, k, groups in part.options["rows"]]
    row = step_of(config, rows)
    pairs = config["optim"].get("pairs_per_group") or row["k"] * (row["k"] - 1) // 2
    assert pairs == row["k"] * (row["k"] - 1) // 2


def test_a_page_of_a_card_and_one_of_tiny_models_are_two_files(tmp_path):
    _, card = write_page(results(), H100, tmp_path, tiny=False)
    numbers, tiny = write_page(results(), H100, tmp_path, tiny=True)
    assert card.name == "gpu.md" and tiny.name == "gpu-tiny.md"
    found = json.loads(numbers.read_text())
    assert found["machine"] == H100 and found["parts"][0]["measured"] == ENGINE


def test_the_page_in_the_repository_says_that_no_card_ran_it_or_is_of_one():
    text = (ROOT / "docs" / "gpu.md").read_text()
    assert text == NOT_RUN or (ROOT / "docs" / "gpu.json").is_file()
    assert COMMAND.partition(" ")[2] + ":" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A10G", None),
        ("NVIDIA A10", 125.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA RTX A6000", 154.8),
        ("AMD Instinct MI300X", 1307.4),
        ("Tesla V100-SXM2-16GB", None),
        ("Intel(R) Xeon(R) Processor @ 2.80GHz, 2 threads", None),
    ],
)
def test_the_peak_of_a_card_follows_from_the_words_of_its_name(name, peak):
    assert peak_tflops(name) == peak


def test_results_are_kept_whole_and_only_with_numbers(tmp_path):
    result = results()[1]
    write_result(tmp_path / "x.json", result)
    assert read_result(tmp_path / "x.json", result.asked) == result
    assert read_result(tmp_path / "x.json", {"options": {}}) is None
    with pytest.raises(ValueError):
        write_measured(tmp_path / "y.json", {"difference": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_the_command_imports_no_torch():
    """Its process lives as long as the card is measured, and must take none of its memory."""
    script = (
        "import sys, prefrm.bench.gpu.__main__; print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_every_option_of_a_part_is_plain_data():
    for part in (*PARTS, *TINY_PARTS):
        assert json.loads(json.dumps(part.options)) == part.options
