from bisect import bisect_left
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrm.judge import ContentReader, Judge, JudgeSpec
from prefrm.media import decode, digest
from prefrm.records import Comparison, PreferenceGroup
from prefrm.train.collate import Coverage, GroupCollator, blank_batch
from prefrm.video import encode_video

TEN = list(combinations(range(5), 2))
KINDS: dict[str, dict[str, Any]] = {
    "late": {},
    "joint": {"attention": "joint"},
    "scalar": {"head": "scalar"},
}


@pytest.fixture(params=KINDS)
def judge(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[request.param]), "cpu")


def five(images: tuple[bytes, ...]) -> PreferenceGroup:
    """All ten comparisons of five images, none of which has the same target or weight as another."""
    compared = (Comparison(i=i, j=j, p=0.1 * i + 0.01 * j, weight=1.0 + n) for n, (i, j) in enumerate(TEN))
    return PreferenceGroup(id="g", prompt="p", candidates=images, comparisons=tuple(compared))


def without(group: PreferenceGroup, place: int) -> PreferenceGroup:
    return replace(group, comparisons=tuple(c for c in group.comparisons if place not in (c.i, c.j)))


def alone(judge: Judge, group: PreferenceGroup, shown: Comparison) -> float:
    """The outcome of one comparison, in a batch of its own."""
    images = {
        n: judge.processor.prepare_image(decode(group.candidates[n] or b"")) for n in (shown.i, shown.j)
    }
    tree = judge.processor.tree(group.prompt, images)
    with torch.inference_mode():
        return judge(judge.processor.collate([(tree, [(shown.i, shown.j)])])).item()


def test_a_batch_has_targets_and_weights_in_the_order_of_its_outcomes(judge: Judge, png) -> None:
    """One of two groups compares a pair twice; a verdict is shown every comparison swapped, too."""
    group = five(tuple(png(n) for n in range(5)))
    twice = (*group.comparisons[2:4], group.comparisons[2])
    again = replace(group, id="h", prompt="another", comparisons=twice)
    batch = GroupCollator(judge.processor)([group, again])
    with torch.inference_mode():
        outcomes = judge(batch["batch"])
    shown = []
    for one in (group, again):
        swapped = [c.swapped() for c in one.comparisons] if judge.spec.is_pairwise else []
        shown += [(one, c) for c in (*one.comparisons, *swapped)]
    assert len(batch["batch"]) == len(shown) == (26 if judge.spec.is_pairwise else 13)
    assert outcomes.tolist() == pytest.approx([alone(judge, *one) for one in shown], abs=1e-4)
    assert batch["p_N"].tolist() == pytest.approx([c.p for _, c in shown])
    assert batch["weight_N"].tolist() == [c.weight for _, c in shown]
    assert batch["left_out"] == []


