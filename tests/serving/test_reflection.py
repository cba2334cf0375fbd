"""gRPC server reflection, asked by the client of the package `grpcio-reflection` in both versions."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse


class Version(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Calls a version of the service other than the stub's, which is v1alpha."""

    def __init__(self, version):
        self._version = version

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details, request)

    def intercept_stream_stream(self, continuation, details, requests):
        method = details.method.replace("v1alpha", self._version)
        return continuation(details._replace(method=method), requests)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_tool_finds_services_methods_and_messages(served, version):
    with grpc.intercept_channel(grpc.insecure_channel(served.grpc), Version(version)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
    infer = service.methods_by_name["ModelInfer"]
    assert "raw_input_contents" in infer.input_type.fields_by_name


def test_a_malformed_request_is_answered_as_invalid_and_leaves_the_log_alone(served, caplog):
    with grpc.insecure_channel(served.grpc) as channel:
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        (answer,) = ask(iter([b"\xff\xff"]), timeout=10)
    error = ServerReflectionResponse.FromString(answer).error_response
    assert error.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert caplog.messages == []
