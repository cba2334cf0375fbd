"""What one server accepts, how much may wait, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prefrm.errors import ConfigError
from prefrm.media import DEFAULT_LIMITS, ImageLimits
from prefrm.winmatrix import Group
from serving.errors import InvalidRequestError

__all__ = ["Limits"]

# Of a number that a client sent: an extent in JSON may have thousands of digits.
SHOWN_DIGITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on untrusted requests, on what may wait, and on time.

    Costs are in tokens, as `serving.queueing.cost` estimates them.

    Attributes:
        image: bytes, pixels and formats of each image; one beyond them is a candidate that cannot be judged.
        group_size: K of a group; a request beyond it is refused, as by the two below.
        request_groups: B, groups of one request.
        prompt_bytes: of a prompt in UTF-8.
        request_bytes: bytes of one request, after decompression.
        queued_cost: what may wait for a model's scorer; a request is admitted whole or refused, and one
            that nothing waits before is always admitted.
        queued_bytes: bytes of prompts and images that may wait for a model's scorer, with the same exception.
        batch_cost: what is scored together; a group that alone costs more is scored alone.
        gather_s: seconds that an idle scorer waits for more than came first.
        deadline_s: seconds that a request may take, if the client gives it no fewer.
        hang_s: seconds without progress after which a batch makes its model not ready.
        notice_s: seconds between saying that the server is not ready and refusing requests, at its end.
        drain_s: seconds that what was accepted may then take to finish.
        overload_status: what HTTP answers when the queue is full: 429, or 503 (with gRPC's UNAVAILABLE) for
            clients that come back only after that.

    Raises:
        ConfigError: a bound is not positive, or a waiting time is negative.
    """

    image: ImageLimits = DEFAULT_LIMITS
    group_size: int = 64
    request_groups: int = 256
    prompt_bytes: int = 32 * 2**10
    request_bytes: int = 256 * 2**20
    queued_cost: int = 4_000_000
    queued_bytes: int = 2**30
    batch_cost: int = 32_768
    gather_s: float = 0.0
    deadline_s: float = 600.0
    hang_s: float = 300.0
    notice_s: float = 0.0
    drain_s: float = 30.0
    overload_status: Literal[429, 503] = 429

    def __post_init__(self) -> None:
        for name in (
            "group_size",
            "request_groups",
            "prompt_bytes",
            "request_bytes",
            "queued_cost",
            "queued_bytes",
            "batch_cost",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}")
        for name in ("deadline_s", "hang_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive; received {getattr(self, name)}")
        for name in ("gather_s", "notice_s", "drain_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative; received {getattr(self, name)}")

    def check(self, groups: Sequence[Group]) -> None:
        """Raise `InvalidRequestError` if a request of these groups, at least one, is too much."""
        self.check_counts(len(groups), max(group.size for group in groups))
        longest = max(group.prompt_bytes for group in groups)
        if longest > self.prompt_bytes:
            raise InvalidRequestError(f"a prompt may have {self.prompt_bytes} bytes; received {longest}")

    def check_counts(self, groups: int, size: int) -> None:
        """Raise `InvalidRequestError` if so many groups, the largest of this size, are too much."""
        for what, most, count in (
            ("a request may have {} groups", self.request_groups, groups),
            ("a group may have {} candidates", self.group_size, size),
        ):
            if count > most:
                raise InvalidRequestError(f"{what.format(most)}; received {str(count)[:SHOWN_DIGITS]}")
