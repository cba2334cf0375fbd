"""What a name of a scorer is, by its form alone, and the judges that it leads to."""

from dataclasses import replace
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.hub import is_hub
from prefrm.scorers.files import Source, read_scorer_file

__all__ = ["is_chat", "is_scorer_file", "is_url", "leaves", "sources"]

SUFFIXES = (".yaml", ".yml")
CHAT = "chat+"


def is_url(target: Path | str) -> bool:
    """Whether `target` is the URL of a server or of a chat endpoint; a name on the Hub is not."""
    return "://" in str(target) and not is_hub(target)


def is_chat(target: Path | str) -> bool:
    """Whether `target` is the URL of a chat endpoint, such as `chat+http://host:8000/v1?model=NAME`."""
    return is_url(target) and str(target).startswith(CHAT)


def is_scorer_file(target: Path | str) -> bool:
    """Whether `target` is a YAML file that combines or calibrates scorers."""
    return not is_url(target) and not is_hub(target) and Path(target).suffix in SUFFIXES


def sources(*targets: Path | str | None) -> list[str]:
    """The bundles and URLs that names lead to, through scorer files.

    Args:
        targets: each as `open_scorer` takes it; None is left out.

    Raises:
        ConfigError: a scorer file is malformed, or leads to itself.
    """
    found = [leaf.scorer for target in targets if target is not None for leaf in leaves(target)]
    # One may be there by several criteria.
    return list(dict.fromkeys(found))


def leaves(target: Path | str) -> list[Source]:
    """As `sources`, each as its scorer file names it, with the criterion by which it judges.

    Raises `ConfigError` as `sources`.
    """
    return _leaves(Source(scorer=str(target)), ())


def _leaves(source: Source, within: tuple[Path, ...]) -> list[Source]:
    target = source.scorer
    if not is_scorer_file(target):
        return [source]
    if (file := Path(target).absolute()) in within:
        raise ConfigError(f"{target} leads to itself; a scorer file names other scorers")
    found = [leaf for one in read_scorer_file(target).scorers for leaf in _leaves(one, (*within, file))]
    return [replace(leaf, criterion=leaf.criterion or source.criterion) for leaf in found]
