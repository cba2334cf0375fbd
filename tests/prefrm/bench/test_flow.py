"""The benchmark of the flow trainer: both loops for real on the shipped model, and the plain loop's loss."""

import json

import pytest
import torch

from prefrm.bench import flow as benchmark
from prefrm.bench.flow import METHOD, PlainLoop, PrefrmLoop, Settings, plain_loss
from prefrm.cli.program import run
from prefrm.flow.likelihood import Terms
from prefrm.flow.objectives import sample_losses

SMALL = Settings(prompts=("a red circle", "two stars"), group=2, steps=2, rounds=1, device="cpu")


def test_the_plain_loss_is_the_trainers():
    v, target = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    v.requires_grad_()
    s, a = torch.tensor(0.7), torch.tensor([0.5, -0.2, 0.0])
    plain = plain_loss(v, target, s, a)
    ours = sample_losses([Terms(method=METHOD, advantage=a, s=s, v=v, v_old=v.detach(), target=target)])
    torch.testing.assert_close(plain, ours)
    gradients = [torch.autograd.grad(loss.sum(), v, retain_graph=True)[0] for loss in (plain, ours)]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_the_plain_loop_trains_its_adapter_alone():
    loop = PlainLoop(SMALL, torch.device("cpu"))
    weights = [*loop._transformer.named_parameters()]
    before = {name: weight.detach().clone() for name, weight in weights}
    loop.iteration(0)
    changed = {name for name, weight in weights if not torch.equal(weight, before[name])}
    assert changed and all("lora_" in name for name in changed)


def test_both_loops_do_the_same_work():
    def rows_of(loop, transformer):
        """Images in each forward pass, and whether it is differentiated."""
        seen = []
        hook = lambda module, args, kwargs, output: seen.append((len(output[0]), output[0].requires_grad))  # noqa: E731
        transformer.register_forward_hook(hook, with_kwargs=True)
        loop.iteration(0)
        return seen

    ours, plain = PrefrmLoop(SMALL, torch.device("cpu")), PlainLoop(SMALL, torch.device("cpu"))
    expected = rows_of(plain, plain._transformer)
    # Two steps of a rollout, of whose noise levels all but the last one are trained at.
    assert expected == [(4, False), (4, False), (4, True)]
    assert rows_of(ours, ours._trainer.policy.transformer) == expected


def test_both_loops_are_measured(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "Settings", lambda **given: SMALL)
    assert run(["bench", "flow", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for name in ("prefrm", "plain"):
        loop = report[name]
        assert loop["images_per_second"] > 0 and loop["iteration_seconds"] > loop["update_seconds"] > 0
    ratio = report["prefrm"]["iteration_seconds"] / report["plain"]["iteration_seconds"]
    assert report["overhead"] == pytest.approx(ratio - 1)
    assert report["clock"] == "CPU" and report["settings"]["steps"] == 2


def test_another_transformer_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "load_pipeline", lambda *given: object())
    assert run(["bench", "flow"]) == 2
    assert "Stable Diffusion 3's transformer; received 'shapes-flow'" in capsys.readouterr().err
