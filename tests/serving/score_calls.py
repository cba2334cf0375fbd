"""Requests to `POST /v1/score`, and what a refusal of one must look like."""

import base64
import json

import httpx


def b64(image):
    return image and base64.b64encode(image).decode()


def as_json(groups):
    return {"groups": [group_json(group) for group in groups]}


def group_json(group):
    """A group's fields; those that are empty are left out."""
    is_text = group.kind == "text"
    candidates = (
        {"texts": list(group.candidates)} if is_text else {"images": list(map(b64, group.candidates))}
    )
    more = {"context": list(map(b64, group.context)), "criterion": group.criterion}
    return {"prompt": group.prompt, **candidates, **{name: value for name, value in more.items() if value}}


def post(served, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"http://{served.http}/v1/score", content=content, headers=headers, timeout=30)


def refused(response, status=400):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.json()["error"]
