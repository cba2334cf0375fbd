"""Run attacks on servers of their own and print the table: `python -m tests.serving.attacks [NAME...]`."""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.serving.attacks import ATTACKS
from tests.serving.attacks.target import Target, serving, write_judge
from tests.serving.attacks.witness import Seen, watching

HEADER = (
    "| attack | requests | small request, gRPC, p50, p99 | HTTP | readiness p99 | memory idle, peak |\n"
    "|---|---:|---:|---:|---:|---:|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ATTACKS), metavar="NAME", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack")
    parser.add_argument("--token", choices=("with", "without", "both"), default="both")
    parser.add_argument("--attacker", metavar="TARGET", help="attack the server of this JSON object, no more")
    arguments = parser.parse_args()
    if arguments.attacker:
        print(_attack(arguments.names[0], json.loads(arguments.attacker), arguments.seconds))
        return
    tokens = {"with": [True], "without": [False], "both": [False, True]}[arguments.token]
    print(HEADER)
    with tempfile.TemporaryDirectory() as name:
        bundle = write_judge(Path(name) / "judge")
        for attack in arguments.names:
            for token in tokens:
                print(_measured(attack, bundle, token=token, seconds=arguments.seconds), flush=True)


def _attack(name: str, target: dict[str, object], seconds: float) -> int:
    module = importlib.import_module(f"tests.serving.attacks.{name}")
    return int(module.attack(Target(**target), time.monotonic() + seconds))


def _measured(attack: str, bundle: Path, *, token: bool, seconds: float) -> str:
    """The table's row of one attack."""
    with tempfile.TemporaryDirectory() as folder, serving(bundle, Path(folder), token=token) as target:
        # The first requests import and allocate what later ones share.
        with watching(target):
            time.sleep(3)
        with watching(target) as idle:
            time.sleep(3)
        command = [sys.executable, "-m", "tests.serving.attacks", attack, "--attacker", target.to_json()]
        attacker = subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)
        with watching(target) as seen:
            sent, _ = attacker.communicate()
        if attacker.returncode:
            raise RuntimeError(f"the attack {attack} failed: {sent}")
    label = f"{attack}, {'with' if token else 'without'} a token"
    return f"| {label} | {sent.strip()} | {_row(seen)} | {idle.memory:.0f}, {seen.memory:.0f} MiB |"


def _row(seen: Seen) -> str:
    cells = [
        f"{latencies.percentile_ms(50):.0f}, {latencies.percentile_ms(99):.0f} ms"
        + (f" ({latencies.failed} failed)" if latencies.failed else "")
        for latencies in (seen.grpc, seen.http)
    ]
    return " | ".join([*cells, f"{seen.readiness.percentile_ms(99):.0f} ms"])


if __name__ == "__main__":
    main()
