"""Benchmarks: what each kind of judge is worth and what it costs. Needs the extra `train`."""

from prefrm.errors import missing_extra

try:
    import datasets  # noqa: F401
    import psutil  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "datasets", "train") from error

from prefrm.bench.judges import bench_judges

__all__ = ["bench_judges"]
