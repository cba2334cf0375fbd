"""The supported model families, by the `model_type` of their configuration."""

from typing import Any

from prefrm.errors import ConfigError
from prefrm.judge.backbones.family import Family
from prefrm.judge.backbones.idefics import IDEFICS3, SMOLVLM
from prefrm.judge.backbones.llava import LLAVA_ONEVISION
from prefrm.judge.backbones.qwen import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

__all__ = ["FAMILIES", "family_of"]

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (QWEN2_VL, QWEN2_5_VL, QWEN3_VL, LLAVA_ONEVISION, IDEFICS3, SMOLVLM)
}


def family_of(config: Any) -> Family:
    """The family of a checkpoint's configuration. Raises `ConfigError` that lists the supported ones."""
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"the base model is a {config.model_type!r}, which is not supported; "
            f"supported model types: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[config.model_type]
