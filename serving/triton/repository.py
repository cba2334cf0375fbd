"""Writes a judge as a model repository of Triton: whole or not at all.

    DIR/NAME/config.pbtxt       tensors, batching, and which bundle this is
    DIR/NAME/1/model.py         what Triton's Python backend runs
    DIR/NAME/1/bundle/          the bundle, as it was

Loads no weights.
"""

import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.json_format import ParseDict
from tritonclient.grpc.model_config_pb2 import ModelConfig

from prefrm.bundle import (
    Manifest,
    bundle_folder,
    check_outside_bundles,
    is_added,
    read_manifest,
    verify_files,
)
from prefrm.errors import ConfigError
from prefrm.files import write_folder_whole
from prefrm.protocol import BUNDLE_PARAMETER, DEFAULT_MODEL, judge_identity
from serving.descriptions import describe_config
from serving.limits import Limits
from serving.models import ModelInfo
from serving.triton.model import BUNDLE_FOLDER

__all__ = ["write_repository"]

CONFIG = "config.pbtxt"
# Requests that may wait in Triton's scheduler; more are turned away.
QUEUED_REQUESTS = 1024
MODEL = '''"""Run by Triton's Python backend, in whose Python `prefrm[serve]` must be installed."""

from serving.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_repository(bundle: Path, out: Path, *, name: str = DEFAULT_MODEL) -> Manifest:
    """Write a model repository with one model, whose version 1 is the bundle, and return its manifest.

    Raises:
        ConfigError: `out` exists, or `name` is no name of a model.
        BundleError: `bundle` is no intact bundle, or `out` is inside one.
    """
    bundle = bundle_folder(bundle)
    manifest = read_manifest(bundle)
    facts = {"judge": manifest.describe(), BUNDLE_PARAMETER: judge_identity(manifest.digest)}
    model = ModelInfo(name=name, facts=facts, inputs=manifest.inputs)
    if out.exists():
        raise ConfigError(f"{out} exists; name a folder that does not, or remove it")
    check_outside_bundles(out)
    verify_files(bundle, manifest)
    with write_folder_whole(out) as partial:
        version = partial / name / model.version
        _copy_bundle(bundle, version / BUNDLE_FOLDER)
        # Again, so that this guards against a fault of the copying, too.
        verify_files(version / BUNDLE_FOLDER, manifest)
        (version / "model.py").write_text(MODEL, encoding="utf-8")
        config = text_format.MessageToString(_config(model, Limits()))
        (partial / name / CONFIG).write_text(config, encoding="utf-8")
    return manifest


def _copy_bundle(bundle: Path, target: Path) -> None:
    """Without what a host or a system added, such as the Git repository of a clone."""

    def added(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if is_added((Path(folder) / name).relative_to(bundle).as_posix())}

    shutil.copytree(bundle, target, ignore=added)


def _config(model: ModelInfo, limits: Limits) -> Any:
    """A `ModelConfig` that gathers requests while the judge is busy, and waits for none."""
    described = describe_config(model, limits.request_groups)
    config = described | {
        "platform": "",
        "backend": "python",
        "instance_group": [{"count": 1}],
        "dynamic_batching": {
            "default_queue_policy": {
                "max_queue_size": QUEUED_REQUESTS,
                # A request's own timeout counts only where it is shorter than this.
                "default_timeout_microseconds": int(limits.deadline_s * 1e6),
                "allow_timeout_override": True,
            }
        },
    }
    return ParseDict(config, ModelConfig())
