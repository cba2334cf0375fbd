"""What `prefrm export` writes, and what it leaves when it cannot."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from prefrm.bundle import merge_bundle, read_manifest, verify_files
from prefrm.cli import run
from prefrm.engine import Engine
from prefrm.errors import BundleError, OutOfMemoryError, ProtocolError, ScoringError
from prefrm.protocol import OUTPUTS, decode_matrices, encode_groups, input_tensors
from prefrm.winmatrix import FakeScorer, Group
from serving.limits import Limits
from serving.triton.model import answer
from serving.triton.repository import write_repository


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_repository_holds_the_bundle_and_the_tensors_of_the_protocol(bundle, tmp_path, capsys):
    out = tmp_path / "some" / "repository"
    assert run(["export", str(bundle), "--to", "triton", "--out", str(out), "--name", "house-style"]) == 0
    model = out / "house-style"
    manifest = read_manifest(model / "1" / "bundle")
    verify_files(model / "1" / "bundle", manifest)
    assert manifest == read_manifest(bundle)
    config = text_format.Parse((model / "config.pbtxt").read_text(), ModelConfig())
    assert config.name == "house-style"
    inputs = input_tensors(manifest.inputs)
    assert [tensor.optional for tensor in config.input] == list(inputs.values())
    for specs, tensors in ((inputs, config.input), (OUTPUTS, config.output)):
        assert [tensor.name for tensor in tensors] == [spec.name for spec in specs]
        assert [(-1, *tensor.dims) for tensor in tensors] == [spec.shape for spec in specs]
    assert all(tensor.allow_ragged_batch for tensor in config.input)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    policy = config.dynamic_batching.default_queue_policy
    assert policy.allow_timeout_override and policy.default_timeout_microseconds == 600_000_000
    assert config.parameters["bundle"].string_value == manifest.digest
    assert config.parameters["judge"].string_value == manifest.describe()
    assert capsys.readouterr().out == f"{out}: {manifest.describe()}\n"
    assert left_in(out.parent) == ["repository"]


def test_an_adapter_merged_judges_as_before_and_needs_no_base_model(adapter_bundle, tmp_path, png, capsys):
    groups = [Group(prompt="two dogs", candidates=(png(1), png(2), png(3)))]
    before = Engine.from_bundle(adapter_bundle).score(groups)
    capsys.readouterr()
    out = tmp_path / "merged"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["export", str(adapter_bundle), "--to", "merged", "--out", str(out)]) == 0
    assert capsys.readouterr().err == ""
    manifest, origin = read_manifest(out), read_manifest(adapter_bundle)
    assert manifest.weights == "model" and not (out / "adapter").exists()
    kept = ("calibration", "metrics", "data_fingerprint", "training_inputs", "template", "base_sha256")
    for name in kept:
        assert getattr(manifest, name) == getattr(origin, name)
    for name in ("README.md", "plots/plot.png", "plots/more/plot.png"):
        assert (out / name).read_bytes() == (adapter_bundle / name).read_bytes()
    after = Engine.from_bundle(out).score(groups)
    np.testing.assert_allclose(after[0].p, before[0].p, atol=1e-6)
    assert manifest.digest != origin.digest


def test_what_has_no_adapter_is_not_merged(bundle, tmp_path):
    with pytest.raises(BundleError, match="no adapter to merge"):
        merge_bundle(bundle, tmp_path / "merged")
    assert left_in(tmp_path) == []


def test_an_adapter_says_what_it_needs_beside_triton(adapter_bundle, checkpoint, tmp_path, capsys):
    assert run(["export", str(adapter_bundle), "--to", "triton", "--out", str(tmp_path / "r")]) == 0
    assert f"needs its base model {checkpoint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BUNDLE", "--to", "triton", "--out", "TMP"], "exists; name a folder that does not"),
        (["BUNDLE", "--to", "merged", "--out", "TMP"], "exists; name a folder that does not"),
        (["TMP", "--to", "triton", "--out", "TMP/new"], "is not a bundle"),
        (["TMP", "--to", "merged", "--out", "TMP/new"], "is not a bundle"),
        (["TMP/nothing", "--to", "triton", "--out", "TMP/new"], "is not a bundle"),
        (["BUNDLE", "--to", "triton", "--out", "TMP/new", "--name", "a/b"], "letters, digits"),
        (["BUNDLE", "--to", "triton", "--out", "TMP/new", "--dtype", "float16"], "is for --to merged"),
        (["BUNDLE", "--to", "merged", "--out", "TMP/new", "--name", "j"], "is for --to triton"),
        (["BUNDLE", "--to", "triton", "--out", "BUNDLE/plots/x"], "/plots/x is inside the bundle"),
        (
            ["BUNDLE", "--to", "triton", "--out", __file__ + "/x"],
            f"{__file__}/x cannot be written: Not a directory",
        ),
        (["ADAPTED", "--to", "merged", "--out", "BUNDLE/x"], "/x is inside the bundle"),
        (
            ["ADAPTED", "--to", "merged", "--out", __file__ + "/x"],
            f"{__file__}/x cannot be written: Not a directory",
        ),
        (["BUNDLE", "--to", "onnx", "--out", "TMP/new"], "'onnx' is not one of"),
        (["BUNDLE", "--out", "TMP/new"], "Missing option '--to'"),
        (["BUNDLE", "--to", "triton"], "Missing option '--out'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments, message, bundle, adapter_bundle, tmp_path, capsys
):
    places = {"BUNDLE": bundle, "ADAPTED": adapter_bundle, "TMP": tmp_path}
    filled = arguments
    for word, place in places.items():
        filled = [part.replace(word, str(place)) for part in filled]
    assert run(["export", *filled]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("prefrm: ")
    assert message in error
    assert left_in(tmp_path) == []
    verify_files(bundle, read_manifest(bundle))


def test_an_altered_bundle_leaves_no_repository(bundle, tmp_path):
    altered = shutil.copytree(bundle, tmp_path / "altered")
    (altered / "README.md").write_text("another card")
    with pytest.raises(BundleError, match=rf"{altered}: README\.md was altered"):
        write_repository(altered, tmp_path / "repository")
    assert left_in(tmp_path) == ["altered"]


def test_what_a_clone_of_the_hub_adds_stays_out_of_the_repository(bundle, tmp_path):
    clone = shutil.copytree(bundle, tmp_path / "clone")
    (clone / ".git").mkdir()
    (clone / ".git" / "HEAD").touch()
    (clone / ".gitattributes").touch()
    write_repository(clone, tmp_path / "repository", name="judge")
    copied = tmp_path / "repository" / "judge" / "1" / "bundle"
    assert left_in(copied) == left_in(bundle)


def test_an_interrupted_export_leaves_no_repository(bundle, tmp_path, monkeypatch):
    def interrupted(source: Path, target: Path, **options: object) -> None:
        target.mkdir(parents=True)
        (target / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_repository(bundle, tmp_path / "repository")
    assert left_in(tmp_path) == []


class CountingScorer(FakeScorer):
    """Judges by an image's length; `calls` holds the sizes of each call's groups."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, image: float(len(image)))
        self.calls: list[list[int]] = []

    def score(self, groups):
        self.calls.append([group.size for group in groups])
        if any(group.prompt == "poison" for group in groups):
            raise ValueError("this prompt breaks the judge")
        return super().score(groups)


