"""Puts a real Triton into a folder, for the tests that compare with it: `python install.py FOLDER`.

    FOLDER/pytriton/tritonserver/bin/tritonserver   the server, from the wheel of pytriton
    FOLDER/nvidia_pytriton.libs/                    its libraries
    FOLDER/backends/python/                         the Python backend, with its stub for this Python
    FOLDER/venv/                                    what the stub runs in: numpy 1, then this environment

The stub was built against numpy 1 and reads garbage with numpy 2; all else is taken from the environment that
runs this script. Where the wheel does not run nothing is installed, and the tests skip.
"""

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"
# The wheel is for manylinux_2_35_x86_64, and numpy 1's last wheels are for Python 3.12.
MACHINE, GLIBC, PYTHON = "x86_64", (2, 35), (3, 12)
ROOT = Path(__file__).resolve().parents[3]


def main(folder: Path) -> None:
    if not runs_here():
        print(f"no Triton here: {WHEEL} needs {MACHINE}, glibc from {GLIBC} on and Python up to {PYTHON}")
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip_install(WHEEL, folder)
    server = folder / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy2(server / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = environment / "lib" / f"python{version}" / "site-packages"
    pip_install(NUMPY, packages)
    # They come after its own packages; the checkout stands before what is installed.
    paths = [str(ROOT), sysconfig.get_path("purelib")]
    (packages / "prefrm.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")


def runs_here() -> bool:
    library, version = platform.libc_ver()
    if library != "glibc" or platform.machine() != MACHINE:
        return False
    return tuple(map(int, version.split("."))) >= GLIBC and sys.version_info[:2] <= PYTHON


def pip_install(requirement: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), requirement], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
