"""The addresses of a server that is ready: printed, and written to a file for other programs."""

import json
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.errors import ConfigError
from prefrm.files import write_whole
from serving.observing.writer import write_all

if TYPE_CHECKING:
    from serving.server import Addresses

__all__ = ["announce", "remove_address_file"]

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = 1
# How long the event loop waits for the addresses to be printed, in seconds.
PRINT_S = 0.2


def remove_address_file(address_file: Path) -> None:
    """Remove the address file of an earlier server, which must not be taken for this one's.

    Raises:
        ConfigError: its folder does not exist, or it is a folder itself.
    """
    if not address_file.parent.is_dir():
        raise ConfigError(f"--address-file {address_file}: {address_file.parent} is not a folder")
    if address_file.is_dir():
        raise ConfigError(f"--address-file {address_file} is a folder; name a file")
    address_file.unlink(missing_ok=True)


def announce(addresses: "Addresses", address_file: Path | None) -> None:
    """Print every model's addresses, those of metrics and documentation, and write them to a file.

    The file is written atomically.

    Raises:
        ConfigError: it cannot be written.
    """
    if address_file is not None:
        written: dict[str, Any] = {
            "http": addresses.http,
            "grpc": addresses.grpc,
            "metrics": addresses.metrics,
            "models": addresses.models,
        }
        text = json.dumps(written | ({"secure": True} if addresses.secure else {}))
        try:
            write_whole(address_file, text + "\n")
        except OSError as error:
            raise ConfigError(f"--address-file {address_file} cannot be written: {error.strerror}") from error
    lines = [f"ready: {' '.join(addresses.model_urls(model))}" for model in addresses.models]
    lines += [f"metrics: {addresses.metrics_url}", f"docs: {addresses.docs_url}"]
    _print_apart("\n".join(lines) + "\n")


def _print_apart(text: str) -> None:
    """Print in another thread: a full pipe on standard output must not block the event loop."""

    def write() -> None:
        try:
            # Past `sys.stdout`, whose lock a blocked thread would hold while the process ends.
            write_all(STANDARD_OUTPUT, text.encode())
        except OSError as error:
            logger.warning("standard output cannot be written: %s; the addresses are above", error.strerror)

    if sys.stdout is None:
        return
    printing = threading.Thread(target=write, name="announcement", daemon=True)
    printing.start()
    printing.join(PRINT_S)