def request(prompt: bytes, size: int) -> dict[str, np.ndarray]:
    tensors = encode_groups([Group(prompt="p", candidates=tuple(b"i" * (n + 1) for n in range(9)))])
    return {"prompt": np.array([[prompt]], dtype=object), "images": tensors["images"][:, :size]}


def test_requests_of_all_sizes_are_scored_in_one_call_and_fail_alone():
    scorer = CountingScorer()
    requests = [request(b"a", 2), request(b"\xff", 3), request(b"b", 5), request(b"c", 1), request(b"d", 9)]
    answers = answer(scorer, requests, Limits(group_size=8, request_groups=1))
    assert scorer.calls == [[2, 5]]
    for size, got in ((2, answers[0]), (5, answers[2])):
        own = scorer.score([Group(prompt="p", candidates=tuple(b"i" * (n + 1) for n in range(size)))])
        assert decode_matrices(got, count=1, size=size)[0].equals(own[0])
    reasons = [str(answers[n]) for n in (1, 3, 4)]
    assert all(isinstance(answers[n], ProtocolError) for n in (1, 3, 4))
    assert "not UTF-8" in reasons[0] and "at least 2" in reasons[1] and "8 candidates" in reasons[2]


class SmallScorer(FakeScorer):
    """Has memory for one group of at most four candidates."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, image: float(len(image)))

    def score(self, groups):
        if len(groups) > 1 or groups[0].size > 4:
            raise OutOfMemoryError("the device is full")
        return super().score(groups)


def test_a_batch_beyond_the_memory_is_halved_and_only_what_never_fits_fails():
    answers = answer(SmallScorer(), [request(b"a", 2), request(b"b", 5), request(b"c", 4)], Limits())
    assert (answers[1]["error"] == b"the group cannot be scored: the device is full").all()
    assert [bool(one["valid"].all()) for one in answers] == [True, False, True]


def test_a_scorer_that_raises_fails_its_batch_and_keeps_the_reasons_of_the_others():
    answers = answer(CountingScorer(), [request(b"poison", 2), request(b"\xff", 2)], Limits())
    assert isinstance(answers[0], ScoringError) and "breaks the judge" in str(answers[0])
    assert isinstance(answers[1], ProtocolError)


def test_a_group_beyond_the_limits_is_answered_as_not_judged():
    limits = Limits(prompt_bytes=3, group_size=8)
    answers = answer(CountingScorer(), [request(b"four", 2), request(b"tre", 2), request(b"tre", 9)], limits)
    assert (answers[0]["error"] == b"a prompt may have 3 bytes; received 4").all()
    assert (answers[2]["error"] == b"a group may have 8 candidates; received 9").all()
    assert [bool(one["valid"].all()) for one in answers] == [False, True, False]
