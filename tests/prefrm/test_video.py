"""The frames of a video are the right ones, upright and in bounded memory; hostile files are refused."""

import random
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefrm.errors import ConfigError, MediaError, MissingExtraError
from prefrm.media import ImageLimits, VideoLimits, encode_png, probe, read
from prefrm.video import (
    Frames,
    FrameSampling,
    encode_video,
    probe_media,
    probe_video,
    read_frames,
    strip,
)
from tests.videos import (
    HEIGHT,
    RATE,
    WIDTH,
    claiming_frames,
    claiming_size,
    clip,
    frames,
    of_pictures,
    of_remarks,
    patched,
    referring_to,
    sound_alone,
)

ALL = FrameSampling(count=1000, most=1000)
CLIP = clip(frames(30))
WEBM = clip(frames(30), "libvpx", "webm")
AV1 = VideoLimits(codecs=("av1",))


def shown(image):
    """The number of the frame that an image shows: the place of its bar, in 4 pixels, of 16."""
    bright = np.asarray(image.convert("L"), dtype=int).mean(axis=0) > 210
    return int(np.flatnonzero(bright & ~np.roll(bright, 1))[0]) // 4


@given(total=st.integers(1, 500), count=st.integers(1, 64))
def test_frames_are_evenly_spaced_with_both_ends(total, count):
    found = FrameSampling(count=count).indices(total, total / RATE)
    expected = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    # Halves may be rounded either way by an error in the last place.
    assert np.abs(np.array(found) - expected).max() <= 1
    assert found[0] == 0 and found == sorted(set(found)) and len(found) == min(count, total)
    assert count == 1 or found[-1] == total - 1


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        # As qwen_vl_utils: 2 frames a second of 126 frames at 24.
        (FrameSampling(rate=2.0), [0, 14, 28, 42, 56, 69, 83, 97, 111, 125]),
        (FrameSampling(rate=2.0, most=3), [0, 62, 125]),
        (FrameSampling(rate=0.01), [0]),
        (FrameSampling(count=2), [0, 125]),
        (FrameSampling(count=1), [0]),
    ],
)
def test_a_rate_or_a_count_gives_the_frames_of_published_judges(sampling, expected):
    assert sampling.indices(126, 126 / 24) == expected


@pytest.mark.parametrize(
    "given", [{}, {"count": 2, "rate": 1.0}, {"count": 0}, {"rate": 0.0}, {"rate": float("nan")}]
)
def test_one_of_count_and_rate_is_given(given):
    with pytest.raises(ConfigError, match="by a count or by a rate"):
        FrameSampling(**given)


@pytest.mark.parametrize(
    ("codec", "container", "limits"),
    [
        ("libx264", "mp4", VideoLimits()),
        ("libx265", "mp4", VideoLimits()),
        ("mpeg4", "mov", VideoLimits()),
        ("libvpx", "webm", VideoLimits()),
        ("libvpx-vp9", "webm", VideoLimits()),
        ("libx264", "matroska", VideoLimits()),
        ("libsvtav1", "mp4", AV1),
    ],
)
def test_the_sampled_frames_are_read_with_their_times(codec, container, limits, capfd):
    data = clip(frames(16), codec, container, sound=container == "mp4")
    capfd.readouterr()
    info = probe_video(data, limits)
    assert (info.width, info.height, info.frames) == (WIDTH, HEIGHT, 16)
    # A millisecond is the tick of Matroska.
    assert info.seconds == pytest.approx(16 / RATE, abs=2e-3)
    assert info.all_pixels == 16 * WIDTH * HEIGHT
    found = read_frames(data, FrameSampling(count=4), limits)
    assert [shown(image) for image in found.images] == [0, 5, 10, 15]
    assert found.times == pytest.approx([index / RATE for index in (0, 5, 10, 15)], abs=2e-3)
    assert found.interval == pytest.approx(4 / RATE, abs=1e-3)
    assert all(image.mode == "RGB" for image in found.images)
    assert capfd.readouterr() == ("", "")


def test_times_are_those_of_a_variable_frame_rate():
    ticks = [0, 1, 2, 10, 40, 41, 90]
    found = read_frames(clip(frames(7), "libvpx", "webm", ticks=ticks), ALL)
    assert [shown(image) for image in found.images] == list(range(7))
    assert found.times == pytest.approx([tick / RATE for tick in ticks], abs=2e-3)
    assert found.seconds == pytest.approx(90 / RATE * 7 / 6, abs=2e-3)


@pytest.mark.parametrize("sampling", [FrameSampling(count=4), FrameSampling(rate=1.0)])
@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx", "webm")])
def test_a_video_of_one_frame_has_one(sampling, codec, container):
    found = read_frames(clip(frames(1), codec, container), sampling)
    assert len(found) == 1 and found.times == (0.0,)


