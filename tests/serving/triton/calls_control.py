"""Loading and unloading, in this order.

`second` is a good model that is not loaded at the start, and `broken` one that cannot be.
"""

import time

from tests.serving.triton.calls_inference import GROUPS
from tests.serving.triton.registry import Call
from tests.serving.triton.wire import BOTH, Wire

__all__ = ["STEPS"]

STEPS: list[Call] = []
GONE_S = 30


def step(name: str, ask, *kinds: str) -> None:
    STEPS.extend(Call(name=name, kind=kind, ask=ask) for kind in kinds or BOTH)


def row(wire: Wire, model: str) -> dict[str, str]:
    """What the index says of a model, without the reason, which is each server's own."""
    models = wire.call("get_model_repository_index")
    models = models["models"] if wire.name == "grpc" else models
    rows = [entry for entry in models if entry["name"] == model]
    return {name: value for entry in rows for name, value in entry.items() if name != "reason"}


def row_once_gone(wire: Wire, model: str) -> dict[str, str]:
    end = time.monotonic() + GONE_S
    while row(wire, model).get("state") == "UNLOADING" and time.monotonic() < end:
        time.sleep(0.1)
    return row(wire, model)


def asking(when: str, model: str) -> None:
    """What a model that may or may not be there says to everything."""
    step(f"{when}_ready", lambda wire: wire.call("is_model_ready", model))
    step(f"{when}_metadata", lambda wire: bool(wire.call("get_model_metadata", model)))
    step(f"{when}_config", lambda wire: bool(wire.call("get_model_config", model)))
    step(f"{when}_statistics", lambda wire: bool(wire.call("get_inference_statistics", model)))
    step(f"{when}_infer", lambda wire: wire.infer(wire.inputs(GROUPS), model=model))
    step(
        f"{when}_infer_version",
        lambda wire: wire.infer(wire.inputs(GROUPS), model=model, model_version="1"),
    )


def calling(name: str, method: str, model: str, *kinds: str) -> None:
    step(name, lambda wire: wire.call(method, model), *kinds)


step("not_loaded_index", lambda wire: row(wire, "second"))
asking("not_loaded", "second")
calling("load_unknown", "load_model", "nobody")
calling("unload_unknown", "unload_model", "nobody")
calling("unload_not_loaded", "unload_model", "second")

calling("load_broken", "load_model", "broken", "grpc")
step("broken_index", lambda wire: row(wire, "broken"))
asking("broken", "broken")
step("broken_server_ready", lambda wire: wire.call("is_server_ready"))

calling("load", "load_model", "second", "grpc")
calling("load_again", "load_model", "second", "http")
step("loaded_index", lambda wire: row(wire, "second"))
asking("loaded", "second")

calling("unload", "unload_model", "second", "http")
asking("unloaded", "second")
step("unloaded_index", lambda wire: row_once_gone(wire, "second"))
calling("unload_again", "unload_model", "second", "grpc")
asking("judge_meanwhile", "judge")

# Triton keeps a configuration that it was sent, so these come last.
for name, options in {
    "load_with_a_malformed_config": {"config": '{"max'},
    "load_with_files": {"config": "{}", "files": {"file:1/model.py": b""}},
    "load_with_another_config": {"config": '{"max_batch_size": 16}'},
}.items():
    step(name, lambda wire, options=options: wire.call("load_model", "second", **options))
