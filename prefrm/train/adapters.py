"""Which weights of a judge learn: a low-rank adapter on its language model, or all of them."""

from peft import LoraConfig, get_peft_model

from prefrm.judge import Judge

__all__ = ["add_lora", "trainable_parameters"]


def add_lora(judge: Judge, *, rank: int, alpha: int, dropout: float) -> None:
    """Wrap the judge's backbone in a LoRA adapter (arXiv 2106.09685); all other backbone weights freeze.

    The layers that it adapts are the family's own (`judge.family.lora_targets`). The head stays trainable.
    """
    judge.backbone = get_peft_model(
        judge.model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=judge.family.lora_targets,
        ),
    )


def trainable_parameters(judge: Judge) -> int:
    """How many numbers the optimizer changes."""
    return sum(p.numel() for p in judge.parameters() if p.requires_grad)
