"""A model so small that every method scores a group in milliseconds."""

from prefrm.bench.random_model import Shape

TINY = Shape(
    text_width=32,
    text_inner=64,
    text_layers=2,
    text_heads=2,
    text_kv_heads=1,
    vision_width=32,
    vision_inner=64,
    vision_layers=3,
    vision_heads=2,
    full_layers=(1,),
    vocabulary=None,
    image_tokens=(25,),
)
