"""Clients of the Open Inference Protocol other than ours, by the calls that they make.

Each is named with the file that makes the call. Where a client's package is too large to be installed for a
test, its request is made by hand and its reading of the answer is repeated.
"""

import asyncio
import base64
import json

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from google.protobuf.json_format import MessageToJson
from openapi_spec_validator import validate
from schemathesis import openapi
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from prefrm.differentiable import FakeDifferentiableScorer
from prefrm.winmatrix import FakeScorer, Group
from serving.dataplane import DataPlane
from serving.descriptions import describe_config, to_triton_json
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.metrics import Metrics
from serving.running import background
from serving.server import Server

INFER = "/v2/models/judge/infer"


def get(served, path: str) -> httpx.Response:
    return httpx.get(f"http://{served.http}{path}")


def load(name: str) -> list[LoadedModel]:
    gradient = FakeDifferentiableScorer(lambda prompt, pixels: pixels.flatten(1).sum(dim=1))
    scorer = FakeScorer(lambda prompt, image: len(image) / 50)
    return [LoadedModel(info=ModelInfo(name=name), scorer=scorer, gradient=gradient)]


@pytest.fixture(scope="module")
def controlled():
    """A server whose models clients may load and unload."""
    limits, metrics = Limits(), Metrics()
    models = ModelRepository(load("judge"), limits, metrics, load)
    with background(Server(DataPlane(models, limits, metrics))) as addresses:
        yield addresses


class TestConfiguration:
    def test_pytriton_finds_the_kind_of_every_instance(self, served):
        """nvidia-pytriton 0.7.0, pytriton/model_config/parser.py: `DeviceKind(entry["kind"])`."""
        over_grpc = triton_grpc.InferenceServerClient(served.grpc).get_model_config("judge")
        for config in (
            get(served, "/v2/models/judge/config").json(),
            json.loads(MessageToJson(over_grpc, preserving_proto_field_name=True))["config"],
        ):
            assert [entry["kind"] for entry in config["instance_group"]] == ["KIND_CPU"]

    def test_tritony_finds_fields_at_their_defaults(self, served):
        """tritony 0.0.23, tritony/helpers.py: `model_input.optional`, an attribute of the JSON's object."""
        config = get(served, "/v2/models/judge/config").json()
        assert [tensor["optional"] for tensor in config["input"]] == [False, True, True, True, True]

    def test_integers_of_64_bits_are_numbers_and_enums_are_names(self, served):
        config = get(served, "/v2/models/judge/config").json()
        assert [tensor["dims"] for tensor in config["input"]] == [[1], [-1], [-1], [-1], [1]]
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0
        assert config["input"][0]["format"] == "FORMAT_NONE"
        assert config["parameters"]["base_model"] == {"string_value": "none"}

    def test_a_model_on_a_gpu_says_which(self):
        config = describe_config(ModelInfo(name="judge", device="cuda:1"), 4)
        (group,) = to_triton_json(config)["instance_group"]
        assert (group["kind"], group["gpus"]) == ("KIND_GPU", [1])


class TestHealth:
    def test_it_is_the_json_that_the_protocol_defines(self, served):
        """kserve 0.21.0, kserve/inference_client.py, `is_server_live`: `response.json().get("live")`."""
        assert get(served, "/v2/health/live").json() == {"live": True}
        assert get(served, "/v2/health/ready").json() == {"ready": True}
        for path in ("/v2/models/judge/ready", "/v2/models/judge/versions/1/ready"):
            assert get(served, path).json() == {"name": "judge", "ready": True}

    def test_the_stock_aio_client_which_never_reads_it_keeps_its_connection(self, served):
        # Answers come in two pieces. A call may miss the second and give its connection up, but not often.
        async def opened() -> int:
            made = 0

            class Counted(triton_http_aio.aiohttp.TCPConnector):
                async def _create_connection(self, *args):
                    nonlocal made
                    made += 1
                    return await super()._create_connection(*args)

            async with triton_http_aio.InferenceServerClient(served.http) as client:
                await client._stub.close()
                client._stub = triton_http_aio.aiohttp.ClientSession(connector=Counted())
                for _ in range(300):
                    assert await client.is_server_live()
            return made

        assert asyncio.run(opened()) < 15


