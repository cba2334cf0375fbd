"""Images of several shapes in one pass of the vision tower, in every family."""

import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.engine import Engine, FeatureCache
from prefrm.engine.encoder import Encoder, JudgeTower
from prefrm.engine.plan import Key
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError, MissingExtraError
from prefrm.judge import ContentReader, Judge, JudgeSpec, contents
from prefrm.media import DEFAULT_LIMITS, decode, digest
from prefrm.video import Frames, FrameSampling, read_frames
from prefrm.winmatrix import Group
from tests.prefrm.candidates import noise_clip
from tests.prefrm.judge.families import TINY, save_checkpoint

SIZES = ((48, 32), (32, 32), (16, 64), (100, 70), (32, 32), (64, 48), (20, 20))


@pytest.fixture(scope="module", params=sorted(TINY))
def judge(request, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    return Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")


@pytest.fixture
def images(png) -> tuple[bytes, ...]:
    return tuple(
        png(seed, width=width, height=height, top=30 * seed + 60)
        for seed, (width, height) in enumerate(SIZES)
    )


@pytest.fixture
def patches(judge: Judge, images) -> int:
    """Of a pass: as many as the largest and the smallest image have."""
    units = [judge.processor.prepare_image(decode(image)).units for image in images]
    return (max(units) + min(units)) * judge.family.unit_patches(judge.model.config)


def keyed(images: Iterable[bytes]) -> dict[Key, bytes]:
    return {Key("image", digest(image)): image for image in images}


@contextmanager
def tower_passes(judge: Judge) -> Iterator[list[int]]:
    """How many patches or tiles each pass of the vision tower in the block is given."""
    passes: list[int] = []

    def watched(module, args, kwargs) -> None:
        passes.append(len(args[0] if args else kwargs["pixel_values"]))

    tower = judge.model.get_submodule(judge.family.vision_tower)
    handle = tower.register_forward_pre_hook(watched, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


@pytest.mark.parametrize("fill", [0, 1, 4, 37])
@torch.inference_mode()
def test_packed_features_are_those_of_one_image_at_a_time(judge: Judge, images, fill: int):
    prepared = [judge.processor.prepare_image(decode(image)) for image in images]
    assert len({image.pixels.shape for image in prepared}) > 1
    alone = [judge.encode([image])[image] for image in prepared]
    with tower_passes(judge) as passes:
        packed = judge.encode(prepared, fill)
    assert len(packed) == len(prepared)
    assert 0 <= sum(image.units for image in prepared) + fill - sum(passes) < 4
    for image, features in zip(prepared, alone, strict=True):
        torch.testing.assert_close(packed[image], features, atol=1e-5, rtol=0)


def test_a_packed_pass_has_the_patches_of_its_images_and_no_others(judge: Judge, images, patches: int):
    units = [judge.processor.prepare_image(decode(image)).units for image in images]
    most = patches // judge.family.unit_patches(judge.model.config)
    group = Group(prompt="a cat", candidates=images)
    passes: dict[str, list[int]] = {}
    (alone,) = Engine(judge, cache_bytes=0).score([group])
    for name, settings in {
        "alone": (1, False),
        "packed": (patches, False),
        "filled": (patches, True),
    }.items():
        engine = Engine(judge, cache_bytes=0)
        engine._encode = Encoder(JudgeTower(judge, DEFAULT_LIMITS), engine.cache, *settings)
        with tower_passes(judge) as passes[name]:
            (matrix,) = engine.score([group])
        np.testing.assert_allclose(matrix.p, alone.p, atol=1e-5)
    assert sorted(passes["alone"]) == sorted(units)
    assert sum(passes["packed"]) == sum(units) and max(passes["packed"]) <= most
    assert passes["filled"] == [most] * len(passes["packed"]) and len(passes["packed"]) < len(units)


def test_what_else_is_in_a_filled_pass_changes_no_bit(judge: Judge, images, patches: int):
    """Of image features, which tell more than probabilities."""
    chance, first = random.Random(0), dict[bytes, torch.Tensor]()
    for _ in range(20):
        some = keyed(chance.sample(images, chance.randint(1, 4)))
        encode = Encoder(JudgeTower(judge, DEFAULT_LIMITS), FeatureCache(0), patches, True)
        with torch.inference_mode():
            found, _ = encode(some, RefCounted(()))
        for n, image in some.items():
            (features,) = found[n].features.values()
            assert torch.equal(features, first.setdefault(image, features))
    assert len(first) == len(images)


@pytest.mark.parametrize("share", [False, True])
def test_what_else_is_in_a_call_changes_no_bit_on_a_cpu(judge: Judge, images, patches: int, share: bool):
    a, b, c, d, e, f, g = images
    group = Group(prompt="a cat", candidates=(a, c, g))
    engine = Engine(judge, cache_bytes=0, patches=patches, share=share)
    (alone,) = engine.score([group])
    others = [Group(prompt="a dog", candidates=(b, d, e)), Group(prompt="x", candidates=(f, g))]
    assert engine.score([others[0], group, others[1]])[1].equals(alone)
    assert engine.score([others[1], *others, group])[3].equals(alone)


def test_what_was_prepared_ahead_is_not_decoded_again_and_changes_no_bit(judge: Judge, images, monkeypatch):
    group = Group(prompt="a cat", candidates=(*images, b"not an image"))
    engine = Engine(judge, cache_bytes=0)
    (own,) = engine.score([group])
    kept = [engine.prepare(image) for image in group.candidates]
    assert engine.prepare(images[0]) is kept[0]
    decoded = []
    monkeypatch.setattr(contents, "decode", lambda data, limits: decoded.append(data) or decode(data, limits))
    (ahead,) = engine.score([group])
    assert ahead.equals(own) and ahead.errors == own.errors
    assert decoded == []
    kept.clear()
    engine.score([group])
    assert len(decoded) == len({*images}) + 1


def test_images_that_threads_decode_ahead_change_no_bit(judge: Judge, images, monkeypatch):
    named = keyed((*images, b"not an image"))
    threads: set[str] = set()

    def watched(data, limits):
        threads.add(threading.current_thread().name)
        return decode(data, limits)

    monkeypatch.setattr(contents, "decode", watched)
    found = []
    for count in (0, 3):
        encode = Encoder(JudgeTower(judge, DEFAULT_LIMITS), FeatureCache(0), 1, True, threads=count)
        with torch.inference_mode():
            found.append(encode(named, RefCounted(())))
    (alone, reasons), (ahead, same) = found
    assert list(alone) == list(ahead) == list(named)[:-1] and reasons == same
    (a, b) = ([x for one in each.values() for x in one.features.values()] for each in (alone, ahead))
    assert len(a) == len(images) and all(map(torch.equal, a, b))
    assert threading.current_thread().name in threads and len(threads) > 1


def test_an_image_in_the_cache_is_not_decoded_ahead(judge: Judge, images, monkeypatch):
    engine = Engine(judge)
    group = Group(prompt="a cat", candidates=images[:2])
    (own,) = engine.score([group])
    monkeypatch.setattr(contents, "decode", None)
    kept = [engine.prepare(image) for image in group.candidates]
    # Even if the cache drops its features in the meantime.
    engine.cache._contents.clear()
    (again,) = engine.score([group])
    assert again.equals(own) and len(kept) == 2


@pytest.mark.parametrize("size", [(48, 32), (20, 20), (300, 200), (31, 700), (1, 90), (3, 590), (5, 1001)])
def test_a_shrunk_image_is_what_the_image_processor_makes_of_the_whole(judge: Judge, size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, processor = Image.fromarray(pixels), judge.processor
    try:
        small = processor.shrink(image)
    except MediaError:
        with pytest.raises(MediaError):
            processor.prepare_image(image)
        return
    expected = processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor.prepare_image(image).pixels, expected.squeeze(0))
    if small is not None:
        assert torch.equal(processor.prepare_image(small).pixels, expected.squeeze(0))


def test_the_families_of_qwen_shrink_images(judge: Judge):
    is_shrunk = judge.processor.shrink(Image.new("RGB", (300, 200))) is not None
    assert is_shrunk == judge.family.model_type.startswith("qwen")


@pytest.fixture(scope="module")
def viewer(judge: Judge) -> Judge:
    return Judge.from_base(replace(judge.spec, kind="video", template="", frames=3), "cpu")


def test_a_decoded_video_takes_no_more_than_its_estimate(viewer: Judge):
    clip, read = noise_clip(0, 640, 480), ContentReader(viewer.processor)
    decoded = read.decode(clip, "video")
    if isinstance(decoded, Frames):
        taken = sum(image.width * image.height * 4 for image in decoded.images)
    else:
        taken = sum(part.pixels.nbytes for part in decoded)
    assert 0 < taken <= Engine(viewer).prepared_bytes
    whole = viewer.processor.prepare_frames(read_frames(clip, FrameSampling(count=3)))
    for part, expected in zip(read.prepare(decoded), whole, strict=True):
        assert part == expected if isinstance(part, list) else torch.equal(part.pixels, expected.pixels)


def test_an_engine_of_videos_needs_what_decodes_them(viewer: Judge, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prefrm\[video\]'"):
        Engine(viewer)
