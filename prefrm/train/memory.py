"""Memory: what to lower when a device has too little, and activation checkpointing, which needs less."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prefrm.errors import ConfigError
from prefrm.judge import Judge
from prefrm.train.config import TrainConfig

__all__ = ["activation_checkpointing", "explaining_memory"]

# What torch says when the memory of the CPU is not enough, which it calls a RuntimeError.
CPU_SAYS = ("not enough memory", "can't allocate memory")


@contextmanager
def explaining_memory(config: TrainConfig) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a `ConfigError` that names what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ConfigError(f"the device ran out of memory while training; {_advice(config)}") from error


@contextmanager
def activation_checkpointing(judge: Judge, wanted: bool) -> Iterator[None]:
    """In the block, layers compute their activations again in the backward pass (arXiv 1604.06174)."""
    if not wanted:
        yield
        return
    judge.model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        judge.model.activation_checkpointing_disable()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in CPU_SAYS
    )


def _advice(config: TrainConfig) -> str:
    optim, pixels = config.optim, config.judge.max_pixels
    advice = []
    if optim.batch_size > 1:
        advice.append(
            f"lower optim.batch_size (now {optim.batch_size}) and raise optim.accumulation (now "
            f"{optim.accumulation}) by the same factor, which changes nothing else"
        )
    if not optim.gradient_checkpointing:
        advice.append("set optim.gradient_checkpointing=true (now false)")
    advice.append(f"lower judge.max_pixels (now {'that of the base model' if pixels is None else pixels})")
    if config.adapter is None:
        advice.append("train an adapter (adapter is null, so every weight has an optimizer state)")
    else:
        advice.append(f"lower adapter.rank (now {config.adapter.rank})")
    if config.dtype in ("auto", "float32"):
        advice.append(f"set dtype=bfloat16 (now {config.dtype})")
    return "; or ".join(advice)
