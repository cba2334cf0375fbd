"""Calls about the server and its models: metadata, statistics, health, and what is unsupported."""

from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as pb

from tests.serving.triton.registry import add, on
from tests.serving.triton.wire import AIO, BOTH, plain

SERVICE = "inference.GRPCInferenceService"

for name, (method, *arguments) in {
    "server_live": ("is_server_live",),
    "server_ready": ("is_server_ready",),
    "model_ready": ("is_model_ready", "judge"),
    "model_ready_version": ("is_model_ready", "judge", "1"),
    "model_ready_unknown": ("is_model_ready", "nobody"),
    "model_ready_unknown_version": ("is_model_ready", "judge", "7"),
    "model_ready_version_that_is_no_number": ("is_model_ready", "judge", "abc"),
    "metadata_unknown": ("get_model_metadata", "nobody"),
    "metadata_unknown_version": ("get_model_metadata", "judge", "7"),
    "metadata_version_that_is_no_number": ("get_model_metadata", "judge", "abc"),
    "config_unknown": ("get_model_config", "nobody"),
    "config_unknown_version": ("get_model_config", "judge", "7"),
    "statistics_unknown": ("get_inference_statistics", "nobody"),
    "statistics_unknown_version": ("get_inference_statistics", "judge", "7"),
    "shared_memory_status": ("get_system_shared_memory_status",),
    "shared_memory_register": ("register_system_shared_memory", "r", "/nothing_there", 64),
    "shared_memory_unregister": ("unregister_system_shared_memory", "r"),
    "cuda_memory_status": ("get_cuda_shared_memory_status",),
    "cuda_memory_register": ("register_cuda_shared_memory", "r", b"abcd", 0, 64),
    "cuda_memory_unregister": ("unregister_cuda_shared_memory", "r"),
    "trace_settings": ("get_trace_settings",),
    "trace_settings_of_a_model": ("get_trace_settings", "judge"),
    "log_settings": ("get_log_settings",),
}.items():
    add(name, lambda wire, method=method, arguments=arguments: wire.call(method, *arguments))


@on()
def trace_settings_update(wire):
    return wire.call("update_trace_settings", settings={"trace_rate": "100"})


@on()
def log_settings_update(wire):
    return wire.call("update_log_settings", {"log_verbose_level": 0})


@on()
def server_metadata(wire):
    return wire.call("get_server_metadata")


@on(*BOTH, *AIO)
def metadata_of_tensors(wire):
    metadata = wire.call("get_model_metadata", "judge", "1")
    return {name: metadata[name] for name in ("name", "versions", "inputs", "outputs")}


@on()
def metadata_platform(wire):
    return wire.call("get_model_metadata", "judge")["platform"]


def config_of(wire):
    config = wire.call("get_model_config", "judge")
    return config.get("config", config)


@on()
def config_of_tensors(wire):
    config = config_of(wire)
    tensors = {
        side: [{name: tensor[name] for name in ("name", "data_type", "dims")} for tensor in config[side]]
        for side in ("input", "output")
    }
    return tensors | {name: config[name] for name in ("name", "max_batch_size", "parameters")}


@on()
def config_of_batching(wire):
    return "dynamic_batching" in config_of(wire)


@on()
def config_backend(wire):
    return config_of(wire)["backend"]


@on("http")
def words_for_what_is_unknown(wire):
    """Up to what each server adds."""
    paths = ("/v2/models/nobody", "/v2/models/nobody/config", "/v2/models/judge/versions/7")
    return [wire.error("GET", path).partition(";")[0] for path in paths]


@on("http")
def config_fields(wire):
    config = config_of(wire)
    parts = {name: fields(config[name]) for name in ("input", "output", "instance_group", "version_policy")}
    return sorted(config), parts


def fields(value):
    """The names of all fields, and the kinds of all values, whatever was counted."""
    if isinstance(value, dict):
        return {name: fields(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [fields(inner) for inner in value[:1]]
    return type(value).__name__


# gRPC leaves out what is zero, so that its fields depend on what was asked before.
@on("http")
def statistics_fields(wire):
    return fields(wire.call("get_inference_statistics", "judge", "1"))


@on("http")
def statistics_fields_of_all_models(wire):
    return fields(wire.call("get_inference_statistics"))


@on("grpc")
def index_of_another_repository(wire):
    return plain(wire.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")))


def ready_models(wire):
    models = wire.call("get_model_repository_index")
    models = models["models"] if wire.name == "grpc" else models
    return [model for model in models if model.get("state") == "READY"]


add("index", ready_models)

for name, service in {"server": "", "service": SERVICE, "unknown": "nope"}.items():
    add(
        f"health_of_{name}",
        lambda wire, service=service: plain(
            wire.health.Check(health_pb2.HealthCheckRequest(service=service))
        ),
        "grpc",
    )


@on("grpc")
def health_watch(wire):
    return plain(next(iter(wire.health.Watch(health_pb2.HealthCheckRequest(), timeout=5))))


@on("grpc")
def unknown_method(wire):
    return wire.channel.unary_unary(f"/{SERVICE}/Nope")(b"")
