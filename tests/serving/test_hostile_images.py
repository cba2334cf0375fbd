"""Hostile image and video files are refused or decoded; a process of its own tells what memory and time that
takes.
"""

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from prefrm.errors import MediaError
from prefrm.media import decode, probe
from tests.serving.hostile_images import ALL, HARMLESS, PICTURE, REFUSED, encoded, mutated
from tests.videos import BOMBS as VIDEOS

ROOT = Path(__file__).parents[2]
# The file itself may be copied. Nothing that is inflated out of it comes to more than the slack.
COPIES, SLACK_MB = 1.0, 8.0
SECONDS = 2.0

# Reads files, each behind its length, and writes how much memory and time checking and decoding it took.
METER = """
import struct, sys, time
from prefrm.errors import MediaError
from prefrm.containers import is_video
from prefrm.media import decode, probe
from prefrm.video import FrameSampling, probe_video, read_frames
from tests.serving.hostile_images import HARMLESS
from tests.videos import clip, frames

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))

def read(data):
    read_frames(data, FrameSampling(count=8))

for make in HARMLESS.values():
    decode(make())
read(clip(frames(30)))
read(clip(frames(30), "libvpx", "webm"))
while size := sys.stdin.buffer.read(8):
    data = sys.stdin.buffer.read(struct.unpack("<Q", size)[0])
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, started = kilobytes("VmRSS"), time.perf_counter()
    for check in (probe_video, read) if is_video(data) else (probe, decode):
        try:
            check(data)
        except MediaError:
            pass
    seconds = time.perf_counter() - started
    print((kilobytes("VmHWM") - before) / 1024, seconds, flush=True)
"""


@pytest.fixture(scope="module")
def meter():
    """Gives the megabytes and the seconds that a file took."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a process's memory and forgets it")
    with subprocess.Popen(
        [sys.executable, "-c", METER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def measure(data):
            process.stdin.write(struct.pack("<Q", len(data)) + data)
            process.stdin.flush()
            megabytes, seconds = map(float, process.stdout.readline().split())
            return megabytes, seconds

        yield measure


@pytest.mark.parametrize("name", [*ALL, *VIDEOS])
def test_it_costs_no_memory_and_no_time(meter, name):
    data = (ALL | VIDEOS)[name]()
    megabytes, seconds = meter(data)
    print(f"{name}: {len(data) / 2**20:.2f} MB, took {megabytes:.1f} MB and {seconds:.3f} s")
    assert megabytes <= COPIES * len(data) / 2**20 + SLACK_MB
    assert seconds <= SECONDS


def test_the_meter_sees_memory(meter):
    megabytes, _ = meter(encoded(Image.new("L", (8000, 8000)), "PNG"))
    assert megabytes > 60


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_odd_but_legal_is_decoded(name):
    assert decode(HARMLESS[name]()).mode == "RGB"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_or_too_large_is_refused(name):
    with pytest.raises(MediaError):
        decode(REFUSED[name]())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_mutated_image_is_decoded_or_refused(format):
    rng, whole, refused = random.Random(0), encoded(PICTURE, format), 0
    for _ in range(700):
        broken = mutated(whole, rng)
        try:
            assert probe(broken).width * decode(broken).height > 0
        except MediaError:
            refused += 1
    assert refused > 70
