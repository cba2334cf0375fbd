"""gRPC server reflection, by which tools such as `grpcurl` learn the services without their .proto files."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

__all__ = ["add_reflection"]

METHOD = "ServerReflectionInfo"
# The messages of both versions are the same on the wire; the package has the older one's alone.
VERSIONS = ("v1", "v1alpha")


def add_reflection(services: Iterable[str], server: Any) -> None:
    """Let a server of `grpc.aio` describe these services, by their full names, and this one."""
    servicer = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=_parse,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    names = [f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS]
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names]
    )


def _parse(data: bytes) -> Any:
    try:
        return pb.ServerReflectionRequest.FromString(data)
    except DecodeError:
        # A request that asks nothing is answered INVALID_ARGUMENT; the exception would fill the log.
        return pb.ServerReflectionRequest()
