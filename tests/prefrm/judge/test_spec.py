"""A judge's specification refuses what no judge can be built from."""

import pytest

from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_model": ""}, "base_model is empty"),
        ({"head": "nope"}, "head must be one of verdict, scalar, embedding; received 'nope'"),
        ({"attention": "nope"}, "attention must be one of joint, isolated; received 'nope'"),
        ({"template": "nope"}, "no template 'nope'"),
        ({"template": "rate-v1"}, "'rate-v1' shows 1 image.*the verdict head with ties=false.*'match-v1'"),
        ({"head": "scalar", "template": "match-v1"}, "the scalar head.*such as 'rate-v1'"),
        ({"template": "match-v1", "ties": True}, "ties=true needs another, such as 'match-or-tie-v1'"),
        ({"head": "scalar", "attention": "isolated"}, "reads one image at a time; leave attention out"),
        ({"head": "embedding", "ties": True}, "the embedding head has no ties"),
        ({"embedding_dim": 3}, "embedding_dim must be even and at least 2; received 3"),
        ({"quantize": "int3"}, "quantize must be nf4 or null; received 'int3'"),
        ({"min_pixels": 0}, "min_pixels must be at least 1; received 0"),
        ({"max_pixels": -1}, "max_pixels must be at least 1; received -1"),
        ({"max_aspect_ratio": 0.5}, "max_aspect_ratio must be at least 1; received 0.5"),
        ({"min_pixels": 9, "max_pixels": 8}, r"min_pixels \(9\) is larger than max_pixels \(8\)"),
    ],
)
def test_bad_values_are_named(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        JudgeSpec(**{"base_model": "some/model", **fields})