def test_only_what_is_compared_is_decoded_and_once_in_a_batch(
    judge: Judge, png, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def noted(data: bytes, limits: Any) -> Any:
        decoded.append(data)
        return decode(data, limits)

    monkeypatch.setattr("prefrm.judge.contents.decode", noted)
    images = (png(0), b"no image", None, png(1), png(2))
    group = PreferenceGroup(id="g", prompt="p", candidates=images, comparisons=(Comparison.preferred(4, 0),))
    other = replace(group, id="h", comparisons=(Comparison.preferred(3, 0),))
    batch = GroupCollator(judge.processor)([group, other])
    assert decoded == [png(0), png(2), png(1)]
    assert len(batch["batch"].distinct_images) == 3
    assert batch["left_out"] == []


@pytest.mark.parametrize("trouble", ["no image", "too long"])
def test_an_image_that_cannot_be_read_costs_its_own_comparisons(
    judge: Judge, png, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Four of ten; the reason names the image."""
    images = [png(n, width=32, height=32) for n in range(5)]
    images[3] = b"no image" if trouble == "no image" else png(3, width=640, height=64)
    group = five(tuple(images))
    if trouble == "too long":
        limit_length(judge, without(group, 3))
    coverage = Coverage()
    batch = coverage.add(GroupCollator(judge.processor)([group]))
    expected = GroupCollator(judge.processor)([without(group, 3)])
    assert coverage.read == len(batch["batch"]) == (12 if judge.spec.is_pairwise else 6)
    for name in ("p_N", "weight_N"):
        assert batch[name].equal(expected[name])
    # What is left is read as if nothing else had been there.
    assert judge(batch["batch"]).equal(judge(expected["batch"]))
    (reason,) = coverage.left_out.values()
    assert reason.startswith(f"image 4 of 5, sha256 {digest(images[3])[:12]}: ")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"of record 'g' is left out: {reason}"


def limit_length(judge: Judge, group: PreferenceGroup) -> None:
    """Have the model read just as many tokens as a group needs."""

    def suffices(length: int) -> bool:
        judge.processor.max_length = length
        return not GroupCollator(judge.processor)([group])["left_out"]

    judge.processor.max_length = bisect_left(range(512), True, key=suffices)


def test_images_that_are_too_long_together_cost_their_comparison(tiny_checkpoint: Path, png) -> None:
    """The larger one, to which the model could not even compare the same image."""
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), attention="joint"), "cpu")
    images = (png(0, width=32, height=32), png(1, width=64, height=64))
    group = PreferenceGroup(id="g", prompt="p", candidates=images, comparisons=(Comparison.preferred(0, 1),))
    limit_length(judge, group)
    judge.processor.max_length -= 1
    batch = GroupCollator(judge.processor)([group])
    assert batch["batch"] is None and len(batch["p_N"]) == 0
    ((record, reason),) = batch["left_out"]
    assert record == "g" and reason.startswith(
        f"image 2 of 2, sha256 {digest(images[1])[:12]}: the comparison"
    )


def test_a_prompt_that_cannot_be_read_costs_its_group(judge: Judge, png) -> None:
    good = five(tuple(png(n) for n in range(5)))
    batch = GroupCollator(judge.processor)([replace(good, id="long", prompt="p " * 600), good])
    assert batch["p_N"].equal(GroupCollator(judge.processor)([good])["p_N"])
    ((record, reason),) = batch["left_out"]
    assert record == "long" and "the model reads 512" in reason and "shorten the prompt" in reason


def test_every_reason_is_kept_once_for_its_record() -> None:
    coverage = Coverage()
    nothing = {"batch": None, "p_N": torch.zeros(0)}
    for reasons in (["a"], ["b", "a"]):
        coverage.add({**nothing, "left_out": [("g", reason) for reason in reasons]})
    assert coverage.left_out == {"g": "a; b"}
    again = Coverage()
    again.load_state_dict(coverage.state_dict())
    assert (again.left_out, again.read) == ({"g": "a; b"}, 0)


@pytest.mark.parametrize("kind", ["image", "video", "text"])
def test_candidates_of_every_kind_with_a_context_and_a_criterion(
    tiny_checkpoint: Path, png, kind: str
) -> None:
    """Each outcome is that of the comparison alone; what cannot be read costs its own comparisons."""
    fields = {"template": "fit-late-v1", "kind": kind} | ({"frames": 2} if kind == "video" else {})
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **fields), "cpu")
    candidates = {
        "image": (png(0), png(1), b"no image"),
        "video": (clip(png, 0, 1), clip(png, 2, 3), b"no video"),
        "text": ("yes", "no, it is red", "x" * 600),
    }[kind]
    compared = tuple(Comparison.preferred(i, j) for i, j in ((0, 1), (1, 2)))
    group = PreferenceGroup(
        id="g", prompt="p", candidates=candidates, comparisons=compared, context=(png(4),), criterion="hue"
    )
    other = replace(group, id="h", criterion="composition")
    batch = GroupCollator(judge.processor)([group, other])
    assert len(batch["batch"]) == 4
    ((record, reason), _) = batch["left_out"]
    assert record == "g" and reason.startswith(f"{kind} 3 of 3, sha256 {digest(candidates[2])[:12]}: ")
    # The context once, and what the candidates show.
    assert len(batch["batch"].distinct_images) == (1 if kind == "text" else 3)
    read = ContentReader(judge.processor)
    contents = {n: read(candidates[n], kind) for n in (0, 1)}
    (context,) = read(png(4), "image")
    with torch.inference_mode():
        outcomes = judge(batch["batch"]).tolist()
        for one, found in ((group, outcomes[:2]), (other, outcomes[2:])):
            tree = judge.processor.tree("p", contents, [context], one.criterion)
            expected = judge(judge.processor.collate([(tree, [(0, 1), (1, 0)])])).tolist()
            assert found == pytest.approx(expected, abs=1e-5)
    assert abs(outcomes[0] - outcomes[2]) > 1e-4


def test_a_context_that_cannot_be_read_costs_its_group(tiny_checkpoint: Path, png) -> None:
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), template="fit-late-v1"), "cpu")
    good = five(tuple(png(n) for n in range(5)))
    batch = GroupCollator(judge.processor)([replace(good, id="bad", context=(b"no image",)), good])
    assert batch["p_N"].equal(GroupCollator(judge.processor)([good])["p_N"])
    ((record, reason),) = batch["left_out"]
    assert record == "bad" and reason.startswith("a context image cannot be read: not a valid PNG")


def clip(png, *seeds: int) -> bytes:
    return encode_video([decode(png(seed, width=32, height=32)) for seed in seeds], 2)


def test_nothing_is_a_batch_of_nothing(judge: Judge) -> None:
    assert GroupCollator(judge.processor)([])["batch"] is None


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("image", "match-late-v1"),
        ("image", "fit-late-v1"),
        ("video", "fit-late-v1"),
        ("text", "fit-late-v1"),
    ],
)
def test_a_blank_batch_can_be_judged(tiny_checkpoint: Path, kind: str, template: str) -> None:
    spec = JudgeSpec(base_model=str(tiny_checkpoint), kind=kind, template=template)
    judge = Judge.from_base(spec, "cpu")
    assert judge(blank_batch(judge.processor)).shape == (1,)
