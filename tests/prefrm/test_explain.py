"""Maps of a verdict: on what a known scorer looks at, with the sums that they must have."""

import io
import math
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from prefrm import media
from prefrm.errors import ConfigError, MediaError, ScoringError
from prefrm.explain import credit, explain_by_gradient, explain_by_occlusion
from prefrm.video import FrameSampling, encode_video, read_frames
from prefrm.winmatrix import FakeScorer, Group

# Rows and columns of the only place that the scorers here look at.
REGION = (slice(8, 16), slice(24, 32))


def noise(seed, size=(32, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return media.encode_png(Image.fromarray(pixels))


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.float64) / 255


def brightness(prompt, image):
    return 4 * pixels(image)[REGION].mean()


class CountingScorer(FakeScorer):
    def __init__(self, utility, **options):
        super().__init__(utility, **options)
        self.groups = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)


@pytest.fixture
def images():
    return Group(prompt="p", candidates=(noise(0), noise(1)), context=(noise(2),), criterion="light")


def test_occlusion_finds_the_place_that_a_scorer_looks_at(images):
    scorer, totals, done = CountingScorer(brightness, first_bonus=0.7), [], []

    @contextmanager
    def progress(total):
        totals.append(total)
        yield done.append

    found = explain_by_occlusion(scorer, images, parts=4, progress=progress)
    outside = np.ones((32, 48), dtype=bool)
    outside[REGION] = False
    for n, map_ in enumerate(found.maps):
        assert map_.shape == (32, 48) and not map_[:8].any() and not map_[:, :24].any()
        # What is lost when the region becomes the mean color.
        data = images.candidates[n]
        mean = np.rint(pixels(data).mean(axis=(0, 1)) * 255) / 255
        expected = 4 * (pixels(data)[REGION] - mean).mean()
        assert map_.sum() == pytest.approx(expected, abs=1e-4)
    assert found.log_odds == pytest.approx(
        brightness("", images.candidates[0]) - brightness("", images.candidates[1]), abs=1e-4
    )
    assert len(scorer.groups) == totals[0] == done[-1] == 1 + 2 * 16
    assert {(group.context, group.criterion) for group in scorer.groups} == {(images.context, "light")}


def test_maps_follow_their_candidates(images):
    one = explain_by_occlusion(FakeScorer(brightness), images, parts=4)
    other = explain_by_occlusion(FakeScorer(brightness), images.permuted([1, 0]), parts=4)
    assert other.log_odds == -one.log_odds
    for mine, theirs in zip(one.maps, reversed(other.maps), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-7)


@pytest.mark.slow
def test_of_a_linear_scorer_the_gradient_times_the_input_is_the_occlusion(images):
    torch = pytest.importorskip("torch")
    from prefrm.differentiable import FakeDifferentiableScorer

    def utility(prompt, pixels):
        return 4 * pixels[:, :, REGION[0], REGION[1]].mean(dim=(1, 2, 3))

    gradient = explain_by_gradient(FakeScorer(brightness), FakeDifferentiableScorer(utility), images)
    occlusion = explain_by_occlusion(FakeScorer(brightness), images, parts=4)
    assert gradient.log_odds == occlusion.log_odds
    for exact, coarse in zip(gradient.maps, occlusion.maps, strict=True):
        assert not exact[16:].any() and exact.dtype == np.float32
        # The mean color has 8 bits where it is drawn.
        assert exact.sum() == pytest.approx(coarse.sum(), abs=4 / 255)
    assert torch.is_grad_enabled()


def test_of_a_video_the_frames_are_found_in_which_something_happens():
    def clip(bright):
        frames = [Image.new("RGB", (32, 32), (0, 0, 0)) for _ in range(16)]
        for n in bright:
            frames[n] = Image.new("RGB", (32, 32), (255, 255, 255))
        return encode_video(frames, 8)

    def late_light(prompt, data):
        frames = read_frames(data, FrameSampling(count=16)).images
        return 3 * np.mean([np.asarray(frame).mean() / 255 for frame in frames[12:]])

    group = Group(prompt="p", candidates=(clip(range(12, 16)), clip(range(0, 4))))
    found = explain_by_occlusion(FakeScorer(late_light), group, parts=4)
    first, second = found.maps
    # A quarter of the frames is white, and so is a quarter of the color of what is hidden.
    assert len(first) == len(found.parts[0]) == 16 or len(first) == 32
    quarter = len(first) // 4
    assert first[-quarter:].sum() == pytest.approx(3 * 0.75, abs=0.1)
    assert np.abs(first[:-quarter]).max() < 0.02 and np.abs(second[:-quarter]).max() < 0.02
    assert second[-quarter:].sum() == pytest.approx(-3 * 0.25, abs=0.1)
    assert list(found.parts[0]) == sorted(found.parts[0]) and found.parts[0][-1] < 2


