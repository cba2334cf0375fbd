"""Memory: what to lower when a device has too little, and activation checkpointing, which needs less."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefrm.engine import DEFAULT_TOKENS, is_out_of_memory
from prefrm.errors import ConfigError, OutOfMemoryError, ScoringError
from prefrm.judge import Judge
from prefrm.train.config import TrainConfig
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["FailOnMemory", "activation_checkpointing", "explaining_memory", "scored_tokens"]

# Least tokens of a group in a training step, such as two images of 400 tokens and a prompt.
TOKENS_OF_GROUP = 1024


def scored_tokens(config: TrainConfig) -> int:
    """Token budget of a pass of the run's engines, which a smaller training batch lowers."""
    return min(DEFAULT_TOKENS, TOKENS_OF_GROUP * config.optim.batch_size)


class FailOnMemory:
    """A scorer that fails where a group exceeds the device's memory, instead of leaving the group unjudged.

    A training run can be given more memory, and numbers of some groups alone would mislead it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """As the scorer does, but an `OutOfMemoryError` becomes a `ScoringError`, which ends the run."""
        try:
            return self._scorer.score(groups)
        except OutOfMemoryError as error:
            raise ScoringError(str(error)) from error.__cause__


@contextmanager
def explaining_memory(config: TrainConfig, *, training: bool = True) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a `ConfigError` that names the settings to lower.

    Args:
        training: whether the block trains, and validates; if not, the training is over.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if training and not isinstance(error, ScoringError):
            text = f"while training; {_advice(config)}"
        else:
            text = f"while measuring the judge; {_scoring_advice(config, training)}"
        raise ConfigError(f"the device ran out of memory {text}") from error


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


def _is_out_of_memory(error: BaseException) -> bool:
    # An engine gives its own error, and torch's as the cause.
    if isinstance(error, ScoringError):
        return error.__cause__ is not None and is_out_of_memory(error.__cause__)
    return is_out_of_memory(error)


def _advice(config: TrainConfig) -> str:
    """What a resumed run may change, and what only another run may."""
    optim = config.optim
    same_run, another_run = [], [_fewer_pixels(config)]
    if optim.batch_size > 1:
        same_run.append(_smaller_batches(config))
    if not optim.gradient_checkpointing:
        same_run.append("set optim.gradient_checkpointing=true (now false)")
    if (pairs := optim.pairs_per_group) is None:
        another_run.append(
            "set optim.pairs_per_group (now null), which bounds the comparisons of a large group"
        )
    elif pairs > 1:
        another_run.append(f"lower optim.pairs_per_group (now {pairs})")
    if config.adapter is None:
        another_run.append("train an adapter (adapter is null, so every weight has an optimizer state)")
    else:
        another_run.append(f"lower adapter.rank (now {config.adapter.rank})")
        # Weights that learn need more digits, fp16 needs float32, and on an accelerator "auto" is bfloat16.
        if optim.precision != "fp16" and config.dtype == "float32":
            another_run.append("set dtype=bfloat16 (now float32)")
    start_over = f"start over and {' or '.join(another_run)}"
    return f"{' or '.join(same_run)}, and go on with --resume; or {start_over}" if same_run else start_over


def _scoring_advice(config: TrainConfig, training: bool) -> str:
    """A pass of scoring follows the training's batch, up to a bound; what is lowered must be below that."""
    advice = []
    if config.optim.batch_size > 1:
        bound = scored_tokens(config) // TOKENS_OF_GROUP
        advice.append(f"{_smaller_batches(config)}, below the {bound} that are read at once")
    if not training and config.device != "cpu":
        advice.append(f"set device=cpu (now {config.device})")
    if not advice:
        return f"start over and {_fewer_pixels(config)}"
    return f"{' or '.join(advice)}, and go on with --resume"


def _smaller_batches(config: TrainConfig) -> str:
    optim = config.optim
    dropout = 0.0 if config.adapter is None else config.adapter.dropout
    changes = (
        f"what adapter.dropout (now {dropout}) drops, and rounding" if dropout else "nothing but rounding"
    )
    return (
        f"lower optim.batch_size (now {optim.batch_size}) and raise optim.accumulation (now "
        f"{optim.accumulation}) by the same factor, which changes {changes}"
    )


def _fewer_pixels(config: TrainConfig) -> str:
    pixels = config.judge.max_pixels
    return f"lower judge.max_pixels (now {'that of the base model' if pixels is None else pixels})"
