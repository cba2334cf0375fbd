"""Bundles: the folder that a training run exports and everything else loads.

    manifest.json       what the judge is, where it came from, and the sha256 of every other file
    model/              the whole backbone, or
    adapter/            a PEFT adapter, for which the base model itself is needed, too
    head.safetensors    the readout, if there is one
    processor/          tokenizer and image processor; the chat template, which nothing runs; of a dual
                        encoder the tokenizer alone, if it reads texts
    README.md           the model card
    plots/              the pictures that the card shows

Every file is checked before any is loaded (`prefrm.manifest`), and none can be a pickle or a program. What a
host or an operating system adds, such as `.git/`, `.gitattributes` and `.DS_Store`, is ignored; any other
file is refused. This module decides nothing about training or calibration; it records what it is told.
"""

from prefrm.errors import missing_extra

try:
    # First: without it, peft and transformers would print advice of their own.
    import torch  # noqa: F401, I001
    import peft  # noqa: F401
    import safetensors  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "torch", "judge") from error

from prefrm.bundle.conversion import merge_bundle
from prefrm.bundle.loading import Bundle, DualBundle, load_bundle, load_dual_bundle
from prefrm.bundle.merging import standalone
from prefrm.bundle.writing import amend_bundle, push_judge, write_bundle, write_dual_bundle
from prefrm.manifest import (
    MANIFEST,
    CalibrationRecord,
    ImportRecord,
    Manifest,
    bundle_folder,
    check_outside_bundles,
    inspect_bundle,
    is_added,
    push_bundle,
    read_manifest,
    verify_files,
)

__all__ = [
    "MANIFEST",
    "Bundle",
    "CalibrationRecord",
    "DualBundle",
    "ImportRecord",
    "Manifest",
    "amend_bundle",
    "bundle_folder",
    "check_outside_bundles",
    "inspect_bundle",
    "is_added",
    "load_bundle",
    "load_dual_bundle",
    "merge_bundle",
    "push_bundle",
    "push_judge",
    "read_manifest",
    "standalone",
    "verify_files",
    "write_bundle",
    "write_dual_bundle",
]
