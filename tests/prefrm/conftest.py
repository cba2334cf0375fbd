"""Fixtures of a tiny Qwen2.5-VL checkpoint, judges on it, and images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prefrm.candidates import noise_png


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` makes it: weights, configuration, tokenizer, image processor."""
    from tests.prefrm.judge.families import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with layers of 64 inputs and more, which can be stored in four bits."""
    from tests.prefrm.judge.families import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("wide"), width=64)


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """Makes an encoded image of random pixels, at most `top`: `png(seed, width=48, height=32, top=255)`."""
    return noise_png


@pytest.fixture
def figure_texts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts outside the axes of each figure that is saved."""
    from matplotlib.figure import Figure

    found: list[list[str]] = []
    save = Figure.savefig

    def noted(figure: Figure, *arguments: object, **options: object) -> None:
        found.append([text.get_text() for text in figure.texts])
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return found


@pytest.fixture
def judge(tiny_checkpoint: Path):
    """An untrained judge on the tiny checkpoint, in float32 on the CPU, for the test's own use."""
    from prefrm.judge import Judge, JudgeSpec

    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint)), "cpu")


@pytest.fixture
def adapted(judge):
    """A judge with a LoRA adapter whose weights are random, so that it changes every verdict."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=judge.family.lora_targets, init_lora_weights=False)
    judge.backbone = get_peft_model(judge.backbone, config).eval()
    with torch.no_grad():
        judge.head.log_scale.fill_(0.3)
    return judge


@pytest.fixture(scope="session")
def make_tokenizer():
    """`build_tokenizer(chat_template=...)`, for tests of other chat templates."""
    from tests.prefrm.judge.families import build_tokenizer

    return build_tokenizer