WORTH = {"two": 1.0, "birds": 0.5, "perhaps": -0.25}


def worth(prompt, text):
    return sum(WORTH.get(word, 0.0) for word in text.split())


def test_frames_of_a_video_are_scaled_down():
    clip = encode_video([Image.new("RGB", (1030, 514), (n, n, n)) for n in range(2)], 2)
    scorer = CountingScorer(lambda prompt, data: 0.0)
    explain_by_occlusion(scorer, Group(prompt="p", candidates=(clip, clip)), parts=1)
    for group in scorer.groups:
        (frame, *_) = read_frames(group.candidates[0], FrameSampling(count=1)).images
        assert frame.size == (512, 256)


def test_of_a_text_each_word_has_what_it_is_worth():
    group = Group(prompt="how many?", candidates=("perhaps  two\nbirds sit", "no idea at all"))
    found = explain_by_occlusion(FakeScorer(worth), group)
    assert found.parts[0] == ("perhaps", "two", "birds", "sit")
    assert found.maps[0] == pytest.approx([-0.25, 1.0, 0.5, 0.0], abs=1e-6)
    assert found.maps[1] == pytest.approx([0.0] * 4)
    # The worth of words is additive, so the parts add up to the whole, however they are cut.
    assert found.maps[0].sum() == pytest.approx(found.log_odds, abs=1e-6)
    halves = explain_by_occlusion(FakeScorer(worth), group, parts=2).maps[0]
    assert halves == pytest.approx([0.375, 0.375, 0.25, 0.25], abs=1e-6)


def test_what_cannot_be_judged_without_a_part_is_nan_and_has_no_weight():
    def of_two(prompt, text):
        return worth(prompt, text) if "two" in text else refused(prompt, text)

    found = explain_by_occlusion(FakeScorer(of_two), Group(prompt="p", candidates=("two birds", "two two")))
    assert math.isnan(found.maps[0][0]) and found.unjudged == 1
    assert credit(found.maps[0]).tolist() == [0.0, 1.0]
    assert credit(np.array([np.nan, -2.0, 1.0])).tolist() == [0.0, 1.0, 0.5]
    assert credit(np.zeros((2, 2))).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def refused(prompt, candidate):
    raise ValueError("the candidate is too long")


@pytest.mark.parametrize(
    ("group", "scorer", "error", "message"),
    [
        (Group(prompt="p", candidates=("a", "b", "c")), FakeScorer(worth), ConfigError, "of two candidates"),
        (
            Group(prompt="p", candidates=("a b", "c")),
            FakeScorer(worth),
            ConfigError,
            "candidate 1 has one part",
        ),
        (Group(prompt="p", candidates=("a", None)), FakeScorer(worth), ConfigError, "1 of them missing"),
        (Group(prompt="p", candidates=("a b", "b a")), FakeScorer(refused), ScoringError, "too long"),
        (
            Group(prompt="p", candidates=(b"x", b"y")),
            FakeScorer(worth),
            MediaError,
            "not a valid PNG",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused(group, scorer, error, message):
    with pytest.raises(error, match=message):
        explain_by_occlusion(scorer, group)


def test_a_gradient_is_of_two_images_of_one_size():
    pytest.importorskip("torch")
    from prefrm.differentiable import FakeDifferentiableScorer

    fake = FakeDifferentiableScorer(lambda prompt, pixels: pixels.mean(dim=(1, 2, 3)))
    sizes = Group(prompt="p", candidates=(noise(0), noise(1, (16, 16))))
    with pytest.raises(ConfigError, match="48 x 32 and 16 x 16; use occlusion"):
        explain_by_gradient(FakeScorer(brightness), fake, sizes)
    with pytest.raises(ConfigError, match="explain texts by occlusion"):
        explain_by_gradient(FakeScorer(worth), fake, Group(prompt="p", candidates=("a", "b")))
