"""The protocol of differentiable scorers is there without torch."""

import subprocess
import sys

import pytest

from prefrm.differentiable import DifferentiableScorer, FakeDifferentiableScorer


def test_the_protocol_imports_no_torch():
    code = "import sys, prefrm.differentiable; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_fake_has_a_gradient():
    torch = pytest.importorskip("torch")
    scorer = FakeDifferentiableScorer(lambda prompt, pixels: len(prompt) * pixels.mean(dim=(1, 2, 3)))
    assert isinstance(scorer, DifferentiableScorer)
    pixels = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    scorer.utilities("red", pixels).sum().backward()
    assert torch.allclose(pixels.grad, torch.full_like(pixels, 3 / 48))
