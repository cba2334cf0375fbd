"""The reward function of flow_grpo, called as its trainer calls it."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, DatasetError, IncompleteMatrixError
from prefrm.grpo import FlowGRPOReward
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.grpo.pixels import PixelScorer, brightness, shades


def multi_score(score_fns, weights):
    """As flow_grpo/rewards.py adds up its rewards."""

    def _fn(images, prompts, metadata, ref_images=None, only_strict=True):
        details = {name: score_fn(images, prompts, metadata)[0] for name, score_fn in score_fns.items()}
        details["avg"] = [
            sum(w * s for w, s in zip(weights, row, strict=True))
            for row in zip(*details.values(), strict=True)
        ]
        return details, {}

    return _fn


def expected(prompt, *values):
    images = shades(*values)
    utilities = [float(image.mean()) * 10 for image in images]
    fake = FakeScorer(lambda _, image: float(image))
    (matrix,) = fake.score([Group(prompt=prompt, candidates=tuple(str(u).encode() for u in utilities))])
    return matrix.win_rate()


def test_it_takes_the_place_of_one_of_flow_grpos_own():
    torch = pytest.importorskip("torch")
    reward_fn = multi_score({"judge": FlowGRPOReward(PixelScorer(), group_size=3)}, [2.0])
    images = torch.from_numpy(shades(0.1, 0.9, 0.5, 0.2, 0.4, 0.3))
    # Its sampler shuffles the images of the prompts it drew.
    prompts = ["a", "b", "a", "b", "a", "b"]
    metadata = [{}] * 6
    executor = ThreadPoolExecutor(max_workers=8)
    rewards, _ = executor.submit(reward_fn, images, prompts, metadata, only_strict=True).result()
    a, b = expected("a", 0.1, 0.5, 0.4), expected("b", 0.9, 0.2, 0.3)
    both = [a[0], b[0], a[1], b[1], a[2], b[2]]
    assert rewards["judge"] == pytest.approx(both, abs=1e-6)
    as_trainer = torch.as_tensor(rewards["avg"], device="cpu").float()
    assert as_trainer.tolist() == pytest.approx([2 * reward for reward in both], abs=1e-6)


def test_pixels_as_uint8_and_a_tuple_of_prompts():
    scorer = PixelScorer()
    pixels = (shades(0.2, 0.8) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    scores, info = FlowGRPOReward(scorer, group_size=2)(pixels, ("a cat", "a cat"), ({}, {}))
    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected("a cat", 0.2, 0.8), abs=1e-6)
    assert [(group.prompt, group.size) for group in scorer.groups] == [("a cat", 2)]
    # The judge prefers what it sees first by 0.5 nats, whatever the pair.
    assert info["order_gap"] == pytest.approx([scorer.gap(0.2, 0.8)] * 2, abs=1e-4)


def test_groups_by_an_entry_of_the_metadata():
    scorer = PixelScorer()
    reward = FlowGRPOReward(scorer, group_size=2, group_key="uid")
    metadata = [{"uid": uid} for uid in (7, 8, 8, 7)]
    scores, _ = reward(shades(0.1, 0.2, 0.3, 0.4), ["a"] * 4, metadata)
    first, second = expected("a", 0.1, 0.4), expected("a", 0.2, 0.3)
    assert scores == pytest.approx([first[0], second[0], second[1], first[1]], abs=1e-6)
    with pytest.raises(ConfigError, match="the metadata of image 0 has no plain 'uid'"):
        reward(shades(0.1, 0.2), ["a"] * 2, [{}, {}])


def test_one_instruction_for_two_sources_is_two_groups():
    """As the editing trainers of flow_grpo pass it: the source's path is in the metadata."""
    metadata = [{"image": path, "prompt": "a"} for path in ("x.png", "y.png", "y.png", "x.png")]
    scores, _ = FlowGRPOReward(PixelScorer(), group_size=2)(shades(0.1, 0.2, 0.3, 0.4), ["a"] * 4, metadata)
    first, second = expected("a", 0.1, 0.4), expected("a", 0.2, 0.3)
    assert scores == pytest.approx([first[0], second[0], second[1], first[1]], abs=1e-6)


def test_metadata_that_cannot_be_compared_needs_a_key():
    reward = FlowGRPOReward(PixelScorer(), group_size=2)
    with pytest.raises(ConfigError, match=r"the metadata of image 0 has no plain values.*pass group_key"):
        reward(shades(0.1, 0.2), ["a"] * 2, [{"source": object()}] * 2)


def test_a_prompt_drawn_twice_is_two_groups():
    scores, _ = FlowGRPOReward(PixelScorer(), group_size=2)(shades(0.1, 0.2, 0.3, 0.4), ["a"] * 4, [])
    assert scores == pytest.approx([*expected("a", 0.1, 0.2), *expected("a", 0.3, 0.4)], abs=1e-6)


