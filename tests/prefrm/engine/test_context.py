"""Images that belong to a prompt, such as the source of an edit: in the prefix that all candidates follow."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec, log_odds
from prefrm.winmatrix import Group
from tests.prefrm.judge.comparing import group_batch

WORDINGS = {
    "joint": "{context}{image}{image}Which edit is [{prompt}]?\n{answer}Image{space}\n1\n2\n",
    "alone": "Source: {context} edit: {image} Rate [{prompt}]:",
}


@pytest.fixture(params=WORDINGS)
def judge(request, tiny_checkpoint: Path, tmp_path: Path) -> Judge:
    path = tmp_path / "t.txt"
    path.write_text(WORDINGS[request.param])
    head = "verdict" if request.param == "joint" else "scalar"
    torch.manual_seed(0)
    spec = JudgeSpec(
        base_model=str(tiny_checkpoint), head=head, attention=request.param, template=f"file:{path}"
    )
    judge = Judge.from_base(spec, "cpu")
    with torch.no_grad():
        # Random weights have faint opinions.
        judge.head.log_scale.add_(1.5)
    return judge


@pytest.mark.parametrize("share", [False, True])
def test_a_context_is_read_as_in_training_and_is_its_own_groups_alone(judge: Judge, png, share: bool):
    images = tuple(png(n, *size) for n, size in enumerate([(48, 32), (32, 32), (16, 64)]))
    # A source may be a candidate, too: an edit that changed nothing.
    groups = [Group(prompt="a hat", candidates=images, context=(source,)) for source in (png(9), images[0])]
    engine = Engine(judge, tokens=300, share=share)
    found = engine.score(groups)
    for group, matrix in zip(groups, found, strict=True):
        pairs = list(permutations(range(3), 2))
        with torch.inference_mode():
            z_N, _ = log_odds(judge(group_batch(judge, group)))
        z = np.zeros((3, 3))
        z[tuple(np.transpose(pairs))] = z_N
        expected = 1 / (1 + np.exp((z.T - z) / 2))
        np.testing.assert_allclose(matrix.p, expected, atol=1e-6)
        assert engine.score([group])[0].equals(matrix)
        assert Engine(judge, tokens=300, share=share).score([group])[0].equals(matrix)
    assert np.abs(found[0].p - found[1].p).max() > 1e-4
