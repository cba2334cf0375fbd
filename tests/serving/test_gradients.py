"""`POST /v2/models/NAME/gradient`: utilities and their derivatives, and what is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch

import serving.gradients
from prefrm.client import RemoteGradient
from prefrm.differentiable import FakeDifferentiableScorer
from prefrm.errors import (
    ConfigError,
    MediaError,
    OverloadedError,
    RecordError,
    RequestError,
    ScoringError,
)
from prefrm.winmatrix import FakeScorer
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


def squares(prompt, pixels):
    """Utility k is the sum of the squares of candidate k, times the length of the prompt."""
    if prompt == "refused":
        raise MediaError("pixels are in [0, 1]")
    if prompt == "broken":
        raise RuntimeError("secret")
    return len(prompt) * (pixels**2).flatten(1).sum(dim=1)


def serving_gradient(utility=squares, **limits):
    scorer = FakeScorer(lambda prompt, image: 0.0)
    gradient = None if utility is None else FakeDifferentiableScorer(utility)
    return background(
        JudgeServer(scorer, ModelInfo(name="judge"), limits=Limits(**limits), gradient=gradient)
    )


@pytest.fixture(scope="module")
def served():
    with serving_gradient(group_size=4, prompt_bytes=20) as addresses:
        yield addresses


@pytest.fixture
def pixels():
    return np.random.default_rng(0).random((3, 3, 4, 5), dtype=np.float32)


def test_utilities_come_with_their_derivatives(served, pixels):
    with RemoteGradient.connect(served.http_url) as remote:
        utilities, gradient = remote.gradient("über", pixels)
    np.testing.assert_allclose(utilities, 4 * (pixels**2).sum(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(gradient, 8 * pixels, rtol=1e-6)


def request(prompt="p", pixels=None, **changes):
    pixels = np.full((1, 3, 1, 2), 0.5, np.float32) if pixels is None else pixels
    inputs = [
        {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": [prompt]},
        {
            "name": "pixels",
            "datatype": "FP32",
            "shape": list(pixels.shape),
            "data": pixels.ravel().tolist(),
            **changes,
        },
    ]
    return {"id": "a", "inputs": inputs}


def posted(served, body):
    return httpx.post(f"http://{served.http}/v2/models/judge/gradient", json=body, timeout=10)


def test_plain_json_will_do(served):
    answer = posted(served, request()).json()
    assert answer["id"] == "a"
    utilities, gradient = answer["outputs"]
    assert (utilities["name"], utilities["shape"], utilities["data"]) == ("utilities", [1], [1.5])
    assert (gradient["name"], gradient["shape"], gradient["data"]) == ("gradient", [1, 3, 1, 2], [1.0] * 6)


MALFORMED = {
    "no pixels": ({"inputs": request()["inputs"][:1]}, "the inputs of a gradient are prompt and pixels"),
    "twice": ({"inputs": 2 * request()["inputs"]}, "one of each"),
    "another datatype": (request(datatype="INT8"), "must be FP32 [K, 3, H, W]; received 'INT8'"),
    "four channels": (request(shape=[1, 4, 1, 2]), "must be FP32 [K, 3, H, W]"),
    "no candidate": (request(shape=[0, 3, 1, 2], data=[]), "must be FP32 [K, 3, H, W]"),
    "too few numbers": (request(data=[0.5]), "does not fill its shape [1, 3, 1, 2]"),
    "words": (request(data=["0.5", "a", 0, 0, 0, 0]), "does not fill its shape"),
    "too many candidates": (request(pixels=np.zeros((5, 3, 1, 1))), "a group may have 4 candidates"),
    "too many pixels": (request(shape=[1, 3, 100_000, 100_000]), "an image may have"),
    "a long prompt": (request(prompt="p" * 21), "a prompt may have 20 bytes; received 21"),
    "refused by the judge": (request(prompt="refused"), "pixels are in [0, 1]"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_cannot_be_answered_is_refused(served, name):
    body, message = MALFORMED[name]
    answer = posted(served, body)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_a_failure_of_the_judge_says_no_more_than_its_kind(served, pixels):
    with (
        RemoteGradient.connect(served.http_url) as remote,
        pytest.raises(ScoringError, match=r"the judge failed: RuntimeError$"),
    ):
        remote.gradient("broken", pixels)


def test_what_the_client_refuses(pixels):
    with pytest.raises(ConfigError, match="a gradient comes over http:// or https://"):
        RemoteGradient.connect("grpc://127.0.0.1:1/judge")
    with pytest.raises(RecordError, match="not valid Unicode"):
        RemoteGradient.connect("http://127.0.0.1:1/judge").gradient("\ud800", pixels)


def test_a_model_without_a_gradient_says_so(pixels):
    with (
        serving_gradient(None) as addresses,
        RemoteGradient.connect(addresses.http_url) as remote,
        pytest.raises(RequestError, match="'judge' gives no gradient; start the server with --gradients"),
    ):
        remote.gradient("p", pixels)


def test_one_is_computed_at_a_time_and_few_wait(pixels, monkeypatch):
    monkeypatch.setattr(serving.gradients, "WAITING", 2)
    started, go = threading.Semaphore(0), threading.Semaphore(0)
    at_once = []

    def gated(prompt, values):
        at_once.append(prompt)
        started.release()
        assert go.acquire(timeout=10)
        assert at_once == [prompt]
        at_once.clear()
        return squares(prompt, values)

    with (
        serving_gradient(gated) as addresses,
        ThreadPoolExecutor(2) as threads,
        RemoteGradient.connect(addresses.http_url) as remote,
    ):
        first = threads.submit(remote.gradient, "a", pixels)
        assert started.acquire(timeout=10)
        second = threads.submit(posted, addresses, request())
        # The second one waits once the third is refused.
        while posted(addresses, request() | {"parameters": {"timeout": 1}}).status_code != 429:
            pass
        short = RemoteGradient.connect(addresses.http_url, deadline=0.3)
        with pytest.raises(OverloadedError, match="2 requests for a gradient are waiting"):
            short.gradient("b", pixels)
        go.release(2)
        assert first.result(timeout=10)[0].shape == (3,)
        assert second.result(timeout=10).status_code == 200


def test_a_deadline_passes_and_the_next_request_is_answered(pixels):
    go = threading.Event()

    def slow(prompt, values):
        assert go.wait(10)
        return squares(prompt, values)

    with serving_gradient(slow) as addresses:
        late = posted(addresses, request() | {"parameters": {"timeout": 1000}})
        assert late.status_code == 504 and "before its gradient was there" in late.json()["error"]
        go.set()
        assert posted(addresses, request()).status_code == 200


def test_the_gradient_is_of_the_pixels_alone():
    weight = torch.ones((), requires_grad=True)
    with serving_gradient(lambda prompt, values: weight * squares(prompt, values)) as addresses:
        assert posted(addresses, request()).status_code == 200
    assert weight.grad is None
