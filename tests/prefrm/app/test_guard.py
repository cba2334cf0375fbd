"""Who may use the pages."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.access.tokens import TokenFile
from prefrm.app.guard import Guard

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
PAGE = {"accept": "text/html,*/*"}


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    path = tmp_path / "tokens"
    path.write_text(f"{ANN}\n{BOB}\n")
    path.chmod(0o600)
    return TokenFile(path)


def browser(tokens: TokenFile | None, *, local: bool = True, at: str = "http://localhost:7860") -> Any:
    """A client with a jar of cookies, of a server whose only page names the visitor."""
    fastapi = pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    application = fastapi.FastAPI()
    # Not through annotations, which would have to be resolved.
    application.router.add_route("/", lambda request: _text(request.state.visitor or "anyone"))
    guard = Guard(application, tokens, local=local, secure=at.startswith("https"))
    return TestClient(guard, base_url=at)


def _text(text: str) -> Any:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(text)


def test_a_browser_signs_in_once_and_is_then_known_by_its_cookie(tokens: TokenFile) -> None:
    client = browser(tokens)
    page = client.get("/", headers=PAGE)
    assert (page.status_code, "Sign in" in page.text) == (401, True)
    refused = client.post("/sign-in", json={"token": "not-a-token-of-ours"})
    assert (refused.status_code, refused.json()) == (401, {"error": "the token is not one of this server's"})
    answer = client.post("/sign-in", json={"token": ANN})
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=strict" in answer.headers["set-cookie"]
    assert ANN not in answer.headers["set-cookie"]
    ann = client.get("/", headers=PAGE)
    assert ann.status_code == 200 and ann.text not in ("anyone", ANN)
    assert browser(tokens).get("/", headers={"authorization": f"Bearer {ANN}"}).text == ann.text
    assert browser(tokens).get("/", headers={"authorization": f"Bearer {BOB}"}).text != ann.text


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 1}', b"{" * 9000])
def test_a_malformed_sign_in_is_refused(tokens: TokenFile, body: bytes) -> None:
    assert browser(tokens).post("/sign-in", content=body).status_code == 400


def test_a_program_without_a_token_gets_the_reason_as_json(tokens: TokenFile) -> None:
    answer = browser(tokens).get("/")
    assert answer.status_code == 401 and "a token is required" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://elsewhere.example"}, {"host": "elsewhere.example:7860"}, {"origin": "null"}],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str]) -> None:
    assert browser(None).get("/", headers=headers).status_code == 403
    assert browser(None).get("/", headers={"origin": "http://localhost:7860"}).text == "anyone"


def test_a_server_for_other_machines_has_any_name() -> None:
    assert browser(None, local=False, at="http://judges.example").get("/").text == "anyone"


def test_no_page_may_load_anything_from_elsewhere() -> None:
    policy = browser(None).get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
