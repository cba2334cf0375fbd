"""The options of a command that may load a judge on this machine: where it runs, and how precisely."""

from dataclasses import dataclass

from prefrm.errors import ConfigError
from prefrm.options import Device, Dtype, given_options
from prefrm.scorers import is_url, sources

__all__ = ["Local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """How a bundle is loaded, as options of a command."""

    device: Device = "auto"
    dtype: Dtype = "auto"

    def require_bundle(self, *targets: str | None) -> None:
        """Raise `ConfigError` if an option was given and these scorers lead to URLs alone."""
        given = given_options(self)
        if given and all(map(is_url, sources(*targets))):
            raise ConfigError(
                f"{given}: for a bundle on this machine; the server behind {targets[0]} decides by itself, "
                "by the options of `prefrm serve`"
            )
