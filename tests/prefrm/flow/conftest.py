"""A model of the shapes world at toy size, with random weights, in the place of the policy `shapes-flow`."""

from pathlib import Path

import pytest
import torch

from data_recipes.shapes.flow.pipeline import save, untrained


@pytest.fixture(scope="session")
def shapes_flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes-flow")
    torch.manual_seed(0)
    pipe = untrained(width=32, layers=1)
    with torch.no_grad():
        # As it starts, every velocity is 0.
        for parameter in pipe.transformer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save(pipe, folder)
    return folder


@pytest.fixture(autouse=True)
def _as_shipped(shapes_flow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_recipes.shapes.flow.CHECKPOINT", shapes_flow)
