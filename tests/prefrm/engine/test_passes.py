"""The levels of a late tree, one after another: what an answer depends on once they are kept."""

from itertools import permutations

import pytest
import torch

from prefrm.engine.passes import Blocks, Passes
from prefrm.judge import Judge, Name
from tests.prefrm.judge.comparing import prepared


def spoil(blocks: Blocks, *names: Name) -> None:
    """Make the keys and values of these segments NaN."""
    for some, place in (blocks[name] for name in names):
        for keys, values in some.layers:
            keys[place] = values[place] = float("nan")


@pytest.mark.parametrize("share", [False, True])
@torch.inference_mode()
def test_a_late_answer_depends_on_its_two_suffixes_and_on_no_candidate(judge: Judge, png, share: bool):
    images = prepared(judge, [png(0), png(1, 32, 32), png(2, 16, 64)])
    tree = judge.processor.tree("two dogs and a red kite", dict(enumerate(images)))
    passes, features = Passes(judge, 300, share=share), judge.encode(images)
    blocks: Blocks = {}
    for level in tree.levels:
        blocks = {**blocks, **passes.keep(level, blocks, features)}
    pairs = list(permutations(range(3), 2))
    answers = list(tree.answers(pairs).values())
    before = passes.read(answers, blocks, {})
    assert before.isfinite().all() and len(before.unique()) == 6
    spoil(blocks, (0,), (1,), (2,))
    assert passes.read(answers, blocks, {}).equal(before)
    spoil(blocks, (0, "slot", 0))
    after = passes.read(answers, blocks, {})
    assert after.isnan().tolist() == [first == 0 for first, _ in pairs]
    spoil(blocks, (1, "slot", 1))
    after = passes.read(answers, blocks, {})
    assert after.isnan().tolist() == [first == 0 or second == 1 for first, second in pairs]
    assert after[~after.isnan()].equal(before[~after.isnan()])
