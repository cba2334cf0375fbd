"""From an adapter, or a quantized base, to one plain model: merged in float32, checked, rounded once.

A merge changes what is computed in which order, and so the last bits of the log-odds. `standalone` measures
on the judge at hand what that may amount to, and refuses a merge that does more. This happens before the
weights are rounded to the judge's dtype, since in bfloat16 the rounding alone would hide a wrong merge.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image

from prefrm.errors import BundleError
from prefrm.judge import Judge
from prefrm.judge.heads import log_odds
from prefrm.judge.quantization import compute_in_float32, dequantize, is_quantized
from prefrm.quiet import quiet

__all__ = ["standalone"]

# The bit of every float32 weight that is flipped to see what rounding does to the log-odds: it changes each
# by 128 units in its last place, at most 1.5e-5 of it. With every family and head, a right merge moved the
# log-odds by a tenth of what this does, and an adapter merged 3% too strong by 60 times as much.
FLIPPED_BIT = 1 << 7
# Flipped weights move all images alike, which hardly changes log-odds where a judge barely tells the images
# apart. Rounding moves each by itself: the last hidden states by some units in the last place.
HIDDEN_ERROR = 16 * torch.finfo(torch.float32).eps
PROBE_PROMPT = "a red cube on a blue table"
PROBE_IMAGES = 3
PROBE_SIZE = 64


def standalone(judge: Judge) -> Judge:
    """The judge as a plain model on the CPU, in its own dtype: adapter merged, base dequantized.

    `judge` is not changed, and returned as it is if it has neither adapter nor quantized base. Needs memory
    for a float32 copy of the backbone.

    Raises:
        BundleError: the merge changes the log-odds of a few noise images by more than rounding in float32.
    """
    adapted = isinstance(judge.backbone, PeftModel)
    if not adapted and not is_quantized(judge.model):
        return judge
    with quiet():
        exact = Judge(
            copy.deepcopy(judge.backbone).to("cpu"),
            copy.deepcopy(judge.head).to("cpu"),
            judge.processor,
            replace(judge.spec, quantize=None),
            judge.base,
        ).eval()
        # Through the outer module: `transformers` refuses to cast a quantized model itself.
        exact.float()
        compute_in_float32(exact.model)
        before = _probe(exact)
        exact.backbone = _merged(exact.backbone)
    _check_merge(exact, before)
    _round_as(exact.backbone, judge.model)
    return exact


def _merged(backbone: Any) -> Any:
    """The plain `transformers` model; takes `backbone` apart."""
    if not isinstance(backbone, PeftModel):
        return dequantize(backbone, torch.float32)
    adapted: Any = backbone
    if is_quantized(adapted.get_base_model()):
        # PEFT would quantize again what it merges: the same adapter goes onto the dequantized base.
        weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        config = adapted.active_peft_config
        adapted = PeftModel(dequantize(adapted.unload(), torch.float32), config)
        set_peft_model_state_dict(adapted, weights)
    return adapted.merge_and_unload()


def _probe(judge: Judge, error: float = 0.0) -> torch.Tensor:
    """Log-odds of all ordered pairs of a few noise images, which every adapted layer takes part in.

    Args:
        judge: on the CPU, in float32.
        error: by what share of itself each number of the last hidden states is moved, at random up or down.
    """
    processor = judge.processor
    pixels = np.random.default_rng(0).integers(
        0, 256, (PROBE_IMAGES, PROBE_SIZE, PROBE_SIZE, 3), dtype=np.uint8
    )
    pairs = [(i, j) for i in range(PROBE_IMAGES) for j in range(PROBE_IMAGES) if i != j]
    with torch.inference_mode():
        tree = processor.trial_tree(PROBE_PROMPT, [Image.fromarray(image) for image in pixels])
        batch = processor.collate([(tree, pairs)])
        hidden_RPD = judge.hidden(batch)
        signs_RPD = torch.randn(hidden_RPD.shape, generator=torch.Generator().manual_seed(0)).sign()
        readings = judge.read(hidden_RPD * (1 + error * signs_RPD))
        return log_odds(judge.outcomes(readings, batch.pairs_N2))[0]


def _check_merge(merged: Judge, before: torch.Tensor) -> None:
    """Raise `BundleError` if log-odds moved more than by a small change of weights or hidden states."""
    after = _probe(merged)
    with _flipped(merged.backbone):
        flipped = _probe(merged)
    rounded = _probe(merged, HIDDEN_ERROR)
    explained = max(float((other - after).abs().max()) for other in (flipped, rounded))
    difference = float((after - before).abs().max())
    # Not `>`, which is false of NaN.
    if not difference <= explained:
        raise BundleError(
            f"the merge of the adapter changed the judge: log-odds differ by {difference:.3g}, and rounding "
            f"in float32 explains {explained:.3g}; export the adapter as it is (export=adapter)"
        )


@contextmanager
def _flipped(model: torch.nn.Module) -> Iterator[None]:
    """One bit of every float32 weight is another while the block runs."""
    bits = [parameter.data.view(torch.int32) for parameter in model.parameters()]
    for weight in bits:
        weight.bitwise_xor_(FLIPPED_BIT)
    try:
        yield
    finally:
        for weight in bits:
            weight.bitwise_xor_(FLIPPED_BIT)


def _round_as(model: torch.nn.Module, like: Any) -> None:
    """Give each tensor of `model` the dtype that it has in `like`, whose own it is for a packed weight."""
    dtypes = {
        name.replace(".base_layer.", "."): tensor.dtype
        for name, tensor in [*like.named_parameters(), *like.named_buffers()]
    }
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            wanted = dtypes[name]
            tensor.data = tensor.data.to(wanted if wanted.is_floating_point else like.dtype)
