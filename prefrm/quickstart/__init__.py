"""The whole story on one machine, in minutes: a judge is trained, served, and improves a policy.

The only part of prefrm that knows a recipe: everything else takes the datasets that recipes write.
Needs the extras `train` and `serve`.
"""

from importlib.util import find_spec

from prefrm.errors import missing_extra

# All of them now: the server runs in another process, and would only miss its own minutes later.
NEEDED = (
    *("pyarrow", "scipy", "matplotlib"),
    *("torch", "transformers", "peft", "safetensors"),
    *("trl", "datasets", "accelerate", "psutil"),
    *("fastapi", "uvicorn", "grpc_health", "prometheus_client"),
)
for package in NEEDED:
    if find_spec(package) is None:
        raise missing_extra(package, "all")

from prefrm.quickstart.story import tell  # noqa: E402 (imports what was just looked for)

__all__ = ["tell"]
