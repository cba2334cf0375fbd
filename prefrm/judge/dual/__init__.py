"""Dual encoders: judges that encode a prompt and each image by themselves, such as CLIP and BLIP.

pictures   an image as the square of pixels that an encoder reads
texts      a prompt as tokens
towers     the encoders, as `transformers` has them
model      the judge
"""

from prefrm.judge.dual.model import DualJudge
from prefrm.judge.dual.texts import TextTokenizer
from prefrm.judge.dual.towers import build_towers, fill_towers, head_width, read_affine, read_towers

__all__ = [
    "DualJudge",
    "TextTokenizer",
    "build_towers",
    "fill_towers",
    "head_width",
    "read_affine",
    "read_towers",
]
