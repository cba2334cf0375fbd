"""Benchmarks: what each kind of judge is worth and what it costs. Needs the extra `train`.

Each benchmark is a module of its own, `judges` and `engine`: to time an engine no trainer is imported.
"""

from prefrm.errors import missing_extra

try:
    import datasets  # noqa: F401
    import psutil  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "datasets", "train") from error
