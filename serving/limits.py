"""What one server accepts, how much may wait, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from prefrm.errors import ConfigError
from prefrm.media import DEFAULT_LIMITS, ImageLimits
from prefrm.winmatrix import Group
from serving.errors import BusyError, InvalidRequestError, OverloadedError, TooLargeError

__all__ = ["Limits"]

# Of a number that a client sent.
SHOWN_DIGITS = 20
REQUESTS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on untrusted requests, on what may wait, and on time.

    Costs are in tokens, as `serving.queueing.cost` estimates them.

    Attributes:
        image: bytes, pixels and formats of each image, and of each video; one beyond them is a candidate that
            cannot be judged.
        group_size: K of a group; one beyond it is answered as not judged, and the others are judged.
        prompt_bytes: of a prompt with its criterion in UTF-8; likewise.
        context_images: of a group; likewise.
        text_bytes: of a text candidate in UTF-8; one beyond it cannot be judged.
        request_groups: B, groups of one request; a request beyond it is refused.
        request_bytes: bytes of one request, after decompression.
        in_flight_bytes: bytes held for all requests of both wires, from the first byte of a body to the last
            of the answer, decompressed ones included; at least `REQUESTS_IN_FLIGHT` times `request_bytes`,
            since a request may hold no more than it leaves free, and is held twice while its images are read.
        queued_cost: what may wait for a model's scorer; a request is admitted whole or refused, and one
            that nothing waits before is always admitted. Requests whose groups are decoded ahead, and of
            these those with long groups, have this bound for themselves.
        decoding_pixels: of large images, how many are decoded at once; a single image may have more.
        batch_cost: what is scored together; a group that alone costs more is scored alone.
        max_queue_delay_s: seconds that an idle scorer waits for more than came first.
        header_s: seconds from the first byte of a connection or a later HTTP request to the end of its header
            fields, and of a TLS handshake.
        deadline_s: seconds that a request may take, if the client gives it no fewer.
        load_s: seconds that loading a model may take.
        hang_s: seconds without progress after which a batch makes its model not ready.
        notice_s: seconds between saying that the server is not ready and refusing requests, at its end.
        drain_s: seconds that what was accepted may then take to finish.
        overload_status: what HTTP answers when the queue is full: 429, or 503 (with gRPC's UNAVAILABLE) for
            clients that come back only after that.

    Raises:
        ConfigError: a bound is not positive, a waiting time is negative, or the largest request can never
            be in flight.
    """

    image: ImageLimits = DEFAULT_LIMITS
    group_size: int = 64
    request_groups: int = 256
    prompt_bytes: int = 32 * 2**10
    context_images: int = 16
    text_bytes: int = 32 * 2**10
    request_bytes: int = 256 * 2**20
    in_flight_bytes: int = 2**30
    queued_cost: int = 4_000_000
    decoding_pixels: int = 64 * 10**6
    batch_cost: int = 32_768
    max_queue_delay_s: float = 0.0
    header_s: float = 20.0
    deadline_s: float = 600.0
    load_s: float = 600.0
    hang_s: float = 300.0
    notice_s: float = 0.0
    drain_s: float = 30.0
    overload_status: Literal[429, 503] = 429

    def __post_init__(self) -> None:
        for name in (
            "group_size",
            "request_groups",
            "prompt_bytes",
            "context_images",
            "text_bytes",
            "request_bytes",
            "queued_cost",
            "in_flight_bytes",
            "decoding_pixels",
            "batch_cost",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}")
        for name in ("header_s", "deadline_s", "load_s", "hang_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive; received {getattr(self, name)}")
        for name in ("max_queue_delay_s", "notice_s", "drain_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative; received {getattr(self, name)}")
        if self.in_flight_bytes < (least := REQUESTS_IN_FLIGHT * self.request_bytes):
            raise ConfigError(
                f"in_flight_bytes must be at least {REQUESTS_IN_FLIGHT} times request_bytes, {least}; "
                f"received {self.in_flight_bytes}"
            )

    @property
    def answer_entries(self) -> int:
        """Entries of all win matrices of the largest answer, those of refused groups included."""
        return self.request_groups * self.group_size**2

    @property
    def widest_group(self) -> int:
        """K of the largest group that is answered at all, if only as not judged."""
        return isqrt(self.answer_entries)

    def overloaded(self, message: str, retry_after: float = 1.0) -> OverloadedError:
        """The error for a request that finds no room, as `overload_status` has it."""
        refuse = OverloadedError if self.overload_status == 429 else BusyError
        return refuse(message, retry_after)

    def refusal(self, group: Group) -> str:
        """The reason why a group is not judged; "" for a group within the limits."""
        if group.size > self.group_size:
            return _too_many(self.group_size, group.size)
        if group.text_bytes > self.prompt_bytes:
            what = "a prompt with its criterion" if group.criterion else "a prompt"
            return f"{what} may have {self.prompt_bytes} bytes; received {group.text_bytes}"
        if len(group.context) > self.context_images:
            return f"a group may have {self.context_images} context images; received {len(group.context)}"
        return ""

    def text_refusal(self, text: str) -> str:
        """The reason why a text candidate is not judged; "" for one within the limits."""
        if (size := len(text.encode("utf-8", "surrogatepass"))) > self.text_bytes:
            return f"a text may have {self.text_bytes} bytes; received {size}"
        return ""

    def check_sizes(self, sizes: Sequence[int]) -> None:
        """Raise as `check_counts` unless groups of these sizes can be answered, if only as not judged."""
        self._check_groups(len(sizes))
        if sum(size**2 for size in sizes) > self.answer_entries:
            raise TooLargeError(_too_many(self.group_size, max(sizes)))

    def check_counts(self, groups: int, size: int) -> None:
        """Check the extents of a request whose groups are of one size, before its content is read.

        Raises:
            InvalidRequestError: there are too many groups.
            TooLargeError: the groups are so large that the answer would exceed `answer_entries`.
        """
        self._check_groups(groups)
        if max(groups, 1) * size**2 > self.answer_entries:
            raise TooLargeError(_too_many(self.group_size, size))

    def check_context(self, groups: int, images: int) -> None:
        """Check the extents of the context images of a request, before they are read.

        Raises:
            InvalidRequestError: there are too many groups.
            TooLargeError: there are more images than all groups of the largest request may have.
        """
        self._check_groups(groups)
        if groups * images > (most := self.request_groups * self.context_images):
            received = f"{groups} times {str(images)[:SHOWN_DIGITS]}"
            raise TooLargeError(f"a request may have {most} context images; received {received}")

    def _check_groups(self, groups: int) -> None:
        if groups > self.request_groups:
            raise InvalidRequestError(
                f"a request may have {self.request_groups} groups; received {str(groups)[:SHOWN_DIGITS]}"
            )


def _too_many(most: int, size: int) -> str:
    return f"a group may have {most} candidates; received {str(size)[:SHOWN_DIGITS]}"
