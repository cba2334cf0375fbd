"""Where a judge is: the URL of a remote scorer, read and checked."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from prefrm.errors import ConfigError
from prefrm.protocol import GRPC_PORT, HTTP_PORT

__all__ = ["Endpoint"]

_PORTS = {"grpc": GRPC_PORT, "http": HTTP_PORT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A wire ("grpc" or "http"), a `host:port` and the name of a model behind it."""

    wire: str
    address: str
    model: str

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read `grpc://host:port/model` or `http://host:port/model`. Raises `ConfigError`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _not_understood(url, str(error)) from error
        if parts.scheme not in _PORTS:
            raise _not_understood(url, f"the scheme is {parts.scheme!r}")
        if port == 0:
            raise _not_understood(url, "nobody listens on port 0")
        if not parts.hostname:
            raise _not_understood(url, "it names no host")
        if parts.username is not None or parts.query or parts.fragment:
            raise _not_understood(url, "it has parts that mean nothing here")
        model = parts.path.strip("/")
        if not model or "/" in model:
            raise _not_understood(url, "its path must be the name of one model")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(wire=parts.scheme, address=f"{host}:{port or _PORTS[parts.scheme]}", model=model)

    @property
    def url(self) -> str:
        """The URL that names this endpoint, with its port."""
        return f"{self.wire}://{self.address}/{self.model}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, by its name or address, where no proxy leads.

        The unspecified address is: whoever connects to it reaches their own machine.
        """
        host = self.address.rpartition(":")[0].strip("[]").removesuffix(".")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost"
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return ip.is_loopback or ip.is_unspecified


def _not_understood(url: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{url!r} is no address of a judge: {reason}; write grpc://host:port/model or http://host:port/model"
    )
