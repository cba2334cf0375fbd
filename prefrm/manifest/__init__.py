"""What a bundle is, and whether a folder is one, without torch: every check that needs no weights.

A bundle may come from anybody. Before anything loads it, its manifest is read against one schema
(`manifest`), its files are compared with the manifest (`folder`), and its configurations with what prefrm
loads and with the headers of its weights (`contents`). Each failure is a `BundleError` of one line.
"""

from prefrm.manifest.contents import check_checkpoint, stored_numbers
from prefrm.manifest.dual import DualSpec, ImageFit, TextReading
from prefrm.manifest.folder import (
    MANIFEST,
    FileRecord,
    check_path,
    hash_files,
    is_added,
    naming,
)
from prefrm.manifest.inspection import (
    check_outside_bundles,
    inspect_bundle,
    read_manifest,
    unlisted_files,
    verify_files,
)
from prefrm.manifest.manifest import CalibrationRecord, Manifest
from prefrm.manifest.origin import ImportRecord
from prefrm.manifest.published import bundle_folder, push_bundle
from prefrm.manifest.spec import JudgeSpec

__all__ = [
    "MANIFEST",
    "CalibrationRecord",
    "DualSpec",
    "FileRecord",
    "ImageFit",
    "ImportRecord",
    "JudgeSpec",
    "Manifest",
    "TextReading",
    "bundle_folder",
    "check_checkpoint",
    "check_outside_bundles",
    "check_path",
    "hash_files",
    "inspect_bundle",
    "is_added",
    "naming",
    "push_bundle",
    "read_manifest",
    "stored_numbers",
    "unlisted_files",
    "verify_files",
]
