"""Bounds on what a gRPC connection may open, reset, ping and buffer, as arguments of gRPC's C-core.

A call that is opened and reset at once (HTTP/2 rapid reset, CVE-2023-44487) still costs a task of the event
loop. C-core counts such a call against `STREAMS` until that task has ended, and refuses further ones itself,
at a hundredth of the cost.
"""

__all__ = ["GRPC_CONNECTION_OPTIONS"]

# Concurrent calls of a connection; clients queue further ones. RFC 9113 (6.5.2) recommends 100, but a good
# client's call waits until the event loop has seen the reset ones of the same method.
STREAMS = 64
# Calls that one read of a connection may begin before the other connections have their turn.
CALLS_PER_READ = 4
# Half of the 1024 file descriptors that a process has by default; further connections are closed at once.
CONNECTIONS = 512
# From the accepted connection to the first SETTINGS frame of HTTP/2, the TLS handshake included.
HANDSHAKE_S = 20
# A connection without calls is closed (GOAWAY) after this long; clients reconnect at their next call.
IDLE_S = 600
# A client may ping this often, with and without calls. Two pings that come sooner are forgiven.
PING_EVERY_S = 5
PINGS_FORGIVEN = 2
# A silent connection is pinged, and closed if no answer comes: the calls of a vanished client are cancelled.
KEEPALIVE_S = 60
KEEPALIVE_TIMEOUT_S = 20
# Bytes read at once. C-core has no bound of its own, and a flood of small frames fills memory.
READ_BYTES = 2**20

GRPC_CONNECTION_OPTIONS = (
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.http2.max_requests_per_read", CALLS_PER_READ),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_S),
    ("grpc.http2.settings_timeout", 1000 * HANDSHAKE_S),
    ("grpc.max_connection_idle_ms", 1000 * IDLE_S),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000 * PING_EVERY_S),
    ("grpc.http2.max_ping_strikes", PINGS_FORGIVEN),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 1000 * KEEPALIVE_S),
    # Of a peer that answers no PING, and of one that acknowledges no TCP segment.
    ("grpc.http2.ping_timeout_ms", 1000 * KEEPALIVE_TIMEOUT_S),
    ("grpc.keepalive_timeout_ms", 1000 * KEEPALIVE_TIMEOUT_S),
    ("grpc.experimental.tcp_max_read_buffer_size", READ_BYTES),
)
