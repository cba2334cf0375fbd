"""The requests of a call's groups, and the matrices of their answers. Sends nothing."""

import math
from collections.abc import Iterable, Sequence

from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import TooLarge, Unfit
from prefrm.errors import ProtocolError, RecordError
from prefrm.protocol import MAX_REQUEST_GROUPS, Part, Tensors, decode_matrices, encode_groups, partition
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["PARTS_PER_REPLICA", "decoded", "encoded", "halves", "listed", "shared_out", "unjudged"]

# Requests of one call that a replica has at a time: one to compute, one to have ready.
PARTS_PER_REPLICA = 2


def listed(groups: Iterable[Group]) -> list[Group]:
    """A call's groups, from whatever gives them one by one. Raises `RecordError` if one is no group."""
    if not isinstance(groups, Iterable):
        raise RecordError(
            f"score takes a list of groups; received {type(groups).__name__}: write score([group])"
        )
    found = list(groups)
    for n, group in enumerate(found):
        if not isinstance(group, Group):
            raise RecordError(f"score takes a list of groups; its item {n} is {type(group).__name__}")
    return found


def shared_out(groups: Sequence[Group], replicas: int) -> list[Part]:
    """The requests of one call, small enough that each of so many replicas gets some of the groups."""
    share = math.ceil(len(groups) / max(1, replicas))
    return partition(groups, max_groups=min(MAX_REQUEST_GROUPS, max(1, share)))


def halves(part: Part) -> list[Part]:
    """A request of two groups or more as two."""
    middle = len(part.groups) // 2
    return [
        Part(places=part.places[:middle], groups=part.groups[:middle]),
        Part(places=part.places[middle:], groups=part.groups[middle:]),
    ]


def encoded(part: Part) -> Tensors:
    """The input tensors of a request. Raises `Unfit` if no request can carry one of its groups."""
    try:
        return encode_groups(part.groups)
    except ProtocolError as error:
        raise Unfit(str(error)) from error


def unjudged(error: Unfit, group: Group) -> WinMatrix:
    """The matrix of a single group that cannot be sent or is not taken: nothing was judged."""
    reason = str(error)
    if isinstance(error, TooLarge):
        sizes = [len(image) for image in group.images if image is not None]
        reason += (
            f"; the group of {group.size} candidates has {sum(sizes):,} bytes of images, the largest "
            f"{max(sizes, default=0):,}; send smaller or fewer images, or raise the server's limit"
        )
    return WinMatrix.missing([reason] * group.size)


def decoded(answer: Tensors, part: Part, endpoint: Endpoint) -> list[WinMatrix]:
    """The matrices of an answer to a request. Raises `ProtocolError` if there are none in it."""
    try:
        return decode_matrices(answer, count=len(part.groups), size=part.groups[0].size)
    except ProtocolError as error:
        raise ProtocolError(f"{endpoint.url}: {error}") from error
