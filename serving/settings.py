"""What `prefrm serve --set` reaches."""

from dataclasses import dataclass, field

from serving.limits import Limits

__all__ = ["ServeSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Settings of a server beside the options of its command."""

    limits: Limits = field(default_factory=Limits)
