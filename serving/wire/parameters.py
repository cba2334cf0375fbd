"""The parameters of an inference request: which a client may send, and the one that means something here.

As real Triton reads them: names that begin with "triton_" are its own, `priority` is a number (and changes
nothing: requests take turns by cost), any other name is the client's affair.
"""

from collections.abc import Mapping

from serving.errors import InvalidRequestError

__all__ = ["BASE64", "CONTENT_TYPE", "read_timeout"]

# Of an input: https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html. MLServer's other values
# choose a type of Python for the tensor, which changes nothing here.
CONTENT_TYPE, BASE64 = "content_type", "base64"

RESERVED = "triton_"
FINAL_RESPONSE_WANTED = "triton_enable_empty_final_response"
MICROSECOND = 1e-6


def read_timeout(parameters: Mapping[str, object]) -> float | None:
    """Seconds that the request may take, or None.

    Args:
        parameters: by name, as they came.

    Raises:
        InvalidRequestError: a parameter is reserved, or of a type that it cannot have.
    """
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidRequestError(f"the parameter {name!r} must be a number, text, true or false")
        if name.startswith(RESERVED) and name != FINAL_RESPONSE_WANTED:
            raise InvalidRequestError(f"the parameter {name!r} is reserved")
    if not isinstance(parameters.get(FINAL_RESPONSE_WANTED, False), bool):
        raise InvalidRequestError(f"the parameter {FINAL_RESPONSE_WANTED!r} must be true or false")
    _integer(parameters, "priority", "a whole number")
    microseconds = _integer(parameters, "timeout", "an int64 of microseconds")
    return microseconds * MICROSECOND if microseconds > 0 else None


def _integer(parameters: Mapping[str, object], name: str, what: str) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise InvalidRequestError(f"the parameter {name!r} must be {what}; received {str(value)[:60]!r}")
    return value
