"""Requests to `POST /v1/score`, and what a refusal of one must look like."""

import base64
import json

import httpx


def b64(image):
    return image and base64.b64encode(image).decode()


def as_json(groups):
    return {
        "groups": [{"prompt": g.prompt, "images": [b64(image) for image in g.candidates]} for g in groups]
    }


def post(served, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"http://{served.http}/v1/score", content=content, headers=headers, timeout=30)


def refused(response, status=400):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.json()["error"]
