"""Kinds of servers behind an OpenAI-compatible endpoint: which fields beyond OpenAI's each of them takes.

An unknown field is refused by some servers and ignored by others, and a missing one is filled from the
model's own generation configuration. So the neutral value of every penalty and filter is always sent, under
the names that the server knows; where it is unknown, a field that it refuses is left out from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prefrm.errors import ConfigError

__all__ = ["SERVERS", "Server", "server_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What one kind of server can do.

    Attributes:
        name: as `server=` takes it.
        owners: values of `owned_by` in its list of models.
        neutral: fields that turn penalties and filters off, whatever the model's generation configuration.
        token_ids: whether it returns log-probabilities of named tokens (`logprob_token_ids`), with the ids
            from `/tokenize`.
        continues: whether it continues an assistant's message (`continue_final_message`).
    """

    name: str
    owners: tuple[str, ...] = ()
    neutral: Mapping[str, float]
    token_ids: bool = False
    continues: bool = False


SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        # vLLM 0.33, vllm/entrypoints/openai/chat_completion/protocol.py
        Server(
            name="vllm",
            owners=("vllm",),
            neutral={"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0},
            token_ids=True,
            continues=True,
        ),
        # prefrm serve, serving/wire/chat_schema.py
        Server(name="prefrm", owners=("prefrm",), neutral={}, continues=True),
        # SGLang 0.5, python/sglang/srt/entrypoints/openai/protocol.py
        Server(
            name="sglang",
            owners=("sglang",),
            neutral={"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0},
            continues=True,
        ),
        # platform.openai.com/docs/api-reference/chat
        Server(
            name="openai",
            owners=("openai", "openai-internal", "system"),
            neutral={"frequency_penalty": 0.0, "presence_penalty": 0.0},
        ),
        # Such as `transformers serve` 5.23, which makes a repetition penalty of 1 of a frequency penalty of
        # 0, and ignores logprobs and n; or a gateway before any of those above.
        Server(
            name="other",
            neutral={"frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0},
        ),
    )
}
"""Every kind of server by its name."""


def server_of(name: str, owner: str) -> Server:
    """The server of that name or, for "auto", the one whose models have that owner; else "other".

    Raises:
        ConfigError: there is no such server.
    """
    if name == "auto":
        return next((one for one in SERVERS.values() if owner in one.owners), SERVERS["other"])
    if name not in SERVERS:
        raise ConfigError(f"server must be auto or one of {', '.join(SERVERS)}; received {name!r}")
    return SERVERS[name]