class TestLoading:
    @pytest.mark.parametrize("module", [triton_grpc, triton_http])
    def test_a_configuration_is_obeyed_or_refused_by_its_field(self, controlled, module):
        wire = "grpc" if module is triton_grpc else "http"
        with module.InferenceServerClient(getattr(controlled, wire)) as client:
            served = get(controlled, "/v2/models/judge/config").text
            for config in (served, '{"max_batch_size": "256"}', '{"maxBatchSize": 256}', "{}"):
                client.load_model("judge", config=config)
            for config, message in (
                (
                    '{"max_batch_size": 0}',
                    "another value of 'max_batch_size'",
                ),
                ('{"name": "other"}', "another value of 'name'"),
                ('{"mine": 1}', "'config' is not a model configuration: .* no field named \"mine\""),
                ('{"max', "'config' is not a model configuration: Unterminated string"),
                ("[]", "received list"),
            ):
                with pytest.raises(InferenceServerException, match=message) as caught:
                    client.load_model("judge", config=config)
                assert caught.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")
                # src/python/examples/simple_http_model_control.py looks for these words.
                assert caught.value.message().startswith("failed to load 'judge': ")
                assert "\n" not in caught.value.message()
            with pytest.raises(InferenceServerException, match="send no files") as caught:
                client.load_model("judge", config="{}", files={"file:1/model.py": b"x"})
            assert caught.value.status() in ("StatusCode.UNIMPLEMENTED", "501")
            assert client.is_model_ready("judge")

    @pytest.mark.parametrize("parameters", [{"mine": "x"}, {"config": 5}, [], "x", None])
    def test_other_parameters_are_refused(self, controlled, parameters):
        url = f"http://{controlled.http}/v2/repository/models/judge/load"
        response = httpx.post(url, json={"parameters": parameters})
        assert response.status_code == 400
        assert "parameter" in response.json()["error"] or "'config'" in response.json()["error"]

    def test_errors_begin_as_those_of_triton(self, controlled):
        """triton-inference-server/client, src/python/examples/simple_{http,grpc}_health_metadata.py."""
        with triton_http.InferenceServerClient(controlled.http) as client:
            client.load_model("second")
            client.unload_model("second")
            for call, start in (
                (lambda: client.get_model_metadata("nobody"), "'nobody' is not found"),
                (lambda: client.get_model_config("judge", "7"), "'judge' version 7 is not found"),
                (lambda: client.get_model_metadata("second"), "'second' has no available versions"),
            ):
                with pytest.raises(InferenceServerException) as caught:
                    call()
                assert caught.value.message().startswith(f"Request for unknown model: {start}")


