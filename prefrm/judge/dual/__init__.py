"""Dual encoders: judges that encode each image by itself, such as CLIP and BLIP.

CLIP encodes a prompt by itself, too; BLIP's text encoder reads it once for each image, which it attends to.

    pictures         an image as the square of pixels that an encoder reads
    texts            a prompt as tokens
    towers           the encoders, as `transformers` has them
    model            the judge
    differentiable   the gradient of its utilities in the pixels

`prefrm.imports` makes them of published checkpoints, `prefrm.engine` scores with them.
"""

from prefrm.judge.dual.differentiable import DifferentiableDual
from prefrm.judge.dual.model import DualJudge
from prefrm.judge.dual.texts import TextTokenizer
from prefrm.judge.dual.towers import build_towers, fill_towers, head_width, read_affine, read_towers

__all__ = [
    "DifferentiableDual",
    "DualJudge",
    "TextTokenizer",
    "build_towers",
    "fill_towers",
    "head_width",
    "read_affine",
    "read_towers",
]
