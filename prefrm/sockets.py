"""Listening sockets: bound before anything is served, with one clear error for a port that cannot be had."""

import socket
from collections.abc import Mapping
from contextlib import ExitStack

from prefrm.errors import ConfigError

__all__ = ["address_of", "bind", "check_ports", "join_address", "port_in_use"]


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Raise `ConfigError` unless these ports, by their wire, can all be had at this moment; 0 is any."""
    with ExitStack() as held:
        for which, port in ports.items():
            held.enter_context(bind(host, port, which))


def bind(host: str, port: int, which: str, option: str = "") -> socket.socket:
    """A listening socket. Raises `ConfigError` that names the wire `which` and the option of its port."""
    if not host:
        raise ConfigError(
            "--host is empty; give 127.0.0.1 for this machine alone, 0.0.0.0 for all others too"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off on each connection; without it, every
    # answer would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise port_in_use(host, port, which, reason, option) from error
    return listener


def port_in_use(
    host: str, port: int, which: str, reason: str = "it is in use", option: str = ""
) -> ConfigError:
    """The error for a port that cannot be had; its option is `--{which}-port` if none is named."""
    return ConfigError(
        f"cannot listen on {join_address(host, port)} for {which}: {reason}; "
        f"choose another --host or {option or f'--{which}-port'}, 0 for any free port"
    )


def address_of(listener: socket.socket) -> str:
    """Where it listens, as `host:port`."""
    host, port, *_ = listener.getsockname()
    return join_address(host, port)


def join_address(host: str, port: int) -> str:
    """`host:port`, or `[host]:port` of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
