"""The unmodified tritonclient, all four of it, against a real server."""

import asyncio
import contextlib
import gc
import warnings

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from prefrm.protocol import INPUTS, OUTPUTS, PROMPT, decode_matrices, encode_groups, encode_matrices
from prefrm.winmatrix import Group

KINDS = ["grpc", "http", "grpc.aio", "http.aio"]
MODULES = {"grpc": triton_grpc, "http": triton_http, "grpc.aio": triton_grpc_aio, "http.aio": triton_http_aio}
INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}
MISSING = {"grpc": "StatusCode.NOT_FOUND", "http": "404"}
UNSUPPORTED = {"grpc": "StatusCode.UNIMPLEMENTED", "http": "501"}


def wire(kind: str) -> str:
    return kind.split(".")[0]


def call(kind: str, addresses, method: str, *args, **kwargs):
    """One call of a stock client's method, awaited if need be."""
    address = getattr(addresses, wire(kind))
    if not kind.endswith("aio"):
        with contextlib.closing(MODULES[kind].InferenceServerClient(address)) as client:
            return getattr(client, method)(*args, **kwargs)

    async def main():
        async with MODULES[kind].InferenceServerClient(address) as client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(main())


def as_dict(kind: str, answer):
    from google.protobuf.json_format import MessageToDict

    if wire(kind) == "http":
        return answer
    return MessageToDict(answer, preserving_proto_field_name=True)


def inputs(kind: str, tensors, *, rename=None, datatype=None, binary=True):
    made = []
    for spec in (spec for spec in INPUTS if spec.name in tensors):
        array = tensors[spec.name]
        name = (rename or {}).get(spec.name, spec.name)
        tensor = MODULES[wire(kind)].InferInput(name, list(array.shape), "BYTES")
        if wire(kind) == "http":
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def outputs(kind: str, *names, **options):
    return [MODULES[wire(kind)].InferRequestedOutput(name, **options) for name in names]


@pytest.fixture
def tensors(groups):
    return encode_groups(groups)


@pytest.fixture
def text_tensors():
    """Groups whose images are text, so that JSON can carry them; none can be decoded."""
    return encode_groups([Group(prompt="é", candidates=("ä".encode(), b"b"))])


