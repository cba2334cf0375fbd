"""A group takes candidates in the forms that people have, and refuses others when it is made."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.media import CONVERTED_FORMATS, ImageLimits, decode
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import EVERYTHING, FakeScorer, Group, Inputs, check_groups, inputs_of

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
CLIP = b"\0\0\0\x18ftypmp42"


@pytest.fixture
def file(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_every_form_of_an_image_is_the_same_candidate(file):
    encoded = file.read_bytes()
    forms = [str(file), file, encoded, PICTURE, PIXELS, (PIXELS / 255).astype(np.float32)]
    group = Group.of("a cat", [*forms, None])
    assert group.candidates[:3] == (encoded,) * 3
    assert all(np.array_equal(np.asarray(decode(image)), PIXELS) for image in group.candidates[:-1])
    assert group.candidates[-1] is None
    assert group == Group(prompt="a cat", candidates=group.candidates)


def test_a_group_may_have_images_that_belong_to_its_prompt(file):
    group = Group.of("add a hat", [file, file], context=[str(file)])
    assert group.context == (file.read_bytes(),)
    assert group.permuted([1, 0]).context == group.context
    assert group.content_bytes == len("add a hat") + 3 * len(file.read_bytes())
    for context in ([b"x"], (None,), (b"",)):
        with pytest.raises(RecordError, match="context is a tuple of encoded images"):
            Group(prompt="x", candidates=(b"a", b"b"), context=context)


def test_what_a_scorer_does_not_read_is_refused(file):
    plain = Group.of("a", [file] * 2)
    edit = Group.of("a", [file] * 2, context=[file])
    axis = Group.of("a", [file] * 2, criterion="colour")
    texts = Group(prompt="a", candidates=("x", "y"))
    assert check_groups(iter([plain, edit, axis, texts])) == [plain, edit, axis, texts]
    for group, reason in (
        (plain, ""),
        (edit, "the group has a context, which this judge does not read"),
        (axis, "the group has a criterion, which this judge does not read"),
        (texts, "the candidates are texts; this judge reads images"),
    ):
        found = Inputs().refusal(group)
        assert found.startswith(reason) and bool(found) == bool(reason)
    wants = Inputs(context=True, criterion=True, needs_context=True, needs_criterion=True)
    assert wants.refusal(plain).startswith("the group has no context image, which this judge needs")
    assert wants.refusal(edit).startswith("the group has no criterion, which this judge needs")
    assert wants.refusal(replace(edit, criterion="hue")) == ""


@pytest.mark.parametrize(
    ("candidates", "refused"),
    [
        # Nothing tells the kind of candidates that are missing.
        ((None, ""), {}),
        ((b"x", CLIP), {"text": "images and videos"}),
        ((b"x", None), {"video": "images", "text": "images"}),
        ((CLIP, b""), {"image": "videos", "text": "videos"}),
        (("a", None), {"image": "texts", "video": "texts"}),
    ],
)
def test_one_candidate_of_a_scorers_kind_is_enough(candidates, refused):
    group = Group(prompt="a", candidates=candidates)
    for kind in EVERYTHING.kinds:
        reason = Inputs(kinds=(kind,)).refusal(group)
        assert reason == (
            f"the candidates are {refused[kind]}; this judge reads {kind}s" if kind in refused else ""
        )


def test_bytes_of_no_kind_that_a_scorer_reads_are_read_as_one_that_it_reads():
    for kinds, expected in {
        ("image",): ("image", "image"),
        ("video",): ("video", "video"),
        ("image", "video"): ("image", "video"),
        EVERYTHING.kinds: ("image", "video"),
    }.items():
        inputs = Inputs(kinds=kinds)
        assert (inputs.read_as(b"junk"), inputs.read_as(CLIP)) == expected


def test_scorers_of_the_same_groups_read_what_each_of_them_reads():
    assert EVERYTHING.both(Inputs(criterion=True)) == Inputs(criterion=True)
    assert inputs_of(FakeScorer(lambda prompt, candidate: 0.0)) == EVERYTHING
    assert inputs_of(object()) == Inputs()


def test_judges_of_different_kinds_together_read_nothing():
    refusal = Inputs().both(Inputs(kinds=("text",))).refusal(Group(prompt="p", candidates=("a", "b")))
    assert refusal.endswith("this judge reads no kind of candidate that all its members read")


def test_a_batch_is_a_group():
    torch = pytest.importorskip("torch")
    batch = np.stack([PIXELS, 255 - PIXELS])
    channels_first = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
    assert Group.of("a cat", batch) == Group.of("a cat", list(batch)) == Group.of("a cat", channels_first)


@pytest.mark.parametrize("format", CONVERTED_FORMATS)
def test_files_that_a_server_refuses_are_converted(format, tmp_path, file):
    options = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(format, {})
    picture = PICTURE.quantize(16).convert("RGB") if format == "GIF" else PICTURE
    more = {"save_all": True, "append_images": [Image.new("RGB", PICTURE.size)]} if format != "BMP" else {}
    picture.save(tmp_path / "b", format=format, **options, **more)
    converted = Group.of("a cat", [tmp_path / "b", file]).candidates[0]
    with Image.open(io.BytesIO(converted)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("PNG", 1)
    with Image.open(tmp_path / "b") as first:
        assert np.array_equal(np.asarray(decode(converted)), np.asarray(first.convert("RGB")))


def test_every_candidate_that_cannot_be_read_is_named(file, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    with pytest.raises(MediaError) as caught:
        Group.of("x", [file, text, str(tmp_path / "absent.png"), 7, np.full((3, 4, 5), np.nan)])
    for n, reason in enumerate(
        (
            f"{text}: not a valid PNG or JPEG or WEBP image and not a valid MP4 or WEBM video",
            f"{tmp_path / 'absent.png'}: cannot be read: No such file or directory",
            "an image is a Pillow image, an array, a tensor or encoded bytes; received int",
            "an image has a pixel that is NaN",
        ),
        1,
    ):
        assert f"candidate {n}: {reason}" in str(caught.value)
    with pytest.raises(MediaError, match=r"candidate 0: .*a\.png: the image has 4 x 5 pixels"):
        Group.of("x", [file, PICTURE], limits=ImageLimits(max_pixels=19))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"candidates": ["a cat", "a dog"]}, MediaError, r"if they are texts, write Group\(prompt="),
        ({"context": ["/absent.png"]}, MediaError, r"^context image 0: /absent\.png: cannot be read"),
        ({"context": "/absent.png"}, ConfigError, "context images: images are a sequence.*received str"),
        (
            {"context": [None]},
            RecordError,
            "context is a tuple of encoded images, none of them empty or None",
        ),
    ],
)
def test_the_field_that_cannot_be_read_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        Group.of("x", **({"candidates": [PICTURE, PICTURE]} | changes))


@pytest.mark.parametrize("candidates", ["a.png", b"\x89PNG", PICTURE, 7, None])
def test_candidates_that_are_not_several_are_refused(candidates):
    with pytest.raises(ConfigError, match="images are a sequence, an array or a tensor; received"):
        Group.of("x", candidates)


def test_one_candidate_is_not_a_group(file):
    with pytest.raises(RecordError, match="at least 2"):
        Group.of("x", [file])


@pytest.mark.parametrize(
    ("images", "received"),
    [
        ((b"x", PICTURE), "candidate 1 is Image"),
        ((b"x", PIXELS), "candidate 1 is ndarray"),
        ((bytearray(b"x"), b"x"), "candidate 0 is bytearray"),
        ([b"x", b"y"], "candidates are a tuple; received list"),
        (np.stack([PIXELS, PIXELS]), "candidates are a tuple; received ndarray"),
        (None, "candidates are a tuple; received NoneType"),
    ],
)
def test_what_a_group_cannot_hold_is_refused_when_it_is_made(images, received):
    with pytest.raises(RecordError, match=rf"{received}; Group\.of\(prompt, candidates\) takes paths"):
        Group(prompt="x", candidates=images)


@pytest.mark.parametrize("prompt", [None, b"a cat", 7, ["a cat"]])
def test_a_prompt_is_a_string(prompt):
    for make in (
        lambda: Group(prompt=prompt, candidates=(b"x", b"y")),
        lambda: Group.of(prompt, [b"x", b"y"]),
    ):
        with pytest.raises(RecordError, match="a group's prompt is a string; received"):
            make()


def test_a_record_holds_what_a_group_holds():
    with pytest.raises(RecordError, match=r"record 'r1': .* all texts or all encoded bytes; received both"):
        PreferenceGroup(id="r1", prompt="x", candidates=(b"x", "a.png"), comparisons=())


@pytest.mark.parametrize(
    ("candidates", "kind"),
    [
        ((b"x", None), "image"),
        ((None, None), "image"),
        (("a cat", None), "text"),
        ((CLIP, b"broken"), "video"),
        ((b"\0\0\0\x18ftypavif", b"x"), "image"),
        ((b"\x1aE\xdf\xa3", b"\x1aE\xdf\xa3"), "video"),
    ],
)
def test_the_kind_of_a_group_is_that_of_its_candidates(candidates, kind):
    assert Group(prompt="x", candidates=candidates).kind == kind


def test_a_scorer_names_what_is_no_list_of_groups():
    scorer = FakeScorer(lambda prompt, image: 0.0)
    group = Group(prompt="x", candidates=(b"x", b"y"))
    with pytest.raises(RecordError, match=r"received Group: write score\(\[group\]\)"):
        scorer.score(group)
    with pytest.raises(RecordError, match="its item 1 is tuple"):
        scorer.score([group, group.candidates])
