"""Whether an error says that a device has too little memory."""

import torch

__all__ = ["is_out_of_memory"]

# What torch says when the memory of the CPU is not enough, which it calls a RuntimeError.
CPU_SAYS = ("not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Of an accelerator, or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in CPU_SAYS
    )
