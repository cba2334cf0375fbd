"""The model card of an imported judge."""

from typing import Any

import yaml

from prefrm.eval import calibration_line, results_section
from prefrm.hub import is_hub
from prefrm.imports.registry import PublishedJudge
from prefrm.manifest import ImportRecord

__all__ = ["import_card"]

HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}
"""Names of licences on the Hub; any other one is "other" there."""


def import_card(published: PublishedJudge, record: ImportRecord) -> str:
    """The Hub's metadata, then where the judge comes from and what its numbers mean."""
    meaning = (
        "its utilities or verdicts are log-odds by its training loss"
        if published.is_log_odds
        else "its probabilities mean nothing before a calibration: `prefrm calibrate`"
    )
    lines = [
        "---",
        yaml.safe_dump(_metadata(published, record), sort_keys=False).strip(),
        "---",
        "",
        f"# {published.title}",
        "",
        f"Imported by prefrm ({published.kind}). Says which of several images answers a prompt better.",
        "",
        f"- source: {_at(record.source, record.revision)}",
        *([] if record.base is None else [f"- base: {_at(record.base, record.base_revision)}"]),
        f"- paper: {published.paper}",
        f"- licence of the weights: {record.licence}",
        f"- {meaning}",
        calibration_line(None),
        "",
        results_section(None, None),
        "## Use",
        "",
        "```python",
        "from prefrm.scorers import open_scorer",
        "",
        'with open_scorer("path/to/this/folder") as judge:',
        "    matrices = judge.score([group])",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _at(name: str, revision: str | None) -> str:
    return name if revision is None else f"{name} at {revision}"


def _metadata(published: PublishedJudge, record: ImportRecord) -> dict[str, Any]:
    """The fields by which the Hub lists a model."""
    licence = HUB_LICENCES.get(record.licence)
    return {
        **({"license": licence} if licence else {"license": "other", "license_name": record.licence}),
        **({"base_model": record.source.removeprefix("hf://")} if is_hub(record.source) else {}),
        "library_name": "prefrm",
        "tags": ["prefrm", "preference-judge", "reward-model", published.name],
    }
