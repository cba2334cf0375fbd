"""What the JSON routes under `/v1` share: the model of a request that names none, and their documentation."""

from typing import Any

from pydantic import BaseModel

from serving.dataplane import DataPlane
from serving.errors import InvalidRequestError

__all__ = ["failures", "json_body", "only_model"]

FAILURES = {
    400: "The request is malformed or breaks a limit; the field is named.",
    401: "The server wants a token: `Authorization: Bearer TOKEN`.",
    404: "No such model or version is served.",
    408: "The body did not come within the deadline.",
    413: "The body exceeds the limit on its bytes.",
    429: "The queue is full. `Retry-After` says when to come back, in seconds. By a setting, 503 instead.",
    500: "The judge failed.",
    503: "The server or the model is starting, stopping or hanging.",
    504: "There was no answer within the timeout.",
}


def only_model(plane: DataPlane) -> str:
    """The name of the server's model. Raises `InvalidRequestError` if it has not exactly one."""
    names = plane.models.names()
    if len(names) != 1:
        listed = ", ".join(map(repr, names)) or "none"
        raise InvalidRequestError(f"model: this server has several or none; name one of {listed}")
    return names[0]


def failures(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The answers other than 200, for the OpenAPI document."""
    return {code: {"model": answer, "description": text} for code, text in FAILURES.items()}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A request body that is read without FastAPI, for the OpenAPI document."""
    schema = _inlined(model.model_json_schema())
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: dict[str, object]) -> dict[str, object]:
    """A JSON schema whose references are replaced, as only FastAPI's own models may have some."""
    definitions = schema.pop("$defs", {})
    assert isinstance(definitions, dict)

    def resolved(part: object) -> object:
        if isinstance(part, list):
            return [resolved(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]])
        return {key: resolved(inner) for key, inner in part.items()}

    return {key: resolved(part) for key, part in schema.items()}