class TestInference:
    def test_mlservers_base64_is_decoded(self, served, scorer, png):
        """mlserver 1.7.1, mlserver/codecs/base64.py; over gRPC, it is a parameter of the input as well."""
        images = [png(5), png(200)]
        encoded = [base64.b64encode(image) for image in images]
        prompt = {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["p"]}
        tensor = {
            "name": "images",
            "datatype": "BYTES",
            "shape": [1, 2],
            "data": [e.decode() for e in encoded],
        }
        tensor["parameters"] = {"content_type": "base64"}
        answer = httpx.post(f"http://{served.http}{INFER}", json={"inputs": [prompt, tensor]}).json()
        expected = scorer.score([Group(prompt="p", candidates=tuple(images))])[0].p
        np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]).reshape(2, 2), expected)

        request = pb.ModelInferRequest(model_name="judge")
        for name, elements in (("prompt", [b"p"]), ("images", encoded)):
            made = request.inputs.add(name=name, datatype="BYTES", shape=[1, len(elements)])
            made.contents.bytes_contents.extend(elements)
        made.parameters["content_type"].string_param = "base64"
        with triton_grpc.InferenceServerClient(served.grpc) as client:
            result = triton_grpc.InferResult(client._client_stub.ModelInfer(request))
        np.testing.assert_array_equal(result.as_numpy("win_matrix")[0], expected)

        tensor["data"][1] = "no base64!"
        refused = httpx.post(f"http://{served.http}{INFER}", json={"inputs": [prompt, tensor]})
        assert refused.status_code == 400
        assert "'images' has the content_type base64 and an element that is not" in refused.json()["error"]

    def test_a_default_answer_in_json_has_no_null(self, served, png):
        """boozallen/aissemble, its types of the protocol: `data` is a list of numbers."""
        data = [base64.b64encode(png(shade)).decode() for shade in (5, 200)]
        images = {"name": "images", "datatype": "BYTES", "shape": [1, 2], "data": data}
        images["parameters"] = {"content_type": "base64"}
        prompt = {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["p"]}
        body = {"inputs": [prompt, images]}
        answer = httpx.post(f"http://{served.http}{INFER}", json=body)
        assert "null" not in answer.text
        names = [output["name"] for output in answer.json()["outputs"]]
        assert names == ["win_matrix", "win_rate", "order_gap", "valid", "error"]
        asked = httpx.post(f"http://{served.http}{INFER}", json=body | {"outputs": [{"name": "tie"}]})
        assert asked.json()["outputs"][0]["data"] == [None] * 4

    def test_statistics_have_the_time_of_reading_and_writing_tensors(self, served, png):
        """perf_analyzer prints `compute_input` and `compute_output` beside `compute_infer`."""
        with triton_http.InferenceServerClient(served.http) as client:
            inputs = [
                triton_http.InferInput("prompt", [1, 1], "BYTES"),
                triton_http.InferInput("images", [1, 2], "BYTES"),
            ]
            inputs[0].set_data_from_numpy(np.array([[b"p"]], dtype=object))
            inputs[1].set_data_from_numpy(np.array([[png(1), png(2)]], dtype=object))
            client.infer("judge", inputs)
            (model,) = client.get_inference_statistics("judge")["model_stats"]
        stats = model["inference_stats"]
        for part in ("compute_input", "compute_output"):
            assert stats[part]["count"] == stats["success"]["count"]
            assert 0 < stats[part]["ns"] < stats["success"]["ns"]


class TestPaths:
    @pytest.mark.parametrize(
        "path", ["/v2/", "/v2/models/judge/", "/v2/health/ready/", "/v2/models/judge/config/"]
    )
    def test_a_slash_at_the_end_changes_nothing(self, served, path):
        answer = get(served, path)
        assert answer.status_code == 200
        assert answer.json() == get(served, path.removesuffix("/")).json()

    def test_what_is_not_supported_is_so_with_a_slash_too(self, served):
        assert get(served, "/v2/logging/").status_code == get(served, "/v2/logging").status_code == 501

    def test_the_metrics_port_has_the_metrics_and_nothing_else(self, served):
        base = f"http://{served.metrics}"
        for path in ("/metrics", "/metrics/", "/"):
            assert "prefrm_requests" in httpx.get(f"{base}{path}", follow_redirects=True).text
        for method, path, status in (
            ("GET", "/nope", 404),
            ("GET", "/metrics/nope", 404),
            ("HEAD", "/metrics", 405),
            ("POST", "/metrics", 405),
            ("DELETE", "/", 405),
        ):
            answer = httpx.request(method, f"{base}{path}")
            assert answer.status_code == status
            assert method == "HEAD" or list(answer.json()) == ["error"]


def test_every_operation_of_the_document_can_be_called_as_it_is_described(controlled):
    document = get(controlled, "/openapi.json").json()
    validate(document)
    names = {"model": "judge", "version": "1", "region": "r"}
    operations = [result.ok() for result in openapi.from_dict(document).get_all_operations()]
    assert len(operations) == sum(len(path) for path in document["paths"].values()) > 20
    # The model is unloaded last.
    for operation in sorted(operations, key=lambda operation: operation.path.endswith("/unload")):
        parameters = {parameter.name: names[parameter.name] for parameter in operation.path_parameters}
        described = document["paths"][operation.path][operation.method]
        arguments = {"body": example(document, described)} if "requestBody" in described else {}
        case = operation.Case(path_parameters=parameters, **arguments)
        response = case.call(base_url=f"http://{controlled.http}")
        assert response.status_code == 200, (operation.label, response.text)
        operation.validate_response(response)
    httpx.post(f"http://{controlled.http}/v2/repository/models/judge/load").raise_for_status()


def example(document, operation):
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("examples", [{}])[0]
