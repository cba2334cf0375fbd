"""The engine: win matrices from a judge on this machine. Needs torch."""

from prefrm.engine.engine import DEFAULT_BATCH_SIZE, Engine

__all__ = ["DEFAULT_BATCH_SIZE", "Engine"]
