"""The tables of the page, part by part."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prefrm.bench.gpu.goals import share_of_peak
from prefrm.bench.gpu.results import Result
from prefrm.display import markdown_table, short_number

__all__ = [
    "CONFIGS",
    "claimed_memory",
    "differences_table",
    "engine_section",
    "memory_table",
    "server_table",
    "step_of",
    "tests_section",
    "training_section",
]

LINE = 110
CONFIG_FOLDER = Path(__file__).parents[3] / "configs" / "train"
CONFIGS = {
    "train-3b-lora": "qwen2_5_vl_3b.yaml",
    "train-7b-qlora": "qwen2_5_vl_7b_qlora.yaml",
}
"""The configuration of which a part trains the step."""
ENGINE = (
    "Qwen2.5-VL {shape}, {dtype}, {tokens} tokens an image, {weights:.1f} GiB of weights{compiled}. {plain}"
    "The vision tower does {encodes:.3g} TFLOP a second, {share:.2f} of the peak. *decoded* is the rate for "
    "images that were decoded ahead, and what the share of the peak is of."
)
TRAINING = (
    "Qwen2.5-VL {shape}, {tokens} tokens an image, {weights:.1f} GiB of weights, of which {learns}: "
    "{trainable:,} numbers. *plain* is a loop of `transformers` over whole prompts; every presentation order "
    "counts as one comparison."
)
NONE = "-"


def engine_section(result: Result, machine: Mapping[str, Any]) -> str:
    """Of one model and one size of images."""
    measured = result.measured
    batch = measured["plain_batch"]
    text = ENGINE.format(
        shape=measured["shape"],
        dtype=measured["dtype"],
        tokens=measured["image_tokens"],
        weights=measured["weights_gib"],
        compiled=", its layers compiled" if result.asked["options"]["compile"] else "",
        plain="" if batch is None else f"*plain* ran in batches of {batch} comparisons. ",
        encodes=measured["encodes_tflops"],
        share=share_of_peak(measured["encodes_tflops"], machine),
    )
    header = ["method", "K", "groups/s", "decoded", "times plain", "of peak", "peak MiB", "note"]
    cells: Sequence[Mapping[str, Any]] = measured["cells"]
    plain = {cell["k"]: cell["seconds"] for cell in cells if cell["method"] == "plain"}
    body = [_engine_row(cell, plain.get(cell["k"]), machine) for cell in cells]
    return _section(result, text, markdown_table(header, body))


def _engine_row(
    cell: Mapping[str, Any], plain_seconds: float | None, machine: Mapping[str, Any]
) -> list[str]:
    name = [cell["method"], str(cell["k"])]
    if cell["reason"]:
        return [*name, *[NONE] * 5, cell["reason"]]
    from_k = cell["estimated_from"]
    note = "" if from_k is None else f"estimated from K = {from_k}"
    if not note and cell["timed_pairs"] < cell["k"] * (cell["k"] - 1):
        note = f"timed on {cell['timed_pairs']} comparisons"
    return [
        *name,
        short_number(1 / cell["seconds"]),
        short_number(1 / cell["decoded_seconds"]),
        NONE if plain_seconds is None else f"{plain_seconds / cell['seconds']:.1f}",
        f"{share_of_peak(cell['tflops'], machine):.2f}",
        NONE if cell["peak_mb"] is None else f"{cell['peak_mb']:,.0f}",
        note,
    ]


def training_section(result: Result, machine: Mapping[str, Any]) -> str:
    """Of one way to train one model."""
    measured = result.measured
    text = TRAINING.format(
        shape=measured["shape"],
        tokens=measured["image_tokens"],
        weights=measured["weights_gib"],
        learns=_learns(result.asked["options"]),
        trainable=measured["trainable"],
    )
    header = ["method", "K", "groups", "comparisons", "tokens", "seconds"]
    header += ["tokens/s", "comparisons/s", "groups/s", "peak GiB", "note"]
    body = [_training_row(row) for row in measured["rows"]]
    return _section(result, text, markdown_table(header, body))


def _learns(options: Mapping[str, Any]) -> str:
    if options["adapter"] is None:
        return "all learn, in float32 with passes in bfloat16"
    stored = "layers in four bits (NF4)" if options["quantize"] else "frozen layers"
    return f"an adapter of rank {options['adapter']['rank']} learns on {stored}"


def _training_row(row: Mapping[str, Any]) -> list[str]:
    name = [row["method"], *(str(row[key]) for key in ("k", "groups", "comparisons"))]
    if row["reason"]:
        return [*name, *[NONE] * 6, row["reason"]]
    counts = [row["tokens"], row["comparisons"], row["groups"]]
    rates = [short_number(count / row["seconds"]) for count in counts]
    return [*name, f"{row['tokens']:,}", short_number(row["seconds"]), *rates, f"{row['peak_gib']:.1f}", ""]


def memory_table(results: Sequence[Result]) -> str:
    """The steps of configurations, beside the memory that their comments say they need."""
    body = []
    for result in results:
        if (name := CONFIGS.get(result.part)) is None:
            continue
        text = (CONFIG_FOLDER / name).read_text(encoding="utf-8")
        row = step_of(yaml.safe_load(text), result.measured["rows"])
        if row is None or row["reason"]:
            continue
        gib, tokens = claimed_memory(text)
        body.append([name, f"{gib:.1f}", f"{tokens:,}", f"{row['peak_gib']:.1f}", f"{row['tokens']:,}"])
    header = ["configuration", "says GiB", "at tokens", "peak GiB", "at tokens"]
    return markdown_table(header, body) if body else "No step of a configuration was measured."


def step_of(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of a training table that trains as a configuration."""
    # Imports numpy, which the process that waits for the parts does without.
    from prefrm.manifest.spec import JudgeSpec

    wanted = JudgeSpec(**config["judge"]).attention, config["optim"]["batch_size"]
    return next((row for row in rows if (row["method"], row["groups"]) == wanted), None)


