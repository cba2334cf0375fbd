"""Where prefrm's server answers otherwise than Triton, on purpose. docs/triton.md shows this table."""

from dataclasses import dataclass

__all__ = ["DIFFERENCES", "Difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Calls that the two servers answer differently.

    Attributes:
        what: as the documentation names it.
        calls: names of calls; on every wire they are made on, or, as "http:name", on that one.
        triton: Triton's status; OK on both sides means that what they say differs.
        ours: prefrm's.
        why: the reason.
    """

    what: str
    calls: tuple[str, ...]
    triton: str
    ours: str
    why: str


DIFFERENCES = (
    Difference(
        what="HTTP: a body that is no JSON, or of another JSON kind",
        calls=(
            "json_malformed",
            "json_followed_by_more",
            "json_list",
            "json_without_inputs",
            "json_inputs_of_another_kind",
            "json_outputs_of_another_kind",
            "json_outputs_null",
            "json_output_without_a_name",
            "json_input_without_a_name",
            "json_input_without_a_shape",
            "json_input_without_a_datatype",
            "json_id_that_is_a_number",
            "json_parameters_of_another_kind",
            "json_timeout_as_text",
            "json_timeout_as_fraction",
            "json_negative_timeout",
            "json_priority_as_text",
            "json_element_that_is_a_number",
            "json_element_that_is_null",
            "json_extent_as_text",
            "json_extent_as_fraction",
            "json_negative_extent",
            "json_lone_surrogate",
            "http:negative_extent",
            "header_length_too_small",
            "body_in_truncated_gzip",
            "route_index_malformed",
            "route_index_of_another_kind",
        ),
        triton="INTERNAL",
        ours="INVALID_ARGUMENT",
        why="the mistake is the client's, and a 500 would be tried again",
    ),
    Difference(
        what="HTTP: JSON that is no UTF-8",
        calls=("json_that_is_no_utf8",),
        triton="OK",
        ours="INVALID_ARGUMENT",
        why="JSON is UTF-8; what else it may mean would be a guess",
    ),
    Difference(
        what="HTTP: NaN in JSON answers",
        calls=("json_of_numbers_that_are_none", "json_with_every_output", "json_with_no_output"),
        triton="OK",
        ours="OK",
        why="a bare NaN, as Triton writes it, is not JSON; prefrm writes null, and no `tie` of nothing else",
    ),
    Difference(
        what="HTTP: `binary_data_output` with outputs named",
        calls=("binary_answer_of_named_outputs",),
        triton="OK",
        ours="OK",
        why="the protocol makes it the default of every output; Triton drops it once one is named",
    ),
    Difference(
        what="HTTP: the type of an error",
        calls=("type_of_an_error",),
        triton="OK",
        ours="OK",
        why="an error is always application/json; Triton calls some of its own text/plain",
    ),
    Difference(
        what="HTTP: readiness of an unknown model or version",
        calls=("route_model_ready_unknown", "route_version_ready_unknown"),
        triton="INVALID_ARGUMENT",
        ours="NOT_FOUND",
        why="what is not there is 404, as in every other call; the stock client reads both as not ready",
    ),
    Difference(
        what="HTTP: the body of a health answer",
        calls=("route_live", "route_ready", "route_model_ready"),
        triton="OK",
        ours="OK",
        why="the Open Inference Protocol defines one, and its clients read it; Triton sends none",
    ),
    Difference(
        what="HTTP: the root",
        calls=("route_root",),
        triton="NOT_FOUND",
        ours="OK",
        why="it has the paths of the documentation and of the protocol",
    ),
    Difference(
        what="HTTP: a path that ends in a slash",
        calls=("route_with_a_slash", "route_model_slash", "route_infer_slash"),
        triton="NOT_FOUND",
        ours="OK",
        why="it names the same thing",
    ),
    Difference(
        what="HTTP: a model's name that is percent-encoded in the path",
        calls=("route_model_quoted",),
        triton="INVALID_ARGUMENT",
        ours="OK",
        why="the path is decoded as HTTP has it",
    ),
    Difference(
        what="the order of the outputs asked for",
        calls=("outputs_in_another_order",),
        triton="OK",
        ours="OK",
        why="they come as they were asked for; Triton's Python backend is not told the order",
    ),
    Difference(
        what="a `timeout` that is over",
        calls=("timeout_that_is_over", "json_timeout_that_is_over"),
        triton="UNAVAILABLE",
        ours="DEADLINE_EXCEEDED",
        why="a deadline that passed is no server that is away, which a client would ask again",
    ),
    Difference(
        what="inputs that the judge does not read: a context, a criterion, candidates of the other tensor",
        calls=(
            "context_and_criterion_not_read",
            "texts_for_a_judge_of_images",
            "images_for_a_judge_of_texts",
        ),
        triton="INVALID_ARGUMENT",
        ours="OK",
        why="the group is answered as not judged, with the reason, and costs no other group",
    ),
    Difference(
        what="gRPC: more raw contents than inputs",
        calls=("too_many_raw_contents",),
        triton="OK",
        ours="INVALID_ARGUMENT",
        why="the bytes belong to nothing; Triton drops them",
    ),
    Difference(
        what="statistics of an unknown model or version",
        calls=(
            "statistics_unknown",
            "statistics_unknown_version",
            "not_loaded_statistics",
            "broken_statistics",
            "unloaded_statistics",
        ),
        triton="INVALID_ARGUMENT",
        ours="NOT_FOUND",
        why="what is not there is NOT_FOUND, as in every other call",
    ),
    Difference(
        what="classification of an output",
        calls=("classification",),
        triton="OK",
        ours="UNIMPLEMENTED",
        why="a win matrix has no classes",
    ),
    Difference(
        what="a tensor in shared memory",
        calls=("input_in_shared_memory", "output_in_shared_memory", "route_shared_memory_region"),
        triton="NOT_FOUND",
        ours="UNIMPLEMENTED",
        why="there is no shared memory; tensors travel in the request",
    ),
    Difference(
        what="registering system shared memory",
        calls=("shared_memory_register",),
        triton="INTERNAL",
        ours="UNIMPLEMENTED",
        why="there is no shared memory",
    ),
    Difference(
        what="registering CUDA shared memory",
        calls=("cuda_memory_register",),
        triton="INVALID_ARGUMENT",
        ours="UNIMPLEMENTED",
        why="there is no shared memory",
    ),
    Difference(
        what="settings of tracing and logging",
        calls=(
            "trace_settings",
            "trace_settings_of_a_model",
            "trace_settings_update",
            "log_settings",
            "log_settings_update",
        ),
        triton="OK",
        ours="UNIMPLEMENTED",
        why="they are options of the command line, which no client changes",
    ),
    Difference(
        what="HTTP: generate and generate_stream",
        calls=("route_generate", "route_generate_stream"),
        triton="INVALID_ARGUMENT",
        ours="UNIMPLEMENTED",
        why="a judge generates nothing",
    ),
    Difference(
        what="the server's name, version and extensions",
        calls=("server_metadata",),
        triton="OK",
        ours="OK",
        why="each says its own",
    ),
    Difference(
        what="the model's platform and backend",
        calls=("metadata_platform", "config_backend"),
        triton="OK",
        ours="OK",
        why="each says its own: python, and prefrm",
    ),
    Difference(
        what="gRPC: a stream's request that was refused late, such as a group of one",
        calls=(
            "stream_with_a_refusal_by_the_model",
            "stream_with_a_refusal_and_a_final_response",
            "stream_with_a_timeout_that_is_over",
        ),
        triton="OK",
        ours="OK",
        why="every refusal has the form of Triton's early ones: the error and the id",
    ),
    Difference(
        what="the index of models that were not loaded, or could not be",
        calls=("route_index", "not_loaded_index", "broken_index"),
        triton="OK",
        ours="OK",
        why="prefrm lists what it serves or has served; a failed loading is answered to who asked for it",
    ),
    Difference(
        what="readiness of the server after a loading that failed",
        calls=("broken_server_ready",),
        triton="OK",
        ours="OK",
        why="readiness is for each model; the others are served as before",
    ),
    Difference(
        what="loading an unknown model",
        calls=("load_unknown",),
        triton="INTERNAL",
        ours="INVALID_ARGUMENT",
        why="the mistake is the client's",
    ),
    Difference(
        what="loading with a `config` that is not the model's",
        calls=("load_with_another_config",),
        triton="OK",
        ours="INVALID_ARGUMENT",
        why="a configuration follows from the bundle and the server's options; one that agrees is obeyed",
    ),
    Difference(
        what="loading with a `config` that is malformed",
        calls=("load_with_a_malformed_config",),
        triton="INTERNAL",
        ours="INVALID_ARGUMENT",
        why="the mistake is the client's",
    ),
    Difference(
        what="loading with files",
        calls=("load_with_files",),
        triton="INVALID_ARGUMENT",
        ours="UNIMPLEMENTED",
        why="a model is loaded from the server's own folders, never from what a client sends",
    ),
    Difference(
        what="unloading what is not loaded",
        calls=("unload_unknown", "unload_not_loaded", "unload_again"),
        triton="OK",
        ours="INVALID_ARGUMENT",
        why="a name that is mistaken is said to be",
    ),
    Difference(
        what="inference, by its version, of a model that was unloaded or could not be loaded",
        calls=("broken_infer_version", "unloaded_infer_version"),
        triton="UNAVAILABLE",
        ours="NOT_FOUND",
        why="it will not come back by itself; Triton answers NOT_FOUND only without the version",
    ),
    Difference(
        what="gRPC: health of an unknown service",
        calls=("health_of_unknown",),
        triton="OK",
        ours="NOT_FOUND",
        why="as grpc.health.v1 has it; Triton looks at no name",
    ),
    Difference(
        what="gRPC: watching health",
        calls=("health_watch",),
        triton="UNIMPLEMENTED",
        ours="OK",
        why="as grpc.health.v1 has it",
    ),
)
