"""The gradient of a judge behind a URL, as arrays: utilities of a group's pixels, and their derivatives.

Over HTTP alone: the stock messages of gRPC have no call for it.

Shapes: K candidates, H height, W width.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from prefrm.client import _portal
from prefrm.client._core import Connected, home
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import Call
from prefrm.client._scorers import Remote
from prefrm.errors import ConfigError, RecordError
from prefrm.protocol import GRADIENT, PIXELS, PROMPT, UTILITIES
from prefrm.winmatrix import Floats

if TYPE_CHECKING:
    from prefrm.client._http import HttpTransport

__all__ = ["RemoteGradient"]


class RemoteGradient(Remote):
    """The gradient of a judge behind a URL, for a server that was started with `--gradients`.

    Made by `RemoteGradient.connect`, with the arguments of `prefrm.client.connect`. Threads may share it.
    """

    _connected: "Connected[HttpTransport] | None" = None

    @classmethod
    def connect(cls, url: str, **options: Any) -> "RemoteGradient":
        """As `prefrm.client.connect`. Raises `ConfigError` also if the URL is not one of HTTP."""
        made = super().connect(url, **options)
        if any(endpoint.wire != "http" for endpoint in made._endpoints):
            raise ConfigError(f"a gradient comes over http:// or https://; received {url}")
        return made

    def gradient(self, prompt: str, pixels: Floats) -> tuple[Floats, Floats]:
        """Utilities [K] in log-odds, and the derivative of each in its own candidate [K, 3, H, W].

        Args:
            prompt: what the candidates answer.
            pixels: float32 [K, 3, H, W] in [0, 1], RGB.

        Raises:
            RecordError: the prompt is not valid Unicode.
            RequestError: the server gives no gradient, or refuses the prompt or the pixels.
            ScoringError: as `prefrm.client.RemoteScorer.score`.
        """
        text = np.empty((1, 1), dtype=object)
        try:
            text[0, 0] = prompt.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"the prompt is not valid Unicode text: {error.reason}") from error
        tensors = {PROMPT.name: text, PIXELS.name: np.ascontiguousarray(pixels, np.float32)}
        call = Call(self._policy)

        async def ask() -> tuple[Floats, Floats]:
            answer = await self._connections().ask(
                lambda wire: wire.gradient(tensors, timeout=call.left()), call
            )
            return answer[UTILITIES.name], answer[GRADIENT.name]

        return _portal.run(ask)

    def close(self) -> None:
        """Release the connections; another call opens new ones."""
        here, self._connected = self._connected, None
        if here is not None and not sys.is_finalizing():
            _portal.run(here.close)

    def _connections(self) -> "Connected[HttpTransport]":
        if self._connected is None or self._connected.home != home():
            self._connected = Connected(self._endpoints, self._policy, self._credentials, _open)
        return self._connected

    def __enter__(self) -> "RemoteGradient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(endpoint: Endpoint, credentials: Credentials) -> "HttpTransport":
    # As in the core, so that `import prefrm.client` stays quick.
    from prefrm.client._http import HttpTransport

    return HttpTransport(endpoint, credentials)
