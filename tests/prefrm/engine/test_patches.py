"""Convolutions of whole patches as matrix products."""

import torch
from torch import nn

from prefrm.engine.patches import patches_as_products


def test_a_patch_is_a_row_of_a_product():
    torch.manual_seed(0)
    patches, larger = torch.randn(7, 3, 2, 4, 4), torch.randn(2, 3, 2, 8, 8)
    tower = nn.ModuleDict(
        {
            "cut": nn.Conv3d(3, 6, kernel_size=(2, 4, 4), stride=(2, 4, 4), bias=False),
            "overlapping": nn.Conv3d(3, 6, kernel_size=(2, 4, 4), stride=(2, 2, 2)),
        }
    )
    wanted = {name: layer(patches) for name, layer in tower.items()}
    calls = []
    tower["cut"]._conv_forward = lambda *args: calls.append(args)
    with patches_as_products(tower):
        for name, layer in tower.items():
            torch.testing.assert_close(layer(patches), wanted[name])
        assert not calls
        # What is larger than a patch is convolved.
        tower["cut"](larger)
        assert len(calls) == 1
    tower["cut"](patches)
    assert len(calls) == 2
