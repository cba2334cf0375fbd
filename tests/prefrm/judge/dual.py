"""Tiny dual encoders of each score, as their imports make them."""

from pathlib import Path

import torch

from prefrm.bundle import load_dual_bundle
from prefrm.imports.importing import import_judge
from prefrm.judge.dual import DualJudge
from tests.prefrm.imports import checkpoints

__all__ = ["SCORES", "import_tiny", "load_tiny"]

SCORES = {
    "similarity": "pickscore",
    "letterbox": "hpsv2.1",
    "aesthetic": "aesthetic",
    "fusion": "imagereward",
}
"""An imported judge for each score, and one that letterboxes images."""


def import_tiny(name: str, folder: Path) -> Path:
    """The bundle of a tiny checkpoint of a published judge, in a folder that exists."""
    clip, bert = folder / "clip", folder / "bert"
    checkpoints.save_clip(clip)
    checkpoints.bert_tokenizer().save_pretrained(bert)
    path = folder / "x.pt"
    match name:
        case "pickscore" | "clipscore":
            source, base = clip, None if name == "clipscore" else clip
        case "hpsv2.1":
            torch.save(checkpoints.openclip_weights(), path)
            source, base = path, clip
        case "aesthetic":
            torch.save(checkpoints.noise(checkpoints.mlp_shapes("layers.", 8)), path)
            source, base = path, clip
        case _:
            torch.save(checkpoints.imagereward_weights(), path)
            source, base = path, bert
    import_judge(name, str(source), folder / "bundle", base=None if base is None else str(base))
    return folder / "bundle"


def load_tiny(bundle: Path, dtype: torch.dtype = torch.float32) -> DualJudge:
    return load_dual_bundle(bundle, "cpu", dtype).judge
