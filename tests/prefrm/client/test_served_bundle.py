"""`prefrm serve` on a real bundle: whichever way it is asked, the judge's matrices are the local engine's."""

import asyncio
import json
import os
import subprocess
import sys

import httpx
import pytest
import torch

from prefrm.bundle import CalibrationRecord, read_manifest, write_bundle
from prefrm.cli import run
from prefrm.client import connect, connect_async
from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import Group, PowerScaling
from serving.server import Addresses
from tests.serving.score_calls import as_json
from tests.videos import clip, frames


@pytest.fixture(params=["image", "video", "text"])
def kind(request):
    return request.param


@pytest.fixture
def bundle(kind, tiny_checkpoint, tmp_path):
    folder = tmp_path / "bundle"
    judge = Judge.from_base(
        JudgeSpec(base_model=str(tiny_checkpoint), kind=kind, template="fit-late-v1"), "cpu"
    )
    power = CalibrationRecord.of(PowerScaling(temperature=0.1, power=1.4), split="validation", pairs=9)
    write_bundle(folder, judge, calibration=power, data_fingerprint="f" * 64, metrics={}, card="# A judge\n")
    return folder


@pytest.fixture
def process(bundle, tmp_path, until):
    """`prefrm serve` in a process of its own, and where it listens."""
    file = tmp_path / "address.json"
    ports = [f"--{which}-port=0" for which in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "prefrm", "serve", str(bundle), *ports, f"--address-file={file}"]
    # How many threads share a sum decides its last bit.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            until(lambda: file.exists() or running.poll() is not None)
            yield running, Addresses(**json.loads(file.read_text()))
        finally:
            running.kill()


def candidates_of(kind, png):
    """Two that can be read, one that cannot, and one of which only decoding finds out that it cannot."""
    if kind == "text":
        return "two dogs", "ein Hund\0", None, ""
    if kind == "image":
        return png(1), png(2, 16, 64), b"no image", png(6)[:200]
    still, moving = clip(frames(1) * 5), clip(frames(5))
    return still, moving, png(1), moving[: len(moving) - 40]


@pytest.mark.slow
def test_local_engine_grpc_http_and_json_agree_bit_by_bit(kind, bundle, process, png):
    running, addresses = process
    one, two, bad, cut = candidates_of(kind, png)
    groups = [
        Group(prompt="two dogs", candidates=(one, two)),
        Group(prompt="a hat", candidates=(one, two), context=(png(5), png(6, 16, 64)), criterion="hue"),
        Group(prompt="a hat", candidates=(one, two), context=(png(5),), criterion="form"),
        Group(prompt="a red kite", candidates=(two, None)),
        Group(prompt="über", candidates=(two, bad, one, two), criterion="ä"),
        Group(prompt="cut", candidates=(one, cut, two)),
        Group(prompt="a context that cannot be read", candidates=(one, two), context=(png(5)[:200],)),
    ]
    local = Engine.from_bundle(bundle).score(groups)
    assert [bool(matrix.valid.all()) for matrix in local] == [True] * 3 + [False] * 4

    async def ask(url):
        async with connect_async(url) as judge:
            return await judge.score(groups)

    for url in (addresses.grpc_url, addresses.http_url):
        with connect(url) as judge:
            answers = [judge.score(groups), asyncio.run(ask(url))]
        for matrices in answers:
            for remote, own in zip(matrices, local, strict=True):
                assert remote.errors == own.errors
                assert remote.equals(own)
        other = Group(prompt="p", candidates=("a", "b") if kind != "text" else (png(1), png(2)))
        with connect(url) as judge:
            assert judge.inputs() == read_manifest(bundle).inputs
            (refused,) = judge.score([other])
        assert set(refused.errors) == {read_manifest(bundle).inputs.refusal(other)}
    answer = httpx.post(f"http://{addresses.http}/v1/score", json=as_json(groups), timeout=60).json()
    assert answer["groups"] == [matrix_to_json(matrix) for matrix in local]
    config = httpx.get(f"http://{addresses.http}/v2/models/judge/config").json()
    assert config["parameters"]["judge"]["string_value"] == read_manifest(bundle).describe()
    with connect(addresses.grpc_url) as judge:
        assert judge.identity() == read_manifest(bundle).digest
    running.terminate()
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "judge: " in err and "calibrated (temperature 0.1, power 1.4" in err
    assert out.startswith("ready: grpc://")


def test_a_folder_that_is_not_there_is_one_line_and_status_2(tmp_path, capsys):
    assert run(["serve", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is no folder" in said
