"""Which weights of a judge learn: a low-rank adapter on its language model, or all of them."""

from peft import LoraConfig, get_peft_model

from prefrm.judge import Judge

__all__ = ["add_lora", "trainable_parameters"]


def add_lora(judge: Judge, *, rank: int, alpha: int, dropout: float) -> None:
    """Wrap the judge's backbone in a LoRA adapter (arXiv 2106.09685); all other backbone weights freeze.

    The layers that it adapts are the family's own (`judge.family.lora_targets`). The head stays trainable.
    On a judge with `spec.quantize` this is QLoRA (arXiv 2305.14314). PEFT's `prepare_model_for_kbit_training`
    is not needed: PEFT freezes the base and keeps the adapter in float32 anyhow, the norms compute in
    float32 and so need not be stored in it, and only reentrant gradient checkpointing asks for inputs
    with a gradient.
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
