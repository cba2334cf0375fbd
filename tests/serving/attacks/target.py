"""The server that is attacked: `prefrm serve` in a process of its own, on an untrained judge."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

START_S = 120.0
STOP_S = 60.0
TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Addresses as `host:port`, the process, and the token that clients need; "" if none."""

    http: str
    grpc: str
    metrics: str
    pid: int
    token: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def write_judge(folder: Path) -> Path:
    """The bundle of an untrained judge on the shipped language model. Takes seconds."""
    from prefrm.bundle import write_bundle
    from prefrm.judge import Judge, JudgeSpec

    judge = Judge.from_base(JudgeSpec(base_model="shipped:shapes-captioner"), "cpu")
    write_bundle(folder, judge, calibration=None, data_fingerprint="none", metrics={}, card="")
    return folder


@contextmanager
def serving(bundle: Path, folder: Path, *, token: bool, options: tuple[str, ...] = ()) -> Iterator[Target]:
    """Serve a bundle while the block runs.

    Args:
        bundle: the judge.
        folder: an empty folder for the address file, the token file and the log.
        token: whether clients need one.
        options: further options of `prefrm serve`.
    """
    addresses, tokens = folder / "addresses.json", folder / "tokens"
    command = [sys.executable, "-m", "prefrm", "serve", str(bundle), "--address-file", str(addresses)]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", *options]
    if token:
        tokens.write_text(TOKEN + "\n", encoding="utf-8")
        tokens.chmod(0o600)
        command += ["--token-file", str(tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + START_S
        while not addresses.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    f"the server did not start: {(folder / 'log').read_text(errors='replace')}"
                )
            time.sleep(0.05)
        found = json.loads(addresses.read_text(encoding="utf-8"))
        yield Target(
            http=found["http"],
            grpc=found["grpc"],
            metrics=found["metrics"],
            pid=process.pid,
            token=TOKEN if token else "",
        )
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