@pytest.mark.parametrize(("prompts", "count", "key"), [("aaab", 1, "a"), ("abcd", 1, "a"), ("aabc", 1, "b")])
def test_a_call_on_the_main_thread_brings_whole_groups(prompts, count, key):
    message = f"{count} images of '{key}' came, which are not a whole group of 2, and no other call can come"
    with pytest.raises(ConfigError, match=message):
        FlowGRPOReward(PixelScorer(), group_size=2)(shades(0.1, 0.2, 0.3, 0.4), list(prompts), [])


class TestEvaluation:
    """flow_grpo's evaluation: an image a prompt, `only_strict=False`, which `multi_score` keeps to itself."""

    images, prompts = shades(0.1, 0.9, 0.5), ["a", "b", "c"]

    def ask(self, scorer=None, **options):
        reward = FlowGRPOReward(scorer or PixelScorer(), group_size=3, **options)
        scores, _ = multi_score({"judge": reward}, [1.0])(
            self.images, self.prompts, [{"seed": 3}] * 3, only_strict=False
        )
        return scores["judge"]

    def test_an_image_without_a_comparison_has_no_reward_and_stops_nothing(self):
        scorer = PixelScorer()
        assert np.isnan(self.ask(scorer)).all() and scorer.groups == []

    def test_the_error_says_what_the_trainer_does(self):
        with pytest.raises(ConfigError, match="flow_grpo evaluates with one image of a prompt"):
            self.ask(on_single="raise")

    def test_a_reference_image_is_the_opponent(self):
        asked = []

        def reference(prompt, metadata):
            asked.append((prompt, metadata))
            return shades(0.5)[0]

        scores = self.ask(on_single="reference", reference=reference)
        assert scores == pytest.approx([expected("", v, 0.5)[0] for v in (0.1, 0.9, 0.5)], abs=1e-6)
        assert scores[2] == pytest.approx(0.5)
        assert asked == [(prompt, {"seed": 3}) for prompt in "abc"]

    def test_a_prompt_without_a_reference_has_no_reward(self):
        def reference(prompt, metadata):
            return None if prompt == "b" else shades(0.5)[0]

        with pytest.raises(IncompleteMatrixError, match="1 of 1 candidates have no reward"):
            self.ask(on_single="reference", reference=reference)
        scores = self.ask(on_single="reference", reference=reference, on_missing="drop")
        assert np.isnan(scores).tolist() == [False, True, False]

    def test_references_in_a_folder(self, tmp_path):
        rows = []
        for n, prompt in enumerate("abc"):
            image = (shades(0.5)[0] * 255).round().astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(image).save(tmp_path / f"{n}.png")
            rows.append(json.dumps({"file_name": f"{n}.png", "prompt": prompt}))
        (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
        scores = self.ask(on_single="reference", reference=tmp_path)
        assert scores == pytest.approx([expected("", v, 0.5)[0] for v in (0.1, 0.9, 0.5)], abs=1e-6)

    def test_settings_that_do_not_go_together(self):
        with pytest.raises(ConfigError, match='on_single must be "reference", "nan" or "raise"'):
            self.ask(on_single="mean")
        with pytest.raises(ConfigError, match="go together; received on_single='reference' without a"):
            self.ask(on_single="reference")
        with pytest.raises(ConfigError, match="go together; received on_single='nan' with a"):
            self.ask(reference=lambda prompt, metadata: None)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "reference images need .*metadata.jsonl"),
        ("{}", "line 1 of .*metadata.jsonl must be JSON with file_name and prompt; received '{}'"),
        ('{"file_name": "a.png", "prompt": "a"}', "line 1 of .* names .*a.png, which is not a file"),
    ],
)
def test_a_folder_that_holds_no_references(tmp_path, index, message):
    if index is not None:
        (tmp_path / "metadata.jsonl").write_text(index)
    with pytest.raises(DatasetError, match=message):
        FlowGRPOReward(PixelScorer(), group_size=2, on_single="reference", reference=tmp_path)


def test_an_image_without_a_reward_stops_the_run_or_is_nan():
    def broken(prompt, image):
        value = brightness(prompt, image)
        if value > 8:
            raise ValueError("too bright to judge")
        return value

    images, prompts = shades(0.1, 0.9, 0.5), ["a"] * 3
    with pytest.raises(IncompleteMatrixError, match="too bright"):
        FlowGRPOReward(FakeScorer(broken), group_size=3)(images, prompts, [])
    scores, info = FlowGRPOReward(FakeScorer(broken), group_size=3, on_missing="drop")(images, prompts, [])
    assert np.isnan(scores).tolist() == np.isnan(info["order_gap"]).tolist() == [False, True, False]
    assert scores[[0, 2]] == pytest.approx(expected("a", 0.1, 0.5), abs=1e-6)


def test_a_setting_or_a_batch_that_cannot_be(scorer):
    with pytest.raises(ConfigError, match="at least 2 images; received group_size=1"):
        FlowGRPOReward(scorer, group_size=1)
    with pytest.raises(ConfigError, match="reward must be one of win_rate"):
        FlowGRPOReward(scorer, group_size=2, reward="elo")
    with pytest.raises(ConfigError, match="received 2 images and 3 prompts"):
        FlowGRPOReward(scorer, group_size=2)(shades(0.1, 0.2), ["a"] * 3, [])