def claimed_memory(config: str) -> tuple[float, int]:
    """GiB without the CUDA context, and tokens of a step, as the comment of a configuration has them."""
    comment = " ".join(line.lstrip("# ") for line in config.splitlines() if line.startswith("#"))
    tokens = re.search(r"T = ([\d,]+) tokens", comment)
    together = re.search(r"together\s+([\d.]+)", comment)
    assert tokens is not None and together is not None
    return float(together[1].rstrip(".")), int(tokens[1].replace(",", ""))


def server_table(result: Result, machine: Mapping[str, Any]) -> str:
    """Of a judge behind the server, and of the engine alone."""
    body = [
        [
            row["server"],
            str(row["concurrency"]),
            short_number(row["rps"]),
            short_number(row["p50_ms"]),
            short_number(row["p99_ms"]),
            NONE if row["of_engine"] is None else f"{row['of_engine']:.2f}",
        ]
        for row in result.measured["rows"]
    ]
    header = ["server", "at once", "groups/s", "p50 ms", "p99 ms", "of engine"]
    scorer = result.asked["options"]["scorer"]
    text = f"Groups of four through {scorer}, one in a request; *engine* has so many in a call and no server."
    return _section(result, text, markdown_table(header, body))


def differences_table(result: Result, machine: Mapping[str, Any]) -> str:
    """Log-odds of the same groups in two ways."""
    body = [
        [
            row["compared"],
            row["method"],
            row["dtype"],
            "yes" if row["deterministic"] else "no",
            "NaN" if row["difference"] is None else f"{row['difference']:.1e}",
            "yes" if row["equal"] else "no",
        ]
        for row in result.measured["rows"]
    ]
    header = ["compared", "method", "dtype", "deterministic", "log-odds", "same bits"]
    return _section(
        result, "The largest differences in log-odds, over all pairs.", markdown_table(header, body)
    )


def tests_section(result: Result, machine: Mapping[str, Any]) -> str:
    """Counts, and what failed."""
    counts = ", ".join(f"{result.measured[name]} {name}" for name in ("passed", "failed", "skipped"))
    failures = [f"- `{one['test']}`: {one['message']}" for one in result.measured["failures"]]
    return "\n".join([f"{counts}.", *([""] if failures else []), *failures])


def _section(result: Result, text: str, table: str) -> str:
    if result.status != "done":
        text += f" **Not to the end**: this part {result.status}."
    return f"### {result.part}\n\n{textwrap.fill(text, LINE)}\n\n{table}"
