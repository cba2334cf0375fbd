"""The exported `model.py` runs in this process, under a small stand-in for the Python backend's module.

What the real backend makes of it is shown by `make test-triton`.
"""

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prefrm.bundle import read_manifest
from prefrm.engine import open_engine
from prefrm.imports.importing import import_judge
from prefrm.protocol import MATRIX_OUTPUTS, decode_matrices, encode_groups
from prefrm.winmatrix import Group, WinMatrix
from serving.triton.repository import write_repository
from tests.prefrm.candidates import candidate
from tests.prefrm.imports.scalar_checkpoints import save_base, save_hpsv3
from tests.serving.triton.calls_inference import unreadable
from tests.serving.triton.conftest import KINDS


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class TritonError:
    INVALID_ARG, INTERNAL = "INVALID_ARG", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class Request:
    """The tensors of one request, and the names of the outputs that its client wants."""

    def __init__(self, tensors: dict[str, np.ndarray], outputs: Sequence[str]) -> None:
        self.tensors = [Tensor(name, array) for name, array in tensors.items()]
        self._outputs = outputs

    def requested_output_names(self) -> Sequence[str]:
        return self._outputs


BACKEND = SimpleNamespace(
    Tensor=Tensor,
    TritonError=TritonError,
    InferenceResponse=lambda output_tensors=(), error=None: SimpleNamespace(
        tensors={tensor.name(): tensor.as_numpy() for tensor in output_tensors}, error=error
    ),
    get_input_tensor_by_name=lambda request, name: next(
        (t for t in request.tensors if t.name() == name), None
    ),
)


@pytest.fixture(params=["bundle", "dual_bundle", "published", *KINDS])
def judged_by(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The bundle of a judge of some kind, or of one that was imported, with another head and layout."""
    if request.param in KINDS:
        folder: Path = request.getfixturevalue("kinds_of_bundles")[request.param]
        return folder
    if request.param != "published":
        return request.getfixturevalue(request.param)
    save_base(tmp_path / "base")
    save_hpsv3(tmp_path / "HPSv3.safetensors")
    template = tmp_path / "t.txt"
    template.write_text("{image}Rate {prompt}: <|Reward|>\nEND")
    source, out = str(tmp_path / "HPSv3.safetensors"), tmp_path / "hpsv3"
    import_judge("hpsv3", source, out, base=str(tmp_path / "base"), template=template)
    return out


def test_the_exported_model_answers_as_the_engine_does(judged_by, png, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", BACKEND)
    write_repository(judged_by, tmp_path / "repository")
    folder = tmp_path / "repository" / "judge"
    model = runpy.run_path(str(folder / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize(
        {
            "model_repository": str(folder),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_config": json.dumps({"max_batch_size": 8}),
        }
    )
    inputs = read_manifest(judged_by).inputs
    (kind,) = inputs.kinds
    a, b, c, bad = (*(candidate(kind, seed) for seed in range(3)), unreadable(kind))
    groups = [
        Group(prompt="two dogs", candidates=(a, b)),
        Group(prompt="über", candidates=(b, bad, c)),
    ]
    every = [spec.name for spec in MATRIX_OUTPUTS]
    bad = encode_groups(groups[:1]) | {"prompt": np.array([[b"\xff"]], dtype=object)}
    first, second, refused, one = model.execute(
        [
            *(Request(encode_groups([group]), every) for group in groups),
            Request(bad, every),
            Request(encode_groups(groups[:1]), ["win_matrix"]),
        ]
    )
    local = open_engine(judged_by, device="cpu").score(groups)
    for response, matrix in zip((first, second), local, strict=True):
        assert decode_matrices(response.tensors, count=1, size=matrix.size)[0].equals(matrix)
    edit = Group(prompt="a hat", candidates=(a, c), context=(png(6), png(7)), criterion="hue")
    (response,) = model.execute([Request(encode_groups([edit]), every)])
    if reason := inputs.refusal(edit):
        expected = WinMatrix.missing([reason] * 2)
    else:
        (expected,) = open_engine(judged_by, device="cpu").score([edit])
    assert decode_matrices(response.tensors, count=1, size=2)[0].equals(expected)
    assert (refused.error.code, refused.tensors) == ("INVALID_ARG", {})
    assert list(one.tensors) == ["win_matrix"]


def test_a_failure_of_the_judge_is_internal(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.limits import Limits
    from serving.triton.model import TritonPythonModel

    class Broken:
        def score(self, groups: Sequence[Group]) -> None:
            raise RuntimeError("out of order")

    model = TritonPythonModel()
    model._triton, model._limits, model._scorer = BACKEND, Limits(), Broken()
    (response,) = model.execute([Request(encode_groups([Group(prompt="p", candidates=(b"a", b"b"))]), [])])
    assert response.error.code == "INTERNAL" and "RuntimeError: out of order" in response.error.message
