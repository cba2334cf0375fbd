"""A part: how far log-odds on this device are from those of a CPU, and what shares a pass changes in them."""

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prefrm.bench.gpu.models import SHAPES
from prefrm.bench.methods import noise_images
from prefrm.bench.random_model import KINDS, PROMPT, build_backbone, build_judge, side_of
from prefrm.engine import Engine
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["log_odds_difference", "measure"]

CPU = torch.device("cpu")
SIZES = (2, 3, 5)
"""Candidates of the groups that are scored: the last one also alone."""


def measure(
    device: str, *, methods: Sequence[str], tiny: tuple[str, int], small: tuple[str, int]
) -> Iterator[dict[str, Any]]:
    """Compare, method by method.

    Args:
        device: as in `Judge.from_base`.
        methods: of `prefrm.bench.methods.METHODS`, of the engine.
        tiny: a model of `SHAPES` that a CPU scores too, and tokens of an image.
        small: one whose products have more than one tile, for what groups do to each other, likewise.
    """
    found = resolve_device(device)
    shape, tokens = tiny
    groups = _groups(tokens)
    rows: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = build_backbone(SHAPES[shape], device=CPU, dtype=dtype)
        there = copy.deepcopy(backbone).to(found)
        for method in methods:
            judges = [build_judge(model, tokens, **KINDS[method]) for model in (backbone, there)]
            judges[1].head.load_state_dict(judges[0].head.state_dict())
            ours, theirs = (Engine(judge).score(groups) for judge in judges)
            rows.append(_row("on a CPU and here", method, dtype, ours, theirs))
            yield {"rows": rows}
    shape, tokens = small
    groups, dtype = _groups(tokens), resolve_dtype("auto", found)
    backbone = build_backbone(SHAPES[shape], device=found, dtype=dtype)
    for method in methods:
        for deterministic in (False, True):
            judge = build_judge(backbone, tokens, **KINDS[method])
            # Every call reads the images again.
            engine = Engine(judge, deterministic=deterministic, cache_bytes=0)
            alone, among = engine.score(groups[-1:]), engine.score(groups)[-1:]
            compared = "alone and among others"
            rows.append(_row(compared, method, dtype, alone, among, deterministic=deterministic))
            yield {"rows": rows}


def _groups(image_tokens: int) -> list[Group]:
    """Groups of `SIZES` candidates, without a common one."""
    images = iter(noise_images(sum(SIZES), side_of(image_tokens)))
    return [Group(prompt=PROMPT, candidates=tuple(islice(images, k))) for k in SIZES]


def _row(
    compared: str,
    method: str,
    dtype: torch.dtype,
    one: Sequence[WinMatrix],
    other: Sequence[WinMatrix],
    *,
    deterministic: bool = False,
) -> dict[str, Any]:
    differences = [log_odds_difference(a.p, b.p) for a, b in zip(one, other, strict=True)]
    largest = max(differences)
    return {
        "compared": compared,
        "method": method,
        "dtype": str(dtype).removeprefix("torch."),
        "deterministic": deterministic,
        "difference": largest if np.isfinite(largest) else None,
        "equal": all(a.p.tobytes() == b.p.tobytes() for a, b in zip(one, other, strict=True)),
    }


def log_odds_difference(one_KK: npt.NDArray[np.float32], other_KK: npt.NDArray[np.float32]) -> float:
    """The largest difference in log-odds between two win matrices; infinite if one of them has a NaN."""
    apart = ~np.eye(len(one_KK), dtype=bool)
    one, other = (np.clip(p[apart].astype(np.float64), 1e-12, 1 - 1e-12) for p in (one_KK, other_KK))
    difference = np.abs(np.log(one / (1 - one)) - np.log(other / (1 - other)))
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")