def test_durations_of_the_header_are_not_needed():
    alone = patched(clip(frames(1)), b"stts", 16, 0)
    assert probe_video(alone).seconds == 0
    assert len(read_frames(alone, FrameSampling(rate=2.0))) == 1
    unknown = patched(patched(CLIP, b"mvhd", 20, 0), b"mdhd", 20, 0)
    assert probe_video(unknown) == probe_video(CLIP)


def test_frames_that_are_all_shown_at_one_time_have_no_order():
    # Each block starts with its track and its time in milliseconds.
    data = clip(frames(4), "libvpx", "webm")
    for time in (42, 83, 125):
        data = data.replace(b"\x81" + time.to_bytes(2), b"\x81\0\0")
    with pytest.raises(MediaError, match="4 frames are all shown at one time"):
        probe_video(data)


@pytest.mark.parametrize(
    ("degrees", "turn"),
    [(90, Image.Transpose.ROTATE_90), (180, Image.Transpose.ROTATE_180), (-90, Image.Transpose.ROTATE_270)],
)
def test_frames_are_upright(degrees, turn):
    image = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
    (plain,) = read_frames(clip([image]), ALL).images
    (turned,) = read_frames(clip([image], rotation=degrees), ALL).images
    assert np.array_equal(np.asarray(turned), np.asarray(plain.transpose(turn)))


