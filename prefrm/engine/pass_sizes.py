"""The default sizes of passes, how many tokens and patches a device computes at once, and its lack of memory.

cpu     2,048 tokens, and one image: more activations than fit its caches make it slower
cuda    16,384 tokens and patches, or fewer if an eighth of the GPU's memory does not hold their activations
other   2,048 tokens, and 8,192 patches

The layers of a forward pass take Python and the driver some 30 ms to launch, whatever they compute. A GPU of
400 teraflops computes 2,048 tokens of a model of 3 billion parameters in that time, and would wait for half
of it; of 16,384 it computes 250 ms. The sizes depend on the machine and the model alone, not on the memory
that happens to be free: with the sizes, the last bits of a result may change.
"""

from dataclasses import dataclass
from typing import Any

import torch

from prefrm.judge import Judge

__all__ = ["DEFAULT_TOKENS", "PassSizes", "activation_bytes", "device_memory", "is_out_of_memory"]

DEFAULT_TOKENS = 2048
"""On a CPU, and the fewest on other devices."""
GPU_TOKENS = 16384
PATCHES = 8192
"""On accelerators other than CUDA: 8 images of 448 x 448 pixels."""
ACTIVATION_SHARE = 8
# What torch says when the memory of the CPU is not enough, which it calls a RuntimeError.
CPU_SAYS = ("not enough memory", "can't allocate memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSizes:
    """Bounds on a pass.

    Attributes:
        tokens: of the language model, or one row that has more.
        patches: of the vision tower, or one image that has more.
    """

    tokens: int
    patches: int

    def __str__(self) -> str:
        patches = "one image" if self.patches == 1 else f"{self.patches} patches"
        return f"{self.tokens} tokens and {patches}"

    @classmethod
    def default(cls, device: str, memory: int, token_bytes: int) -> "PassSizes":
        """The sizes for a device.

        Args:
            device: its type.
            memory: of a CUDA device, in bytes.
            token_bytes: of activations for each token.
        """
        if device == "cpu":
            return cls(tokens=DEFAULT_TOKENS, patches=1)
        if device != "cuda":
            return cls(tokens=DEFAULT_TOKENS, patches=PATCHES)
        tokens = GPU_TOKENS
        while tokens > DEFAULT_TOKENS and tokens * token_bytes * ACTIVATION_SHARE > memory:
            tokens //= 2
        return cls(tokens=tokens, patches=tokens)

    @classmethod
    def of(cls, judge: Judge, tokens: int | None = None, patches: int | None = None) -> "PassSizes":
        """Those given, and the defaults of a judge's device for the others."""
        found = cls.default(judge.device.type, device_memory(judge.device), activation_bytes(judge.model))
        return cls(tokens=tokens or found.tokens, patches=patches or found.patches)


def device_memory(device: torch.device) -> int:
    """All memory of a CUDA device in bytes, used or not; 0 of other devices."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


def activation_bytes(model: Any) -> int:
    """What a layer of a language model keeps for each token at its peak.

    Some eight vectors of the hidden size (residual, its norm, queries, keys, values, attention), and in the
    feed-forward part three of the intermediate size.
    """
    config = model.get_decoder().config
    return int((8 * config.hidden_size + 3 * config.intermediate_size) * model.dtype.itemsize)


def is_out_of_memory(error: BaseException) -> bool:
    """Of an accelerator, or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in CPU_SAYS
    )
