"""Peak rates of matrix products in bfloat16, by the name of the card."""

import re

__all__ = ["peak_tflops"]

PEAKS: tuple[tuple[str, float], ...] = (
    # NVIDIA's data sheets: tensor cores, bfloat16 with sums in float32, dense. Of two kinds of one card, the
    # one whose name has more words comes first.
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.5),
    ("H100", 989.4),
    ("A100", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    # AMD's data sheet, dense.
    ("MI300X", 1307.4),
)


def peak_tflops(name: str) -> float | None:
    """10^12 operations a second that a card can do at most, as its maker says; None of an unknown card.

    Args:
        name: as `torch.cuda.get_device_name` gives it, such as "NVIDIA H100 80GB HBM3".
    """
    words = _words(name)
    return next((peak for card, peak in PEAKS if _words(card) <= words), None)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^0-9a-z]+", name.lower()))
