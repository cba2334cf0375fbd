"""From a URL and options to what every judge behind a chat endpoint is made of."""

from prefrm.client._credentials import TLS, Credentials, secured
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import DEFAULT_DEADLINE_S, DEFAULT_UNAVAILABLE_TIMEOUT_S, RetryPolicy
from prefrm.scorers.chat.settings import ChatSettings, parse_chat_url

__all__ = ["parse_connection"]


def parse_connection(
    url: str,
    *,
    token: str | None = None,
    tls: TLS | bool | None = None,
    deadline: float = DEFAULT_DEADLINE_S,
    unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S,
    allow_plaintext_token: bool = False,
) -> tuple[tuple[Endpoint, ...], ChatSettings, RetryPolicy, Credentials]:
    """Replicas, settings, the policy of each question and the credentials of each request.

    Args and errors are those of `ChatScorer.connect`.
    """
    endpoints, settings = parse_chat_url(url)
    endpoints, credentials = secured(
        endpoints, token=token, tls=tls, allow_plaintext_token=allow_plaintext_token
    )
    policy = RetryPolicy(deadline=deadline, unavailable_timeout=unavailable_timeout)
    return endpoints, settings, policy, credentials
