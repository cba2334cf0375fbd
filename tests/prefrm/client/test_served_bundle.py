"""`prefrm serve` on a real bundle: whichever way it is asked, the judge's matrices are the local engine's."""

import asyncio
import json
import os
import subprocess
import sys
from base64 import b64encode

import httpx
import pytest
import torch

from prefrm.bundle import CalibrationRecord, read_manifest, write_bundle
from prefrm.cli import run
from prefrm.client import connect, connect_async
from prefrm.engine import Engine
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import Group, PowerScaling
from serving.server import Addresses


@pytest.fixture
def bundle(judge, tmp_path):
    folder = tmp_path / "bundle"
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


@pytest.mark.slow
def test_local_engine_grpc_http_and_json_agree_bit_by_bit(bundle, process, png):
    running, addresses = process
    groups = [
        Group(prompt="two dogs", candidates=(png(1), png(2), png(3))),
        Group(prompt="a red kite", candidates=(png(4, 16, 64), None)),
        Group(prompt="über", candidates=(png(5), b"no image", png(6), png(1))),
        # The header is sound, so only decoding finds it out.
        Group(prompt="cut", candidates=(png(5), png(6)[:200], png(7))),
    ]
    local = Engine.from_bundle(bundle).score(groups)
    assert [bool(matrix.valid.all()) for matrix in local] == [True, False, False, False]

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
    body = [
        {
            "prompt": group.prompt,
            "images": [image and b64encode(image).decode() for image in group.candidates],
        }
        for group in groups
    ]
    answer = httpx.post(f"http://{addresses.http}/v1/score", json={"groups": body}, timeout=60).json()
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
