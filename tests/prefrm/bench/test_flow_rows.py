"""The table of methods at equal rollouts: how large each training is, and one for real."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrm.bench import flow_rows
from prefrm.bench.flow_rows import MethodRow, Sizes, bench_rows
from prefrm.winmatrix import FakeScorer

TINY = Sizes(images=8, iteration=4, group=2, steps=2, held_out=1, evaluated=2)


@contextmanager
def open_scorer(name: str) -> Iterator[FakeScorer]:
    yield FakeScorer(lambda prompt, image: float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 10)


@pytest.mark.parametrize(
    ("name", "prompts", "iterations"),
    [("nft", 8, 16), ("tree_grpo", 4, 16), ("temp_flow_grpo", 1, 9), ("tmpo", 2, 19), ("flash_grpo", 8, 16)],
)
def test_trees_have_the_nearest_number_of_images(
    name: str, prompts: int, iterations: int, tmp_path: Path
) -> None:
    config = flow_rows._config(name, "judge", tmp_path, Sizes())
    assert (config.rollout.prompts, config.optim.iterations) == (prompts, iterations)


@pytest.mark.slow
def test_a_row_is_trained_once(tmp_path: Path) -> None:
    def rows() -> list[MethodRow]:
        return bench_rows(
            "judge",
            tmp_path,
            tmp_path / "rows.md",
            open_scorer,
            lambda name: None,
            methods=["nft"],
            sizes=TINY,
        )

    (row,) = rows()
    assert (row.method, row.images, row.updates) == ("nft", 8, 2)
    assert 0 <= row.oracle_after <= 1 and 0 < row.judge_after < 1 and row.seconds > 0
    assert (
        f"| nft    |      8 |       2 |         {row.oracle_before:.3f} |"
        in (tmp_path / "rows.md").read_text()
    )
    # Kept.
    assert rows() == [row]
