"""Settings of a judge behind a chat endpoint, and the URL that holds them.

chat+http://host:8000/v1?model=UnifiedReward&dialect=unifiedreward-think&n=4
"""

import json
import typing
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import yaml

from prefrm.client._endpoint import Endpoint
from prefrm.config import Bounded, Bounds, Count, Natural, NonNegative, Share, check_bounds, from_mapping
from prefrm.errors import ConfigError

__all__ = ["SAMPLING_TEMPERATURE", "ChatSettings", "parse_chat_url"]

SAMPLING_TEMPERATURE = 0.7
"""Of several samples, and of a question that is asked again, where none is given."""
ASKED = (
    *(
        "messages",
        "model",
        "n",
        "temperature",
        "top_p",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "stop",
    ),
    *("logprobs", "top_logprobs", "logprob_token_ids", "stream"),
)
"""Fields of a request that other settings decide."""
PORTS = {"http": 80, "https": 443}
CHAT = "chat+"

Read = Literal["auto", "prefix", "text"]
Alternatives = typing.Annotated[int, Bounds(1, 20, "from 1 to 20")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings(Bounded):
    """What is asked of an endpoint, and how its answers count.

    Attributes:
        model: that a question names; "" for the only one that the endpoint serves.
        dialect: one of `prefrm.scorers.chat.DIALECTS`.
        template: a file with the wording (`prefrm.scorers.chat.wording`); None for prefrm's own.
        context: the file of the image that is the context of every group without one, such as the source of
            edits, for a dialect that shows one.
        read: "auto" reads the log-probabilities of the label in an answer where the endpoint returns them;
            "prefix" has the endpoint continue the answer's forced start by the label alone, one token;
            "text" reads the words.
        n: number of samples of an answer.
        temperature: of the samples; None is 0 for one and 0.7 for several.
        top_p: nucleus of the samples.
        seed: of the first sample.
        max_tokens: length of an answer; None is the dialect's.
        top_logprobs: alternatives that an endpoint returns which cannot return those of named tokens.
        min_mass: least probability of all labels together of a valid reading.
        min_read: least share of readable samples of a valid reading.
        pairs: number of pairs of a group to judge, the others being inferred; None judges all.
        concurrency: questions in flight.
        server: kind of the server (`prefrm.scorers.chat.servers`); "auto" asks it.
        extra: more fields of each request, as a JSON object, such as
            `{"chat_template_kwargs": {"enable_thinking": false}}`; "" for none.
    """

    model: str = ""
    dialect: str = "plain"
    template: Path | None = None
    context: Path | None = None
    read: Read = "auto"
    n: Count = 1
    temperature: NonNegative | None = None
    top_p: Share = 1.0
    seed: Natural = 0
    max_tokens: Count | None = None
    top_logprobs: Alternatives = 20
    min_mass: Share = 0.5
    min_read: Share = 0.5
    pairs: Count | None = None
    concurrency: Count = 32
    server: str = "auto"
    extra: str = ""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.n > 1 and self.temperature == 0:
            raise ConfigError(
                f"n={self.n} samples at temperature 0 are one; leave temperature out or raise it"
            )

        if taken := [name for name in self.extra_fields if name in ASKED]:
            raise ConfigError(f"extra: {', '.join(taken)} cannot be given there; use the settings for it")

    @property
    def extra_fields(self) -> dict[str, Any]:
        """The fields of `extra`. Raises `ConfigError` if it is not a JSON object."""
        try:
            found = json.loads(self.extra or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ConfigError(f"extra must be a JSON object; received {self.extra!r}")
        return found

    @property
    def sampling_temperature(self) -> float:
        """The temperature that is sent."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.n == 1 else SAMPLING_TEMPERATURE

    def query(self, without: Collection[str] = ()) -> str:
        """Settings that differ from their defaults, as the query of a URL, but for those of some names."""
        given = [(one.name, getattr(self, one.name), one.default) for one in fields(self)]
        return urlencode([(name, x) for name, x, default in given if x != default and name not in without])


def parse_chat_url(url: str) -> tuple[tuple[Endpoint, ...], ChatSettings]:
    """The endpoints, replicas of one judge, and the settings that a URL holds.

    An `Endpoint` has the path of the API, such as "v1", in the place of a model's name.

    Raises:
        ConfigError: the URL cannot be read, or a setting is unknown, ill-typed or out of range.
    """
    if not isinstance(url, str) or " " in url or not url.isprintable():
        raise _not_understood(url, "it has blanks or control characters in it")
    scheme, separator, rest = url.removeprefix(CHAT).partition("://")
    if not url.startswith(CHAT) or scheme not in PORTS or not separator:
        raise _not_understood(url, f"the scheme is {url.partition('://')[0]!r}")
    hosts = rest.partition("/")[0].partition("?")[0]
    tail = rest[len(hosts) :]
    endpoints = tuple(_endpoint(url, f"{scheme}://{host}{tail}") for host in hosts.split(","))
    if len(set(endpoints)) < len(endpoints):
        raise _not_understood(url, "it names a replica twice")
    pairs = parse_qsl(urlsplit(tail).query, keep_blank_values=True)
    if len({name for name, _ in pairs}) < len(pairs):
        raise _not_understood(url, "it gives a setting twice")
    return endpoints, from_mapping(ChatSettings, {n: _value(n, v) for n, v in pairs}, source=url)


def _endpoint(url: str, one: str) -> Endpoint:
    try:
        parts = urlsplit(one)
        port = parts.port
    except ValueError as error:
        raise _not_understood(url, str(error)) from error
    if not parts.hostname or port == 0:
        raise _not_understood(url, "it names no host" if not parts.hostname else "nobody listens on port 0")
    if parts.username is not None or parts.fragment:
        raise _not_understood(url, "it has a user or a fragment; give a token as such")
    if not parts.path.strip("/"):
        raise _not_understood(url, "it has no path of the API")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{port or PORTS[parts.scheme]}"
    return Endpoint(wire="http", secure=parts.scheme == "https", address=address, model=parts.path.strip("/"))


def _value(name: str, text: str) -> Any:
    """The value of a setting: text where it is text, otherwise as YAML reads it."""
    hint = typing.get_type_hints(ChatSettings).get(name)
    if hint is str or hint == Read or hint == Path | None:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}={text}: the value is no valid YAML") from error


def _not_understood(url: object, reason: str) -> ConfigError:
    return ConfigError(
        f"{url!r} is not a chat endpoint's URL: {reason}; "
        "write chat+http://host:8000/v1?model=NAME&dialect=NAME"
    )
