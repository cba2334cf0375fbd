"""Which token goes to which URL of a scorer file: none but its own."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from prefrm.errors import ConfigError
from prefrm.scorers.files import Source
from prefrm.scorers.targets import is_url, leaves

__all__ = ["with_own_tokens"]

T = TypeVar("T")


def with_own_tokens(connect: Callable[..., T], target: Path | str) -> Callable[[str], T]:
    """`connect` for the URLs that `target` leads to, each with the token of its `token_env` or with none.

    A target that leads to one URL, without a `token_env`, is opened as `connect` opens it.

    Args:
        connect: takes a URL, and `token=`, which replaces its own.
        target: as `prefrm.scorers.open_scorer` takes it.

    Raises:
        ConfigError: a scorer file is malformed, or a variable that it names is empty.
    """
    urls = [leaf for leaf in leaves(target) if is_url(leaf.scorer)]
    if len(urls) <= 1 and not any(leaf.token_env for leaf in urls):
        return connect
    tokens = {leaf.scorer: _token(leaf) for leaf in urls}
    return partial(_connected, connect, tokens)


def _token(leaf: Source) -> str | None:
    if leaf.token_env is None:
        return None
    if token := os.environ.get(leaf.token_env):
        return token
    raise ConfigError(f"token_env of {leaf.scorer}: the variable {leaf.token_env} is not set")


def _connected(connect: Callable[..., T], tokens: Mapping[str, str | None], url: str) -> T:
    return connect(url, token=tokens[url])
