"""Backbones: positions, where a base model is found, and what is refused."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.judge import FAMILIES, Judge, JudgeSpec
from prefrm.judge.backbones import find_base, mrope_positions


def test_positions_of_text_an_image_and_text():
    # 2 tokens, an image of 2 x 3 tokens (4 x 6 patches, merged by 2), 2 tokens: worked out by hand.
    expected = [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]
    assert mrope_positions((2, (range(1), 4, 6), 2), 2).tolist() == expected


@pytest.mark.parametrize("grids", [((1, 4, 6), (1, 8, 2)), ((1, 2, 2), (1, 2, 2)), ((1, 6, 4), (1, 4, 8))])
def test_positions_equal_those_of_transformers(judge: Judge, grids):
    sizes = [height * width // 4 for _, height, width in grids]
    kinds = [0] * 5 + [1] * sizes[0] + [0] * 3 + [1] * sizes[1] + [0] * 4
    types = torch.tensor([kinds])
    expected, _ = judge.model.model.get_rope_index(torch.ones_like(types), types, torch.tensor(grids))
    first, second = ((range(time), *sides) for time, *sides in grids)
    assert torch.equal(mrope_positions((5, first, 3, second, 4), 2), expected[:, 0])


def test_an_unsupported_family_is_refused_by_name(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match=f"'bert', which is not supported.*: {', '.join(sorted(FAMILIES))}"):
        Judge.from_base(JudgeSpec(base_model=str(tmp_path)), "cpu")


def test_a_folder_has_no_revision(tiny_checkpoint: Path):
    with pytest.raises(ConfigError, match="is a folder, which has no revision 'v2'"):
        find_base(JudgeSpec(base_model=str(tiny_checkpoint), revision="v2"))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: No such file"):
        Judge.from_base(JudgeSpec(base_model=str(tmp_path)), "cpu")


def test_pickled_weights_are_not_read(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"safetensors"):
        Judge.from_base(JudgeSpec(base_model=str(folder)), "cpu")


@pytest.fixture
def hub(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub cache that holds the tiny checkpoint as some-org/tiny, branch v2; no hub is asked."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--some-org--tiny"
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return commit


def test_a_hub_id_and_its_revision_are_resolved_to_a_commit(hub: str):
    spec = JudgeSpec(base_model="some-org/tiny", revision="v2")
    assert find_base(spec).revision == hub
    judge = Judge.from_base(spec, "cpu")
    assert judge.base.folder.name == hub
    assert judge.backbone.name_or_path == "some-org/tiny"


@pytest.mark.parametrize("revision", [None, "v3"])
def test_a_revision_that_cannot_be_had_is_named(hub: str, revision: str | None):
    with pytest.raises(
        ConfigError, match=r"'some-org/tiny'.*is not a local folder and could not be downloaded"
    ):
        find_base(JudgeSpec(base_model="some-org/tiny", revision=revision))


def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_named(hub: str):
    with pytest.raises(ConfigError, match="'not/a/folder' is not a local folder"):
        find_base(JudgeSpec(base_model="not/a/folder"))
