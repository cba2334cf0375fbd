"""From a bundle with an adapter to one that stands alone."""

from pathlib import Path

import torch

from prefrm.bundle.loading import load_bundle
from prefrm.bundle.merging import standalone
from prefrm.bundle.writing import CARD, PLOTS, write_bundle
from prefrm.errors import BundleError
from prefrm.manifest import Manifest, bundle_folder, check_outside_bundles, read_manifest

__all__ = ["merge_bundle"]


def merge_bundle(source: Path | str, target: Path | str, dtype: torch.dtype | str = "auto") -> Manifest:
    """Write the judge of `source` to `target` with its adapter merged; the rest of the manifest stays.

    Merged on the CPU. The new bundle has another digest: its weights are others.

    Args:
        source: a folder, or `hf://org/name[@revision]`.
        dtype: of the merged weights, as in `Judge.from_base`; "auto" is float32, which loses nothing.

    Raises:
        BundleError: `source` is not an intact bundle, its base model is absent, it has no adapter, the merge
            fails its check (`standalone`), or `target` holds something other than a bundle or is inside one.
    """
    # Before the weights are loaded, not after it.
    check_outside_bundles(Path(target))
    root = bundle_folder(source)
    manifest = read_manifest(root)
    if manifest.weights != "adapter":
        raise BundleError(f"{root} has no adapter to merge: its weights are whole already")
    pictures = [path for path in manifest.files if path.startswith(f"{PLOTS}/")]
    bundle = load_bundle(root, "cpu", dtype)
    return write_bundle(
        target,
        standalone(bundle.judge),
        calibration=bundle.manifest.calibration,
        data_fingerprint=bundle.manifest.data_fingerprint,
        metrics=bundle.manifest.metrics,
        card=(root / CARD).read_text(encoding="utf-8"),
        plots={path.removeprefix(f"{PLOTS}/"): (root / path).read_bytes() for path in pictures},
        training_inputs=bundle.manifest.training_inputs,
    )
