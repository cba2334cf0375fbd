"""Adapters that are published beside the weights that they change."""

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.imports.adapters import merge_lora

SETTINGS = {"lora_r": 2, "lora_alpha": 6}
DOWN, UP = torch.tensor([[1.0, 0, 2], [0, 1, 0]]), torch.tensor([[1.0, 1], [0, 2]])
WEIGHTS = {
    "a.q.base_layer.weight": torch.zeros(2, 3),
    "a.q.base_layer.bias": torch.ones(2),
    "a.q.lora_A.default.weight": DOWN,
    "a.q.lora_B.default.weight": UP,
    "norm.weight": torch.ones(3),
}


@pytest.mark.parametrize(("settings", "factor"), [({}, 6 / 2), ({"use_rslora": True}, 6 / 2**0.5)])
def test_a_layer_is_its_weight_and_the_scaled_product(settings: dict, factor: float):
    merged = merge_lora(WEIGHTS, SETTINGS | settings, "x")
    assert set(merged) == {"a.q.weight", "a.q.bias", "norm.weight"}
    product = torch.tensor([[1.0, 1, 2], [0, 2, 0]])
    torch.testing.assert_close(merged["a.q.weight"], factor * product)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"a.q.lora_B.default.weight": None}, {}, "x: a.q.lora_A.default.weight is not half of an adapter"),
        ({"a.q.base_layer.weight": None}, {}, "a.q.lora_A.default.weight is not half"),
        ({"a.q.lora_B.default.weight": UP[:1]}, {}, "is not half of an adapter of rank 2"),
        ({}, {"lora_r": 3}, "is not half of an adapter of rank 3"),
        ({}, {"lora_r": 0}, "need lora_r, a whole number .* received 0 and 6"),
        ({}, {"lora_r": 2.9}, "received 2.9 and 6"),
        ({}, {"lora_alpha": None}, "received 2 and None"),
    ],
)
def test_what_is_no_adapter_is_named(change: dict, settings: dict, message: str):
    weights = {name: tensor for name, tensor in (WEIGHTS | change).items() if tensor is not None}
    with pytest.raises(ConfigError, match=message):
        merge_lora(weights, SETTINGS | settings, "x")
