"""Attention within windows of a packed sequence, and which vision towers use it."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from prefrm.judge import Judge, JudgeSpec, windows
from prefrm.judge.windows import NAME, attend_windows
from prefrm.media import decode
from tests.prefrm.judge.families import TINY, save_checkpoint

SIZES = (4, 1, 7, 4)
SCALE = 0.3


def tensors(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, sum(SIZES), 16)
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    starts = torch.tensor((0, *SIZES)).cumsum(0).int().to(q.device)
    found, _ = attend_windows(
        None, q, k, v, None, scaling=SCALE, cu_seq_lens_q=starts, max_length_q=max(SIZES)
    )
    return found


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [
        ("cpu", torch.float32, 1e-6),
        pytest.param("cuda", torch.bfloat16, 0.02, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.float16, 0.005, marks=pytest.mark.gpu),
        pytest.param("cuda", torch.float32, 1e-5, marks=pytest.mark.gpu),
    ],
)
def test_a_window_attends_to_itself(device: str, dtype: torch.dtype, tolerance: float):
    q, k, v = tensors(device, dtype)
    window_T = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES)).to(device)
    mask = window_T[:, None] == window_T
    wanted = scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, scale=SCALE)
    found = attended(q, k, v)
    torch.testing.assert_close(found.float(), wanted.transpose(1, 2), atol=tolerance, rtol=0)


def test_shapes_of_one_call_for_all_windows(monkeypatch):
    """By the operator's own rules for shapes, without a GPU."""
    monkeypatch.setattr(windows, "kernel_for", lambda q: "flash")
    found = attended(*tensors("meta", torch.bfloat16))
    assert found.shape == (1, sum(SIZES), 3, 16) and found.dtype == torch.bfloat16


@pytest.mark.parametrize("family", sorted(TINY))
def test_features_are_those_of_transformers(family: str, tmp_path, png):
    """Bit for bit, of images of several sizes in one pass."""
    folder = save_checkpoint(tmp_path, family)
    judge = Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")
    images = [
        judge.processor.prepare_image(decode(png(seed, *size)))
        for seed, size in enumerate([(48, 32), (100, 70)])
    ]
    tower = judge.model.get_submodule(judge.family.vision_tower)
    assert (tower.config._attn_implementation == NAME) == family.startswith("qwen")
    with torch.inference_mode():
        found = judge.encode(images)
        tower.config._attn_implementation = "sdpa"
        wanted = judge.encode(images)
    assert all(torch.equal(found[image], wanted[image]) for image in images)
