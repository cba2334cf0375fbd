"""A start that takes too long ends with one line."""

import subprocess
import sys

PROGRAM = """
import time
from serving.loading import or_exit
with or_exit(30.0, "never"):
    pass
with or_exit(0.1, "loading takes longer than 0.1 seconds"):
    time.sleep(20)
"""


def test_a_block_that_takes_too_long_ends_the_process_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "prefrm: loading takes longer than 0.1 seconds\n"
