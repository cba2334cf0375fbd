"""What a group is estimated to cost, against the tokens that the engine reads for it."""

import io
import struct
import zlib
from dataclasses import replace

import pytest
import torch
from PIL import Image

from prefrm.engine import Engine
from prefrm.engine.cost import PIXELS_PER_TOKEN, _tokens_by_power
from prefrm.engine.passes import Passes
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode
from prefrm.winmatrix import Group
from tests.prefrm.candidates import group_for, noise_clip

KINDS = {
    "late": {},
    "joint": {"attention": "joint"},
    "scalar": {"head": "scalar"},
}


@pytest.fixture(params=KINDS)
def judge(tiny_checkpoint, request) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[request.param]), "cpu")


@pytest.mark.parametrize("count", [2, 7])
def test_the_estimate_is_near_what_is_read(judge, count, png, monkeypatch):
    read = []
    for name in ("keep", "read"):
        real = getattr(Passes, name)

        def counting(passes, rows, *rest, real=real):
            read.extend(len(row) for row in (rows.values() if isinstance(rows, dict) else rows))
            return real(passes, rows, *rest)

        monkeypatch.setattr(Passes, name, counting)
    group = Group(prompt="", candidates=tuple(png(seed, 64, 64) for seed in range(count)))
    engine = Engine(judge)
    engine.score([group])
    in_the_tower = count * engine.judge.processor.prepare_image(decode(group.candidates[0])).tokens
    assert engine.cost(group) == pytest.approx(sum(read) + in_the_tower, rel=0.35)


@pytest.mark.parametrize("kind", [{"kind": "video", "frames": 3}, {"kind": "text"}], ids=["video", "text"])
def test_videos_and_texts_cost_their_tokens_and_their_decoding(tiny_checkpoint, kind: dict):
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **kind), "cpu")
    engine, whole = Engine(judge), group_for(judge, *range(4))
    nothing = engine.cost(replace(whole, candidates=(None, None)))
    assert engine.cost(replace(whole, candidates=(*whole.candidates, None))) == engine.cost(whole) > nothing
    longer = {"video": [noise_clip(0, 512, 512), noise_clip(0)], "text": ["x" * 4000, "x"]}
    costs = [engine.cost(replace(whole, candidates=(one, one))) for one in longer[judge.spec.kind]]
    assert costs[0] > 1.5 * costs[1] > 1.5 * nothing


def test_what_cannot_be_read_and_what_is_not_judged_costs_nothing(judge, png):
    images = tuple(png(seed, 64, 64) for seed in range(6))
    whole = Engine(judge).cost(Group(prompt="", candidates=images))
    assert Engine(judge).cost(Group(prompt="", candidates=(*images, None, b"no image"))) == whole
    assert Engine(judge).cost(Group(prompt="", candidates=(None, None))) == 1
    budget = Engine(judge, pairs=5).cost(Group(prompt="", candidates=images))
    assert (budget < whole) == judge.spec.is_pairwise


def test_larger_images_cost_more(judge, png):
    small, large = (Group(prompt="", candidates=(png(0, side, side),) * 2) for side in (32, 128))
    assert Engine(judge).cost(small) < Engine(judge).cost(large)


def test_a_prompt_costs_its_tokens(judge, png):
    engine, images = Engine(judge), (png(0, 32, 32), png(1, 32, 32))
    nothing, long = (engine.cost(Group(prompt=prompt, candidates=images)) for prompt in ("", "ä" * 2000))
    # Two images have two orders; a template that states the prompt again does so in each.
    times = 3 if judge.processor.template.restates else 1
    assert long == nothing + 1000 * times


@pytest.mark.parametrize(
    ("attention", "template", "times"),
    [
        # Of two images: in both suffixes of each, in both orders, and after each.
        ("late", "fit-late-v1", 4),
        ("joint", "fit-v1", 2),
        ("alone", "fit-alone-v1", 2),
        ("alone", "Criterion: {criterion}\n{prompt}{image}?", 1),
    ],
)
def test_a_criterion_costs_its_tokens_in_each_of_its_places(
    tiny_checkpoint, png, attention: str, template: str, times: int
):
    head = "scalar" if attention == "alone" else "verdict"
    spec = JudgeSpec(base_model=str(tiny_checkpoint), head=head, attention=attention, template=template)
    engine, images = Engine(Judge.from_base(spec, "cpu")), (png(0, 32, 32), png(1, 32, 32))
    short, long = (
        engine.cost(Group(prompt="", candidates=images, criterion="x" * 4 * count)) for count in (1, 1001)
    )
    assert long == short + 1000 * times


def test_an_estimate_runs_no_image_processor(judge, png, monkeypatch):
    prepared = []
    real = judge.processor.prepare_image
    monkeypatch.setattr(
        judge.processor, "prepare_image", lambda image: prepared.append(image.size) or real(image)
    )
    engine = Engine(judge)
    # The tiny judge's pixel budget is spent long before, and nothing larger is tried.
    assert 0 < len(prepared) < 12
    assert max(prepared) == (512, 512)
    prepared.clear()
    for side in (1, 16, 30, 700, 2500):
        assert engine.cost(Group(prompt="", candidates=(png(0, side, side),) * 2)) > 1
    assert prepared == []


@pytest.mark.parametrize("bounds", [(0, 2**30), (2**12, 2**20), (2**9, 2**17), (2**30, 2**30)])
def test_what_is_not_measured_is_known_all_the_same(bounds):
    def measure(power: int) -> int:
        measured.append(power)
        return min(max(2**power, bounds[0]), bounds[1]) // 2**8

    measured = []
    tokens = _tokens_by_power(measure)
    assert tokens == {power: measure(power) for power in range(8, 23)}


def flat_png(width: int, height: int) -> bytes:
    """A PNG of one colour that its header alone makes large: no row is stored."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )


def test_decoding_costs_what_it_takes(judge, png):
    """64 million pixels take over a second: hundreds of times what a pair of thumbnails takes."""
    engine, small = Engine(judge), png(0, 64, 64)
    thumbnails = engine.cost(Group(prompt="", candidates=(small, small)))
    large = engine.cost(Group(prompt="", candidates=(flat_png(8000, 8000), flat_png(8000, 8000))))
    assert large > 100_000 > 100 * thumbnails


def test_each_scan_of_a_jpeg_costs_as_much_again(judge):
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 1600)).save(buffer, "JPEG", progressive=True)
    once = buffer.getvalue()
    scans = once.count(b"\xff\xda")
    many = once[:-2] + once[once.rindex(b"\xff\xda") : -2] * (100 - scans) + once[-2:]
    few, all_of_them = (
        Engine(judge).cost(Group(prompt="", candidates=(image, None))) for image in (once, many)
    )
    assert all_of_them - few == pytest.approx((100 - scans) * 1600 * 1600 / PIXELS_PER_TOKEN, abs=2)
