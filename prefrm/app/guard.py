"""Who may use the pages: requests of this origin, with a token where the server has any.

A program sends `authorization: Bearer TOKEN`. A browser signs in once, on a page that stands in the place of
the one that was asked for, or by a link that ends in `#token=TOKEN`, which reaches no log; it then has a
cookie that no script and no other site can read or use.
"""

import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prefrm.access.tokens import TokenFile

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

__all__ = ["SIGN_IN", "Guard"]

SIGN_IN = "/sign-in"
COOKIE = "prefrm_session"
MOST_BODY_BYTES = 4096
# Nothing that a page holds may be loaded from, or sent to, another server.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "frame-ancestors": "'self'",
    "form-action": "'self'",
    "base-uri": "'self'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{what} {sources}" for what, sources in POLICY.items()),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
# A URL's fragment stays in the browser, where the script takes the token out of it.
SIGN_IN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - prefrm</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; }
form { width: min(22rem, 90vw); display: grid; gap: .75rem; }
h1 { font-size: 1.25rem; margin: 0; } p { margin: 0; }
input, button { font: inherit; padding: .6rem .75rem; border-radius: .4rem; border: 1px solid #6b7280; }
button { background: #0b5cad; border-color: #0b5cad; color: #fff; font-weight: 600; }
</style></head><body><main><form><h1>prefrm</h1>
<label for="token">Token of this server</label>
<input id="token" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button><p role="alert"></p></form></main><script>
const form = document.querySelector("form"), field = document.querySelector("input");
async function signIn(token) {
  const answer = await fetch("/sign-in", {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({token}),
  });
  if (answer.ok) location.reload();
  else document.querySelector("[role=alert]").textContent = (await answer.json()).error;
}
form.addEventListener("submit", event => { event.preventDefault(); signIn(field.value.trim()); });
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  signIn(given);
}
</script></body></html>
"""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI middleware. Endpoints find a name of the token in `request.state.visitor`, "" without tokens.

    Args:
        app: what is guarded.
        tokens: which requests may carry; None if none is needed.
        local: whether only this machine can reach the server.
        secure: whether connections are encrypted.
    """

    def __init__(self, app: App, tokens: TokenFile | None, *, local: bool, secure: bool) -> None:
        self._app, self._tokens, self._local, self._secure = app, tokens, local, secure
        self._key = secrets.token_bytes(32)
        self._sessions: dict[str, bytes] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        answer: Response | None
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", SIGN_IN):
            answer = self._foreign(connection) or await self._sign_in(receive)
        else:
            answer = self._foreign(connection) or self._without_token(connection)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, _with_headers(send))

    def _foreign(self, connection: "HTTPConnection") -> "Response | None":
        """The refusal of what a page of another site sends."""
        host = connection.headers.get("host", "")
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _refusal(403, f"a page of {origin} may not use this server")
        # Another site's name may lead to this machine, too (DNS rebinding).
        if self._tokens is None and self._local and not _is_local_name(urlsplit(f"//{host}").hostname):
            return _refusal(403, f"{host!r} is not a name of this machine; open the page at localhost")
        return None

    def _without_token(self, connection: "HTTPConnection") -> "Response | None":
        """The answer to a request without a valid token; sets the visitor's name for one that has it."""
        state = connection.scope.setdefault("state", {})
        state["visitor"] = ""
        if self._tokens is None:
            return None
        given = [value.encode("latin-1") for value in connection.headers.getlist("authorization")]
        session = self._sessions.get(connection.cookies.get(COOKIE, ""))
        if not given and session is not None:
            given = [b"Bearer " + session]
        if refusal := self._tokens.refusal(given):
            if "text/html" in connection.headers.get("accept", ""):
                from starlette.responses import HTMLResponse

                return HTMLResponse(SIGN_IN_PAGE, 401)
            return _refusal(401, refusal)
        state["visitor"] = hashlib.sha256(given[0].split()[1]).hexdigest()[:12]
        return None

    async def _sign_in(self, receive: Receive) -> "Response":
        """Exchange a token for the cookie of its session."""
        from starlette.responses import JSONResponse

        body, more = b"", True
        while more and len(body) <= MOST_BODY_BYTES:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            token = json.loads(body[:MOST_BODY_BYTES])["token"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            return _refusal(400, 'send {"token": "..."} as JSON')
        if self._tokens is None or (refusal := self._tokens.refusal([b"Bearer " + token])):
            return _refusal(401, refusal if self._tokens is not None else "this server needs no token")
        # As many as there are tokens, however often each signs in.
        name = hmac.new(self._key, token, hashlib.sha256).hexdigest()
        self._sessions[name] = token
        answer = JSONResponse({})
        answer.set_cookie(COOKIE, name, httponly=True, samesite="strict", secure=self._secure)
        return answer


def _is_local_name(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _refusal(status: int, reason: str) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse({"error": reason}, status)


def _with_headers(send: Send) -> Send:
    """Sends an answer with `HEADERS`."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return sending
