"""What the log does while nothing reads it, and once something does again."""

import errno
import json
import logging
import os
import threading
import time

import pytest

from serving.observing.logs import JsonFormatter, QueuedHandler, configure, dropped_records
from serving.observing.metrics import Metrics
from serving.observing.writer import write_all

# Bytes that wait: a few of the records below.
LIMIT = 400


class Pipe:
    """Takes what is written once its gate is open, and fails as often as it is told to."""

    def __init__(self):
        self.gate = threading.Event()
        self.failures = 0
        self.attempts = 0
        self.content = b""

    def write(self, content):
        self.gate.wait(10)
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.content += content

    @property
    def messages(self):
        return [json.loads(line)["message"] for line in self.content.splitlines()]


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.gate.set()


@pytest.fixture
def log(pipe):
    """Logs a message into the pipe, through a queue of a few records."""
    handler = QueuedHandler(pipe.write, LIMIT)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.flush, logger.dropped = handler.flush, lambda: handler.dropped
    return logger


def dropped(count):
    return f"{count} log records were dropped: they could not be written, or not fast enough"


def test_what_finds_the_queue_full_is_dropped_and_reported_in_its_place(pipe, log):
    for n in range(20):
        log.warning("%d", n)
    kept = 20 - log.dropped()
    assert 0 < kept < 20
    pipe.gate.set()
    log.flush()
    log.warning("later")
    log.flush()
    assert pipe.messages == [*map(str, range(kept)), dropped(20 - kept), "later"]


def test_what_cannot_be_written_is_dropped_and_reported_once_it_can_be(pipe, log):
    pipe.failures = 3
    pipe.gate.set()
    for n in range(5):
        log.warning("%d", n)
        log.flush()
    assert pipe.messages == [dropped(3), "3", "4"]
    assert (log.dropped(), pipe.attempts) == (3, 5)


def test_a_full_queue_that_cannot_be_written_does_not_spin(pipe, log):
    pipe.failures = 1000
    for n in range(20):
        log.warning("%d", n)
    pipe.gate.set()
    log.flush()
    time.sleep(0.1)
    assert (log.dropped(), pipe.attempts < 5) == (20, True)
    pipe.failures = 0
    log.warning("later")
    log.flush()
    assert pipe.messages == [dropped(20), "later"]


def test_a_pipe_that_does_not_block_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    content = bytes(range(256)) * 4096
    thread = threading.Thread(target=write_all, args=(writing, content))
    with open(reading, "rb") as pipe:
        thread.start()
        assert pipe.read(len(content)) == content
    thread.join()
    os.close(writing)


def test_the_end_waits_a_second_for_what_nobody_reads(pipe, log):
    log.warning("unread")
    started = time.monotonic()
    log.flush()
    assert 0.9 < time.monotonic() - started < 3


def test_what_the_log_of_this_process_dropped_is_a_metric(pipe):
    pipe.failures = 1
    pipe.gate.set()
    handler = configure("json", pipe.write)
    logging.getLogger("serving").info("lost")
    handler.flush()
    assert dropped_records() == 1
    assert Metrics().registry.get_sample_value("prefrm_log_dropped_total") == 1