@pytest.mark.parametrize("kind", KINDS)
class TestEveryClient:
    def test_scores_are_those_of_the_local_scorer_bit_by_bit(self, kind, served, scorer, groups, tensors):
        result = call(kind, served, "infer", "judge", inputs(kind, tensors), request_id="r-1")
        arrays = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
        matrices = decode_matrices(arrays, count=len(groups), size=4)
        local = scorer.score(groups)
        assert [remote.equals(own) for remote, own in zip(matrices, local, strict=True)] == [True] * 3
        np.testing.assert_array_equal(arrays["win_rate"], encode_matrices(local)["win_rate"])
        response = as_dict(kind, result.get_response())
        assert response["id"] == "r-1"
        assert (response["model_name"], response["model_version"]) == ("judge", "1")
        assert [output["name"] for output in response["outputs"]] == [spec.name for spec in OUTPUTS]

    def test_candidates_of_every_kind_are_scored(self, kind, served, scorer, every_kind):
        for group, local in zip(every_kind, scorer.score(every_kind), strict=True):
            result = call(kind, served, "infer", "judge", inputs(kind, encode_groups([group])))
            arrays = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
            (matrix,) = decode_matrices(arrays, count=1, size=group.size)
            assert matrix.equals(local)

    def test_the_outputs_are_those_asked_for_in_that_order(self, kind, served, tensors):
        wanted = outputs(kind, "valid", "win_rate")
        result = call(kind, served, "infer", "judge", inputs(kind, tensors), outputs=wanted)
        response = as_dict(kind, result.get_response())
        assert [output["name"] for output in response["outputs"]] == ["valid", "win_rate"]
        assert "id" not in response
        assert result.as_numpy("valid").dtype == bool
        assert result.as_numpy("win_rate").shape == (3, 4)

    def test_liveness_readiness_and_metadata(self, kind, served):
        assert call(kind, served, "is_server_live")
        assert call(kind, served, "is_server_ready")
        assert call(kind, served, "is_model_ready", "judge")
        assert call(kind, served, "is_model_ready", "judge", "1")
        assert as_dict(kind, call(kind, served, "get_server_metadata"))["name"] == "prefrm"
        metadata = as_dict(kind, call(kind, served, "get_model_metadata", "judge"))
        declared = metadata["inputs"] + metadata["outputs"]
        shapes = {tensor["name"]: [int(extent) for extent in tensor["shape"]] for tensor in declared}
        assert shapes == {spec.name: list(spec.shape) for spec in INPUTS + OUTPUTS}
        assert {t["name"]: t["datatype"] for t in declared} == {s.name: s.datatype for s in INPUTS + OUTPUTS}
        assert metadata["versions"] == ["1"]

    def test_config_and_repository_index(self, kind, served):
        config = as_dict(kind, call(kind, served, "get_model_config", "judge"))
        config = config.get("config", config)
        assert config["max_batch_size"] == 4
        facts = {name: value["string_value"] for name, value in config["parameters"].items()}
        assert facts == {"base_model": "none", "kinds": "image,video,text"}
        optional = {tensor["name"]: tensor.get("optional", False) for tensor in config["input"]}
        assert optional == {spec.name: spec is not PROMPT for spec in INPUTS}
        index = as_dict(kind, call(kind, served, "get_model_repository_index"))
        models = index["models"] if wire(kind) == "grpc" else index
        assert models == [{"name": "judge", "version": "1", "state": "READY"}]

    def test_statistics_count_groups_and_requests(self, kind, served, tensors):
        def read():
            answer = as_dict(kind, call(kind, served, "get_inference_statistics", "judge"))
            return answer["model_stats"][0]

        call(kind, served, "infer", "judge", inputs(kind, tensors))
        before = read()
        call(kind, served, "infer", "judge", inputs(kind, tensors))
        after = read()
        assert int(after["inference_count"]) - int(before["inference_count"]) == 3
        assert int(after["execution_count"]) - int(before["execution_count"]) == 1
        stats = after["inference_stats"]
        assert int(stats["success"]["count"]) == int(before["inference_stats"]["success"]["count"]) + 1
        assert 0 < int(stats["compute_infer"]["ns"]) <= int(stats["success"]["ns"])

    def test_unknown_models_and_versions_are_not_found(self, kind, served, tensors):
        with warnings.catch_warnings():
            # The aio client leaves the error's body unread, and aiohttp may complain of the open connection.
            warnings.simplefilter("ignore", ResourceWarning)
            assert not call(kind, served, "is_model_ready", "other")
            assert not call(kind, served, "is_model_ready", "judge", "2")
            gc.collect()
        for method, *rest in (
            ("infer", "other", inputs(kind, tensors)),
            ("infer", "judge", inputs(kind, tensors), "2"),
            ("get_model_metadata", "other"),
            ("get_model_config", "judge", "2"),
            ("get_inference_statistics", "other"),
        ):
            with pytest.raises(InferenceServerException, match="Request for unknown model: ") as caught:
                call(kind, served, method, *rest)
            assert caught.value.status() == MISSING[wire(kind)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rename": {"prompt": "promt"}}, "unknown input 'promt'"),
            ({"rename": {"prompt": "images"}}, "missing input 'prompt'"),
            ({"shape": (1, 2)}, r"'prompt' must have the shape \[-1, 1\]"),
            ({"groups": 5}, "may have 4 groups; received 5"),
            ({"size": 1}, "at least 2 candidates"),
            ({"outputs": ["win_matrix", "rank"]}, "unknown output 'rank'"),
        ],
    )
    def test_a_request_that_breaks_the_protocol_is_invalid(self, kind, served, options, message):
        count, size = options.get("groups", 1), options.get("size", 2)
        text = options.get("prompt", "p").encode()
        prompt = np.full(options.get("shape", (count, 1)), text, dtype=object)
        images = np.full((count, size), b"i", dtype=object)
        sent = inputs(kind, {"prompt": prompt, "images": images}, rename=options.get("rename"))
        wanted = outputs(kind, *options["outputs"]) if "outputs" in options else None
        with pytest.raises(InferenceServerException, match=message) as caught:
            call(kind, served, "infer", "judge", sent, outputs=wanted)
        assert caught.value.status() == INVALID[wire(kind)]

    @pytest.mark.parametrize(
        ("size", "long", "reason"),
        [
            (3, "ä" * 16_385, "a prompt may have 32768 bytes; received 32770"),
            (9, "p", "a group may have 8 candidates; received 9"),
        ],
    )
    def test_a_group_beyond_the_limits_is_answered_as_not_judged(self, kind, served, png, size, long, reason):
        prompt = np.array([[b"p"], [long.encode()]], dtype=object)
        images = np.full((2, size), png(7), dtype=object)
        result = call(kind, served, "infer", "judge", inputs(kind, {"prompt": prompt, "images": images}))
        assert (result.as_numpy("error")[1] == reason.encode()).all()
        assert np.isnan(result.as_numpy("win_matrix")[1]).all() and not result.as_numpy("valid")[1].any()
        # The other group is judged unless it is too large itself.
        assert result.as_numpy("valid")[0].all() == (size == 3)

    def test_another_datatype_is_invalid(self, kind, served, tensors):
        sent = inputs(kind, tensors)
        sent[0] = MODULES[wire(kind)].InferInput("prompt", [3, 1], "FP32")
        sent[0].set_data_from_numpy(np.zeros((3, 1), np.float32))
        with pytest.raises(InferenceServerException, match="datatype BYTES; received 'FP32'") as caught:
            call(kind, served, "infer", "judge", sent)
        assert caught.value.status() == INVALID[wire(kind)]

    def test_shared_memory_and_classification_are_unsupported(self, kind, served, tensors):
        sent = inputs(kind, tensors)
        sent[1].set_shared_memory("region", 10)
        with pytest.raises(InferenceServerException, match="shared memory") as caught:
            call(kind, served, "infer", "judge", sent)
        assert caught.value.status() == UNSUPPORTED[wire(kind)]
        wanted = outputs(kind, "win_rate", class_count=2)
        with pytest.raises(InferenceServerException, match="classification") as caught:
            call(kind, served, "infer", "judge", inputs(kind, tensors), outputs=wanted)
        assert caught.value.status() == UNSUPPORTED[wire(kind)]

    def test_extensions_that_are_not_there_say_so(self, kind, served):
        for method, *rest in (
            ("register_system_shared_memory", "mine", "key", 10),
            ("register_cuda_shared_memory", "mine", b"aGFuZGxl", 0, 10),
            ("get_trace_settings",),
            ("get_log_settings",),
        ):
            with pytest.raises(InferenceServerException, match="not supported") as caught:
                call(kind, served, method, *rest)
            assert caught.value.status() == UNSUPPORTED[wire(kind)]

    def test_there_are_no_regions_of_shared_memory(self, kind, served):
        for memory in ("system", "cuda"):
            assert not as_dict(kind, call(kind, served, f"get_{memory}_shared_memory_status"))
            call(kind, served, f"unregister_{memory}_shared_memory")
            call(kind, served, f"unregister_{memory}_shared_memory", "mine")

    def test_an_output_that_is_asked_for_twice_comes_once(self, kind, served, tensors):
        wanted = outputs(kind, "valid", "win_rate", "valid")
        result = call(kind, served, "infer", "judge", inputs(kind, tensors), outputs=wanted)
        names = [one["name"] for one in as_dict(kind, result.get_response())["outputs"]]
        assert names == ["valid", "win_rate"]

    def test_megabytes_travel(self, kind, served):
        # gRPC's own limit is 4 MiB. aiohttp warns of bodies beyond 1 MiB that are not streams.
        big = Group(prompt="p", candidates=(b"\x00" * 6_000_000, b"x"))
        with contextlib.ExitStack() as stack:
            if kind == "http.aio":
                stack.enter_context(pytest.warns(ResourceWarning, match="large body"))
            result = call(kind, served, "infer", "judge", inputs(kind, encode_groups([big])))
        assert b"not a valid PNG" in result.as_numpy("error")[0, 0]

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compression(self, kind, algorithm, served, scorer, groups, tensors):
        options = {"compression_algorithm": algorithm}
        if wire(kind) == "http":
            options = {
                "request_compression_algorithm": algorithm,
                "response_compression_algorithm": algorithm,
            }
        result = call(kind, served, "infer", "judge", inputs(kind, tensors), **options)
        expected = encode_matrices(scorer.score(groups))["win_matrix"]
        np.testing.assert_array_equal(result.as_numpy("win_matrix"), expected)


