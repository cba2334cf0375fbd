"""How each family takes the frames of a video: patches, positions, features and times as `transformers`.

And its own forward pass of two videos.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from prefrm.errors import MediaError
from prefrm.judge import Judge, JudgeSpec, path
from prefrm.judge.images import ImageInput
from prefrm.video import Frames
from tests.prefrm.judge.comparing import reading
from tests.prefrm.judge.families import TINY, save_checkpoint

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
COUNT = 5  # of frames, which do not fill three steps
RATE = 0.75


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judge]:
    def make(name: str) -> Judge:
        folder: Path = save_checkpoint(tmp_path_factory.mktemp(name), name)
        return Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")

    return {name: make(name) for name in TINY}


@pytest.fixture
def frames() -> Frames:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 48, 3), dtype=np.uint8)
    return Frames.of([Image.fromarray(each) for each in pixels], RATE)


def inputs(content) -> list[ImageInput]:
    return [part for part in content if isinstance(part, ImageInput)]


@pytest.mark.parametrize("name", QWEN)
def test_patches_have_the_pixels_of_two_frames(judges, frames, name: str):
    """By the formula of `Qwen2VLVideoProcessor.patchify`, which needs torchvision."""
    processor = judges[name].processor
    found = torch.cat([part.pixels for part in inputs(processor.prepare_frames(frames))])
    images, own = [*frames.images, frames.images[-1]], processor.image_processor
    scaled = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) * own.rescale_factor
    mean, std = (torch.tensor(values)[:, None, None] for values in (own.image_mean, own.image_std))
    # Steps, frames of one, colours, then rows and columns each as tokens, patches of one, pixels of one.
    cut = ((scaled - mean) / std).view(3, 2, 3, 2, 2, 8, 3, 2, 8)
    expected = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(3 * 4 * 6, 3 * 2 * 8 * 8)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", QWEN)
def test_a_still_image_repeated_has_the_patches_of_the_image(judges, frames, name: str):
    processor, image = judges[name].processor, frames.images[0]
    (video,) = inputs(processor.prepare_frames(Frames.of([image, image], RATE)))
    still = processor.prepare_image(image)
    assert torch.equal(video.pixels, still.pixels)
    assert (video.grid, video.ids) == (still.grid, still.ids)


@pytest.mark.parametrize("name", QWEN)
def test_videos_have_the_positions_of_transformers(judges, frames, name: str):
    judge = judges[name]
    content = judge.processor.prepare_frames(frames)
    parts = [3, *(part if isinstance(part, ImageInput) else len(part) for part in content), 4]
    kinds = [[2] * part.tokens if isinstance(part, ImageInput) else [0] * part for part in parts]
    types = torch.tensor([[kind for run in kinds for kind in run]])
    expected, _ = judge.model.model.get_rope_index(
        torch.ones_like(types),
        types,
        video_grid_thw=torch.tensor([[3, 4, 6]]),
        second_per_grid_ts=[2 / RATE],
    )
    assert torch.equal(judge.processor.positions(parts), expected[:, 0])


def test_positions_in_time_follow_the_clock_in_qwen2_5_vl(judges, frames):
    # Steps of 2 / 0.75 seconds, of 4 positions each.
    assert judges["qwen2_5_vl"].model.config.vision_config.tokens_per_second == 4
    (video,) = inputs(judges["qwen2_5_vl"].processor.prepare_frames(frames))
    assert video.times == (0, 10, 21)
    (video,) = inputs(judges["qwen2_vl"].processor.prepare_frames(frames))
    assert video.times == (0, 1, 2)


@pytest.mark.parametrize("name", QWEN)
@torch.inference_mode()
def test_videos_have_the_features_of_transformers(judges, frames, name: str):
    judge = judges[name]
    videos = inputs(judge.processor.prepare_frames(frames))
    features = torch.cat(list(judge.family.encode(judge.model, videos, 0)), dim=1)
    pixels = torch.cat([video.pixels for video in videos])
    expected = judge.model.model.get_video_features(pixels, torch.tensor([[3, 4, 6]]))
    deeper = getattr(expected, "deepstack_features", [])
    depths = [depth for (depth,) in (expected.pooler_output, *deeper)]
    torch.testing.assert_close(features, torch.stack(depths), atol=1e-5, rtol=0)


def test_each_step_of_qwen3_vl_stands_after_its_time(judges, frames):
    processor = judges["qwen3_vl"].processor
    found = [i for part in processor.prepare_frames(frames) for i in getattr(part, "ids", part)]
    own = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        _calculate_timestamps=lambda *args: Qwen3VLProcessor._calculate_timestamps(None, *args),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        # The features replace the placeholders, whichever they are.
        video_token="<|image_pad|>",
    )
    metadata = SimpleNamespace(fps=RATE, frames_indices=list(range(COUNT)))
    facts = {"video_grid_thw": torch.tensor([[3, 4, 6]]), "video_metadata": [metadata]}
    text = Qwen3VLProcessor.replace_video_token(own, facts, 0)
    assert text.startswith("<0.7 seconds><|vision_start|><|image_pad|>")
    assert found == processor.tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", sorted(TINY))
def test_frames_take_no_more_tokens_than_as_many_images(judges, frames, name: str):
    processor = judges[name].processor
    videos = inputs(processor.prepare_frames(frames))
    one = processor.prepare_image(frames.images[0])
    # A step of Qwen shows two frames.
    steps = 3 if name in QWEN else COUNT
    assert sum(video.tokens for video in videos) == steps * one.tokens
    assert sum(video.units for video in videos) == steps * one.units


def test_frames_of_two_sizes_are_refused(judges, frames):
    mixed = Frames.of([frames.images[0], frames.images[1].resize((32, 32))], RATE)
    with pytest.raises(MediaError, match="its frames differ in size"):
        judges["qwen2_vl"].processor.prepare_frames(mixed)


def own_logits(judge: Judge, ids: list[int], videos: list[list[ImageInput]]) -> torch.Tensor:
    """The logits [L, V] of `transformers` after tokens whose placeholders are those of videos."""
    config = judge.model.config
    # Its own positions follow from which tokens are a video's, and there is no image.
    ids_L = torch.tensor([config.video_token_id if i == config.image_token_id else i for i in ids])
    inputs = {
        "input_ids": ids_L[None],
        "mm_token_type_ids": 2 * (ids_L[None] == config.video_token_id).int(),
        "pixel_values_videos": torch.cat([part.pixels for video in videos for part in video]),
        "video_grid_thw": torch.tensor([[3, 4, 6]] * len(videos)),
    }
    if judge.family.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = [2 / RATE] * len(videos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge.model.get_decoder().config, "_attn_implementation", "eager")
        return judge.model(**inputs).logits[0]


@pytest.mark.parametrize("head", ["verdict", "scalar"])
@pytest.mark.parametrize("name", QWEN)
@torch.inference_mode()
def test_what_is_read_in_one_run_equals_the_forward_pass_of_transformers(judges, frames, name, head):
    attention, shown = ("joint", 2) if head == "verdict" else ("alone", 1)
    base = judges[name].spec.base_model
    spec = JudgeSpec(base_model=base, head=head, attention=attention, kind="video")
    judge = Judge.from_base(spec, "cpu")
    backwards = Frames.of(frames.images[::-1], RATE)
    contents = [judge.processor.prepare_frames(each) for each in (frames, backwards)]
    tree = judge.processor.tree("a cat that jumps", dict(enumerate(contents)))
    batch = judge.processor.collate([(tree, [(0, 1)])])
    with reading(judge) as hidden:
        judge(batch)
    found_V = judge.model.get_output_embeddings()(hidden[0][batch.pairs_N2[0, 0]])
    answer = tree.answers([(0, 1)])[tree.readouts((0, 1))[0]]
    ids = torch.cat([segment.ids_L for segment in path(tree, answer)]).tolist()
    expected_LV = own_logits(judge, ids, [inputs(content) for content in contents[:shown]])
    torch.testing.assert_close(found_V, expected_LV[-1], atol=1e-5, rtol=0)
    assert expected_LV.std(dim=0).mean() > 0.01
