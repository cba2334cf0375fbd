"""`prefrm env`."""

import json
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from prefrm.bench.provenance import prefrm_version, versions
from prefrm.machine import GIBIBYTE, memory_bytes, processor_name
from prefrm.options import AsJson

__all__ = ["env", "required_packages"]

CORE = "core"
# What is needed to work on prefrm says nothing about how it runs.
NOT_REPORTED = ("dev",)
SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "WORLD_SIZE",
)
# Tokens, and addresses that may have a password.
SECRET_VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "PREFRM_TOKEN")
SECRET = "(set)"
NVIDIA_SMI_S = 10


def env(as_json: AsJson = False) -> None:
    """Print what a bug report needs: versions, devices and settings of the environment, without secrets."""
    facts = {
        "prefrm": prefrm_version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "nvidia": _nvidia_gpus(),
        "torch": _torch(),
        "packages": _packages(),
        "environment": _environment(),
    }
    print(json.dumps(facts, indent=2) if as_json else _as_text(facts))


def required_packages(requirements: list[str]) -> dict[str, list[str]]:
    """The packages that each extra adds, by extra; "core" has those of every installation.

    Args:
        requirements: of a distribution's metadata, such as `torch>=2.9; extra == "judge"`.
    """
    found: dict[str, list[str]] = {CORE: []}
    for requirement in requirements:
        package, _, marker = requirement.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([\w.-]+)["']""", marker)
        name = re.match(r"[\w.-]+", package)
        assert name is not None
        # An extra that brings another one is listed under what it adds.
        if name[0] != "prefrm":
            found.setdefault(extra[1] if extra else CORE, []).append(name[0])
    return found


def _packages() -> dict[str, dict[str, str | None]]:
    """The version of each package that prefrm or an extra of it needs, None if it is not installed."""
    try:
        wanted = required_packages(requires("prefrm") or [])
    except PackageNotFoundError:
        return {}
    return {
        extra: {name: versions(name).get(name) for name in names}
        for extra, names in wanted.items()
        if extra not in NOT_REPORTED
    }


def _torch() -> dict[str, Any] | None:
    """The version of torch, what it was built for, and its accelerators; None if it is not installed.

    Of an installation or a driver that is broken, the error: it is what a report is about.
    """
    installed = versions("torch")
    if not installed:
        return None
    try:
        return _probed_torch()
    except Exception as error:
        return {"version": installed["torch"], "error": f"{type(error).__name__}: {error}"}


def _probed_torch() -> dict[str, Any]:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "threads": torch.get_num_threads(),
        "accelerator": None if accelerator is None else accelerator.type,
        "devices": [] if accelerator is None else _devices(accelerator.type),
    }


def _devices(kind: str) -> list[str]:
    import torch

    # Apple's has no names.
    named = getattr(torch.get_device_module(kind), "get_device_name", lambda _: kind)
    return [str(named(index)) for index in range(torch.accelerator.device_count())]


def _nvidia_gpus() -> list[str]:
    """Name, memory and driver of each GPU, by nvidia-smi, which knows of GPUs that torch cannot use."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run([command, *query], capture_output=True, text=True, timeout=NVIDIA_SMI_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"nvidia-smi failed: {error}"]
    # Its errors are on either.
    return (done.stdout.strip() or done.stderr.strip()).splitlines()


def _environment() -> dict[str, str]:
    """The variables that are set; of one that may hold a secret only that it is."""
    shown = {name: os.environ[name] for name in SHOWN_VARIABLES if name in os.environ}
    # Proxies are written in either case.
    secret = [name for name in os.environ if name.upper() in SECRET_VARIABLES]
    return shown | dict.fromkeys(sorted(secret), SECRET)


def _as_text(facts: dict[str, Any]) -> str:
    memory = facts["memory_bytes"]
    lines = [
        f"prefrm: {facts['prefrm']}",
        f"Python: {facts['python']}",
        f"platform: {facts['platform']}",
        f"processor: {facts['processor']}, {facts['cpus']} CPUs",
        f"memory: {'unknown' if memory is None else f'{memory / GIBIBYTE:.1f} GiB'}",
        f"NVIDIA GPUs: {'; '.join(facts['nvidia']) or 'none found by nvidia-smi'}",
        f"torch: {_torch_text(facts['torch'])}",
        "packages:",
    ]
    for extra, packages in facts["packages"].items():
        named = ", ".join(f"{name} {version or '(not installed)'}" for name, version in packages.items())
        lines.append(f"  {extra}: {named}")
    lines.append("environment:")
    lines += [f"  {name}={value}" for name, value in facts["environment"].items()]
    return "\n".join(lines)


def _torch_text(torch: dict[str, Any] | None) -> str:
    if torch is None:
        return "not installed"
    if "error" in torch:
        return f"{torch['version']}, which fails: {torch['error']}"
    built = [
        f"{name} {torch[key]}"
        for key, name in (("cuda", "CUDA"), ("hip", "HIP"), ("cudnn", "cuDNN"))
        if torch[key]
    ]
    found = (
        f"{torch['accelerator']}: {', '.join(torch['devices'])}" if torch["accelerator"] else "no accelerator"
    )
    return ", ".join([torch["version"], *built, f"threads: {torch['threads']}", found])
