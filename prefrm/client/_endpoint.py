"""Where a judge is: the URL of a remote scorer, read and checked."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from prefrm.errors import ConfigError
from prefrm.protocol import GRPC_PORT, HTTP_PORT

__all__ = ["Endpoint", "joint_url", "parse_url"]

_PORTS = {"grpc": GRPC_PORT, "http": HTTP_PORT}
# The schemes, as wire and whether it is encrypted.
_SCHEMES = {wire + "s" * secure: (wire, secure) for wire in _PORTS for secure in (False, True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A wire ("grpc" or "http"), whether it is encrypted, a `host:port` and the name of a model behind it."""

    wire: str
    secure: bool = False
    address: str
    model: str

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read the URL of one server, such as `grpc://host:port/model`. Raises `ConfigError`."""
        try:
            parts = urlsplit(url)
            port, model = parts.port, parts.path.strip("/")
        except ValueError as error:
            raise _not_understood(url, str(error)) from error
        more = parts.username is not None or parts.query or parts.fragment
        for wrong, reason in (
            (parts.scheme not in _SCHEMES, f"the scheme is {parts.scheme!r}"),
            (port == 0, "nobody listens on port 0"),
            (not parts.hostname, "it names no host"),
            (more, "it has parts that mean nothing here"),
            (not model or "/" in model, "its path must be the name of one model"),
        ):
            if wrong:
                raise _not_understood(url, reason)
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        wire, secure = _SCHEMES[parts.scheme]
        return cls(wire=wire, secure=secure, address=f"{host}:{port or _PORTS[wire]}", model=model)

    @property
    def scheme(self) -> str:
        """What its URL starts with: `grpc`, `grpcs`, `http` or `https`."""
        return self.wire + "s" * self.secure

    @property
    def url(self) -> str:
        """The URL that names this endpoint, with its port."""
        return f"{self.scheme}://{self.address}/{self.model}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, by its name or address; the unspecified address leads there, too."""
        host = self.address.rpartition(":")[0].strip("[]").removesuffix(".")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost"
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return ip.is_loopback or ip.is_unspecified


def parse_url(url: str) -> tuple[Endpoint, ...]:
    """The replicas that a URL names, in order, such as `grpc://a:8001,b:8001/judge`.

    Raises:
        ConfigError: it cannot be read, or names a replica twice.
    """
    if not isinstance(url, str):
        raise _not_understood(url, "it is no string")
    # A blank is in no host's name; other such characters would be dropped in silence.
    if " " in url or not url.isprintable():
        raise _not_understood(url, "it has blanks or control characters in it")
    scheme, separator, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    endpoints = tuple(Endpoint.parse(f"{scheme}{separator}{host}{slash}{path}") for host in hosts.split(","))
    if len(set(endpoints)) < len(endpoints):
        raise _not_understood(url, "it names a replica twice")
    return endpoints


def joint_url(endpoints: Sequence[Endpoint]) -> str:
    """The URL that names replicas of one judge, with their ports; `parse_url` reads it."""
    first = endpoints[0]
    return f"{first.scheme}://{','.join(one.address for one in endpoints)}/{first.model}"


def _not_understood(url: object, reason: str) -> ConfigError:
    return ConfigError(
        f"{url!r} is no address of a judge: {reason}; write grpc://host:port/model or "
        "http://host:port/model, with grpcs or https for TLS and host:port,host:port for several replicas"
    )
