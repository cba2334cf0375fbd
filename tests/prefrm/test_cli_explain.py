"""`prefrm explain`: the files that it writes, over a fake scorer and over a real bundle."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrm import media
from prefrm.bundle import write_bundle
from prefrm.cli import run, shared
from prefrm.video import encode_video
from prefrm.winmatrix import FakeScorer, WinMatrix


def length(prompt: str, candidate: bytes | str) -> float:
    if candidate in ("no", "birds"):
        raise ValueError("half of the answer is missing")
    return len(candidate) / 1000


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The groups that a scorer of lengths is asked."""
    groups: list[object] = []

    class Lengths(FakeScorer):
        def score(self, asked: object) -> list[WinMatrix]:
            groups.extend(asked)
            return super().score(asked)

    @contextmanager
    def opened(target: str, **options: object) -> Iterator[FakeScorer]:
        yield Lengths(length)

    monkeypatch.setattr(shared.scorers, "open_scorer", opened)
    return groups


def explain(out: Path, *arguments: str) -> int:
    return run(["explain", "grpc://judge:1/judge", "how many?", *arguments, "--out", str(out)])


def test_texts_by_a_criterion_and_about_an_image(
    seen: list,
    tmp_path: Path,
    png: Callable[..., bytes],
    figure_texts: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(png(1))
    options = ("--text", "--context", str(source), "--criterion", "detail")
    assert explain(tmp_path / "out", "three birds", "no birds", *options) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("P(A beats B) = 0.501; see ")
    assert captured.err == "3 parts not judged: grey in the picture\n"
    assert {(group.context, group.criterion) for group in seen} == {((png(1),), "detail")}
    numbers = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert numbers["parts"] == [["three", "birds"], ["no", "birds"]] and numbers["kind"] == "text"
    assert numbers["sums"] == [pytest.approx(0.006, abs=1e-5), None] and numbers["unjudged_parts"] == 3
    with np.load(tmp_path / "out" / "explanation.npz") as arrays:
        # A blank goes with a word.
        assert arrays["a"] == pytest.approx([np.nan, 0.006], abs=1e-5, nan_ok=True)
        assert np.isnan(arrays["b"]).all() and arrays["credit_a"].max() == 1
    assert media.decode((tmp_path / "out" / "explanation.png").read_bytes()).width > 1000
    assert {"criterion", "detail", "context"} < {*figure_texts[0]}


def test_videos(seen: list, tmp_path: Path) -> None:
    for name in "ab":
        frames = [Image.effect_noise((32, 32), 50).convert("RGB") for _ in range(8)]
        (tmp_path / f"{name}.mp4").write_bytes(encode_video(frames, 8))
    files = [str(tmp_path / f"{name}.mp4") for name in "ab"]
    assert explain(tmp_path / "out", *files, "--parts", "2") == 0
    assert len(seen) == 5 and all(group.kind == "video" for group in seen)
    with np.load(tmp_path / "out" / "explanation.npz") as arrays:
        assert arrays["a"].shape == (8,) and len(set(arrays["a"].tolist())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--parts", "2"), ("--method", "gradient")])
def test_images_by_a_real_judge(
    judge: object, tmp_path: Path, png: Callable[..., bytes], options: tuple[str, ...]
) -> None:
    bundle = tmp_path / "bundle"
    write_bundle(bundle, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n")
    for n, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(png(n))
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    assert run(["explain", str(bundle), "a cat", *files, "--out", str(tmp_path / "out"), *options]) == 0
    size = media.decode(png(0)).size
    with np.load(tmp_path / "out" / "explanation.npz") as arrays:
        for name in "ab":
            assert arrays[name].shape == size[::-1] and np.isfinite(arrays[name]).all() and arrays[name].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "b.png", "--method", "gradient", "--parts", "3"), "--parts is for --method occlusion"),
        (("a.png", "b.png"), "a.png"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("explain URL p CLIP IMAGE --out out", "candidates are of one kind; CLIP is a video, IMAGE an image"),
        ("score URL --prompt p IMAGE CLIP", "candidates are of one kind; CLIP is a video, IMAGE an image"),
        ("score URL --prompt p --text a --text b --context CLIP", "--context takes images; CLIP is a video"),
        ("score URL --prompt p --text a --text b --context IMAGE --context HALF", "HALF: "),
        ("explain URL p a b --text --context HALF --out out", "HALF: "),
        (
            "explain URL p two three --out out",
            "two: cannot be read: No such file or directory; if they are texts",
        ),
        ("explain URL p CLIP CUT --out out", "CUT: the video is truncated or corrupt"),
        ("score URL --prompt p two three", "if they are texts, give them with --text"),
        (
            "score URL --prompt p IMAGE JUNK",
            "JUNK: not a valid PNG or JPEG or WEBP image and not a valid MP4",
        ),
    ],
)
def test_candidates_of_another_kind_are_refused_first(
    tmp_path: Path,
    png: Callable[..., bytes],
    command: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip, image, junk = tmp_path / "a.mp4", tmp_path / "b.png", tmp_path / "c.mp4"
    junk.write_bytes(b"junk")
    clip.write_bytes(encode_video([Image.new("RGB", (16, 16))] * 2, 2))
    image.write_bytes(png(1))
    cut = tmp_path / "d.mp4"
    cut.write_bytes(clip.read_bytes()[:-100])
    names = {"URL": "grpc://judge:1/judge", "CLIP": str(clip), "IMAGE": str(image), "JUNK": str(junk)}
    half = tmp_path / "half.png"
    half.write_bytes(png(1)[:-40])
    names |= {"CUT": str(cut), "HALF": str(half)}
    assert run([names.get(word, word) for word in command.split()]) == 2
    for word, name in names.items():
        message = message.replace(word, name)
    assert message in capsys.readouterr().err
