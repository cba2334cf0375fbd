"""Forging bundles: what somebody else may put into one, with hashes that fit."""

import hashlib
import json
from typing import Any


def forged(raw: dict[str, Any]) -> str:
    """The text of a manifest with these fields, whatever they are, and the digest that they have."""
    fields = {key: value for key, value in raw.items() if key not in ("digest", "format_version")}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps(raw | {"digest": digest}, indent=2, sort_keys=True) + "\n"