def test_frames_are_shrunk_one_at_a_time():
    whole = []

    def shrink(image):
        assert all(kept() is None for kept in whole)
        whole.append(weakref.ref(image))
        return image.resize((8, 6))

    found = read_frames(CLIP, FrameSampling(count=10), shrink=shrink)
    assert len(whole) == 10 and {image.size for image in found.images} == {(8, 6)}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 100}, r"has \d+ bytes; the limit is 100"),
        ({"max_frames": 29}, "more than 29 frames"),
        ({"max_seconds": 1.2}, "lasts 1.2 seconds; the limit is 1.2"),
        ({"max_pixels": WIDTH * HEIGHT - 1}, "64 x 48 pixels; the limit is 3071"),
        ({"max_decoded_pixels": 30 * WIDTH * HEIGHT - 1}, "92160 pixels in all; the limit is 92159"),
        ({"codecs": ("vp9", "av1")}, "codec is h264; the supported ones are vp9, av1"),
        ({"formats": ("WEBM",)}, "not a valid WEBM video but MP4"),
    ],
)
def test_each_limit_is_checked_before_frames_are_decoded(limits, message, monkeypatch):
    monkeypatch.setattr("prefrm.video._decoded", None)
    for check in (probe_video, lambda data, limits: read_frames(data, ALL, limits)):
        with pytest.raises(MediaError, match=message):
            check(CLIP, VideoLimits(**limits))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0\0\0\x20ftypisom" + bytes(20), "truncated or corrupt"),
        (b"\0\0\0\x20ftypisom" + random.Random(0).randbytes(4000), "truncated or corrupt"),
        (b"\x1a\x45\xdf\xa3" + random.Random(0).randbytes(4000), "truncated or corrupt"),
        (CLIP[: len(CLIP) // 2], "truncated or corrupt"),
        (CLIP[:-1], "truncated or corrupt"),
        (WEBM[: len(WEBM) // 2], "truncated"),
        (WEBM[:-1], "truncated"),
        (claiming_frames(200_000_000), "index has 200000000 entries"),
        (patched(CLIP, b"stsz", 8, 1, 80_000_000), "index has 80000000 entries"),
        (patched(CLIP, b"elst", 8, 1_000_000), "index has 30000000 entries"),
        (claiming_frames(70_000), "truncated"),
        (of_pictures(3), "a frame of the video holds 3 pictures"),
        (of_pictures(3, start_codes=True), "a frame of the video holds 3 pictures"),
        (of_remarks(65), "a frame of the video has more than 64 units"),
        (of_pictures(65), "a frame of the video has more than 64 units"),
        (of_pictures(65, start_codes=True), "a frame of the video has more than 64 units"),
        (CLIP.replace(b"udta", b"cmov"), "header is compressed"),
        (sound_alone(), "no video stream"),
        (clip(frames(4), format="avi"), "not a valid MP4 or WEBM video but AVI"),
        (clip(frames(4), format="mpegts"), "not a valid MP4 or WEBM video but MPEG-TS"),
        (clip(frames(4), "libsvtav1"), "codec is av1"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "not a valid MP4 or WEBM video"),
        (b"#EXTftyp\n#EXTINF:1,\nfile:///etc/hostname\n", "truncated or corrupt"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a valid MP4 or WEBM video"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "not a valid MP4 or WEBM video"),
    ],
)
def test_a_hostile_file_is_refused_before_frames_are_decoded(data, message, monkeypatch, capfd):
    monkeypatch.setattr("prefrm.video._decoded", None)
    for check in (probe_video, lambda data: read_frames(data, ALL)):
        with pytest.raises(MediaError, match=message):
            check(data)
    assert capfd.readouterr() == ("", "")


def test_images_and_videos_are_told_apart_and_checked_by_their_own_limits(tmp_path):
    image = encode_png(frames(1)[0])
    limits = ImageLimits(max_bytes=len(image), video=VideoLimits(max_bytes=len(CLIP)))
    assert probe_media(CLIP, limits) == probe_video(CLIP)
    assert probe_media(image, limits) == probe(image)
    (tmp_path / "a.mp4").write_bytes(CLIP)
    (tmp_path / "a.png").write_bytes(image)
    assert (read(tmp_path / "a.mp4", limits), read(tmp_path / "a.png", limits)) == (CLIP, image)
    with pytest.raises(MediaError, match=r"a\.mp4: the video has \d+ bytes; the limit is 9"):
        read(tmp_path / "a.mp4", ImageLimits(video=VideoLimits(max_bytes=9)))


def test_frames_that_an_edit_hides_are_decoded_and_count():
    # From the 20th frame on, of 512 ticks each.
    cut = patched(CLIP, b"elst", 16, 20 * 512)
    assert 0 < probe_video(cut).frames < 15
    for limits in (VideoLimits(max_frames=29), VideoLimits(max_decoded_pixels=30 * WIDTH * HEIGHT - 1)):
        with pytest.raises(MediaError, match=r"more than 29 frames|92160 pixels in all"):
            probe_video(cut, limits)


@pytest.mark.parametrize("start_codes", [False, True])
def test_a_frame_may_be_of_two_fields(start_codes):
    assert len(read_frames(of_pictures(2, start_codes=start_codes), ALL)) == 1


def test_frames_larger_than_the_header_says_are_refused():
    with pytest.raises(MediaError, match="truncated or corrupt"):
        read_frames(claiming_size(16_383, 16_383), ALL)


def test_frames_in_another_file_are_not_read(tmp_path):
    (tmp_path / "other.mp4").write_bytes(clip(frames(4, (32, 32))))
    found = read_frames(referring_to(tmp_path / "other.mp4"), ALL)
    # They are those of the file itself.
    assert {image.size for image in found.images} == {(WIDTH, HEIGHT)}


def test_damaged_media_data_is_refused_or_gives_frames():
    start = CLIP.index(b"mdat") + 200
    damaged = CLIP[:start] + bytes(60) + CLIP[start + 60 :]
    try:
        assert len(read_frames(damaged, ALL)) == 30
    except MediaError as error:
        assert "corrupt" in str(error)


@settings(max_examples=60)
@given(st.sampled_from([CLIP, WEBM]), st.data())
def test_whatever_the_bytes_are_there_are_frames_or_a_clear_error(whole, draws):
    changed = bytearray(whole)
    for _ in range(draws.draw(st.integers(1, 8))):
        changed[draws.draw(st.integers(8, len(whole) - 1))] = draws.draw(st.integers(0, 255))
    try:
        found = read_frames(bytes(changed), FrameSampling(count=5))
    except MediaError:
        return
    assert 1 <= len(found) <= 5 and list(found.times) == sorted(found.times)


def test_a_video_is_encoded_the_same_each_time_and_read_back():
    images = frames(16)
    data = encode_video(images, RATE)
    assert data == encode_video(images, RATE)
    found = read_frames(data, ALL)
    assert [shown(image) for image in found.images] == list(range(16))
    errors = np.abs(np.asarray(found.images[3], dtype=int) - np.asarray(images[3], dtype=int))
    assert errors.mean() < 4
    with pytest.raises(ConfigError, match="even sides"):
        encode_video(frames(2, (7, 8)), RATE)


def test_a_strip_shows_frames_side_by_side():
    whole = strip(frames(20), height=24, most=4, gap=2)
    assert whole.size == (4 * 32 + 3 * 2, 24)
    assert np.unique(np.asarray(whole)[:, 32:34]).tolist() == [176]
    assert strip(frames(1)).size == (171, 128)


def test_frames_of_a_constant_rate_are_a_whole_video():
    found = Frames.of(frames(4), rate=2)
    assert found.times == (0.0, 0.5, 1.0, 1.5) and found.seconds == 2.0 and found.interval == 0.5


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prefrm\[video\]'"):
        probe_video(CLIP)
