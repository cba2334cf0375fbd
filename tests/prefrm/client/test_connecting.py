"""URLs, tokens and TLS as they are given, and what importing the client costs."""

import subprocess
import sys

import pytest

from prefrm.client import connect, connect_async
from prefrm.client._endpoint import Endpoint
from prefrm.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("grpc://gpu-7:9001/judge", "grpc://gpu-7:9001/judge"),
        ("http://127.0.0.1:9000/judge/", "http://127.0.0.1:9000/judge"),
        ("grpc://gpu-7/judge", "grpc://gpu-7:8001/judge"),
        ("http://gpu-7/judge", "http://gpu-7:8000/judge"),
        ("grpc://[::1]:9001/a.b-c", "grpc://[::1]:9001/a.b-c"),
        ("grpcs://gpu-7/judge", "grpcs://gpu-7:8001/judge"),
        ("https://gpu-7:443/judge", "https://gpu-7:443/judge"),
        ("grpc://a:9001,b/judge", "grpc://a:9001,b:8001/judge"),
        ("http://[::1]:1,[::1]:2,127.0.0.1/judge/", "http://[::1]:1,[::1]:2,127.0.0.1:8000/judge"),
    ],
)
def test_urls(url, read):
    assert connect(url).url == connect_async(url).url == read
    assert read in repr(connect(url))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "the scheme is ''"),
        ("127.0.0.1:8001", "scheme"),
        ("ftp://host/judge", "the scheme is 'ftp'"),
        ("grpc:///judge", "no host"),
        ("grpc://host:8001", "the name of one model"),
        ("grpc://host:8001/a/b", "the name of one model"),
        ("grpc://host:port/judge", "[Pp]ort"),
        ("grpc://host:99999/judge", "[Pp]ort"),
        ("grpc://host:0/judge", "port 0"),
        ("grpc://user@host/judge", "mean nothing"),
        ("http://host/judge?x=1", "mean nothing"),
        ("grpc://a,/judge", "no host"),
        ("grpc://a,b:0/judge", "port 0"),
        ("grpc://a,b:8001,a:8001/judge", "a replica twice"),
        ("grpc://a,b", "the name of one model"),
        ("grpc://a?x=1,b/judge", "mean nothing"),
        (None, "it is no string"),
        (b"grpc://host/judge", "it is no string"),
        ("grpc://a b:1/judge", "blanks"),
        ("grpc://a,b c/judge", "blanks"),
        ("grpc://host/jud\nge", "control characters"),
    ],
)
def test_what_is_no_address_of_a_judge_says_how_to_write_one(url, reason):
    for make in (connect, connect_async):
        with pytest.raises(ConfigError, match=reason) as caught:
            make(url)
        assert "write grpc://host:port/model" in str(caught.value)
        assert "host:port,host:port for several" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        *[
            {"deadline": 0},
            {"deadline": float("nan")},
            {"deadline": float("inf")},
            {"unavailable_timeout": -1},
        ],
        *[{"deadline": "3"}, {"deadline": None}, {"deadline": True}, {"unavailable_timeout": "1"}],
    ],
)
def test_a_policy_out_of_range_is_a_mistake(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        connect("grpc://host/judge", **options)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *[
            ("127.0.0.1", True),
            ("127.8.0.1", True),
            ("[::1]", True),
            ("localhost", True),
            ("LOCALHOST", True),
            ("localhost.", True),
            ("0.0.0.0", True),
            ("[::]", True),
            ("[::ffff:127.0.0.1]", True),
            ("[::ffff:0.0.0.0]", True),
        ],
        *[("gpu-7", False), ("10.0.0.7", False), ("[2001:db8::1]", False), ("localhost.example", False)],
        *[("gpu-7.", False), ("[::ffff:10.0.0.7]", False), ("0.0.0.1", False)],
    ],
)
def test_which_hosts_are_this_machine(host, here):
    assert Endpoint.parse(f"grpc://{host}/judge").is_loopback is here


IMPORT = """
import sys, time
started = time.process_time()
import prefrm.client
seconds = time.process_time() - started
prefrm.client.connect("grpc://127.0.0.1:8001/judge").close()
heavy = {"torch", "transformers", "fastapi", "pyarrow", "scipy", "matplotlib", "datasets", "serving"}
print(seconds, *sorted(heavy & set(sys.modules)))
"""


def test_importing_the_client_is_quick_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert heavy == []
    # Of the processor, for the machine may be busy.
    assert float(seconds) < 0.5