@pytest.mark.parametrize("kind", ["http", "http.aio"])
@pytest.mark.parametrize("binary", [True, False])
def test_http_takes_and_gives_json_and_binary_in_any_mixture(kind, binary, served, text_tensors):
    sent = inputs(kind, text_tensors, binary=False)
    if binary:
        sent[0].set_data_from_numpy(text_tensors["prompt"], binary_data=True)
    wanted = outputs(kind, "win_matrix", "error", binary_data=not binary) + outputs(kind, "valid")
    result = call(kind, served, "infer", "judge", sent, outputs=wanted)
    assert np.isnan(result.as_numpy("win_matrix")).all()
    assert not result.as_numpy("valid").any()
    errors = [e.decode() if isinstance(e, bytes) else e for e in result.as_numpy("error").flat]
    assert errors == ["not a valid PNG or JPEG or WEBP image"] * 2


def test_concurrent_callers_each_get_their_own_answers(served, scorer, png):
    own = [Group(prompt="p" * n, candidates=(png(n), png(7 * n), png(200 - n))) for n in range(24)]

    async def main():
        async with (
            triton_grpc_aio.InferenceServerClient(served.grpc) as over_grpc,
            triton_http_aio.InferenceServerClient(served.http) as over_http,
        ):
            clients = [("grpc", over_grpc), ("http", over_http)]
            calls = [
                clients[n % 2][1].infer("judge", inputs(clients[n % 2][0], encode_groups([group])))
                for n, group in enumerate(own)
            ]
            return await asyncio.gather(*calls)

    for result, matrix in zip(asyncio.run(main()), scorer.score(own), strict=True):
        np.testing.assert_array_equal(result.as_numpy("win_matrix")[0], matrix.p)
