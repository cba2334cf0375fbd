"""The tables of docs/judges-published.md, from the registries of imports and of chat dialects.

    python -m prefrm.bench.published_page docs/judges-published.md

regenerates them between their marks and leaves the rest of the page as it is.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from prefrm.display import markdown_table
from prefrm.files import write_whole
from prefrm.hub import is_hub
from prefrm.imports import PUBLISHED, PublishedJudge
from prefrm.scorers.chat import DIALECTS, Dialect

__all__ = ["page_with_tables"]

HEADER = (
    "judge",
    "used here as",
    "import",
    "how exactness is shown",
    "licence of the weights",
    "accuracy, %",
)
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page_with_tables(page: str) -> str:
    """`page` with each table between `<!-- table: NAME -->` and `<!-- end -->` as it should be now.

    Raises:
        KeyError: there is no table of a name.
    """
    tables = {"imports": _imports_table(), "dialects": _dialects_table()}
    return MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[3]}", page)


def _imports_table() -> str:
    return markdown_table(HEADER, [_row(judge) for judge in PUBLISHED.values()], len(HEADER))


def _row(judge: PublishedJudge) -> list[str]:
    template = {"none": "", "optional": " [--template FILE]", "required": " --template FILE"}[judge.template]
    return [
        f"[{judge.title}]({judge.paper})",
        judge.kind + ("" if judge.is_log_odds else ", to be calibrated"),
        f"`prefrm import {judge.name} {_source(judge, template + ' --out FOLDER')}",
        judge.exactness,
        judge.licence,
        _accuracies(judge.published),
    ]


def _dialects_table() -> str:
    rows = [
        [dialect.title, f"`{dialect.name}`", "pairs" if dialect.compares else "candidates", _reading(dialect)]
        for dialect in DIALECTS.values()
    ]
    return markdown_table(("judge", "`dialect=`", "a question shows", "how the answer is read"), rows, 4)


def _reading(dialect: Dialect) -> str:
    labels = ", ".join(f"`{label}`" for label in dialect.labels)
    if dialect.values:
        return f"expectation over {labels}"
    read = f"log-probabilities of {labels}" if labels else "numbers in its text"
    return f"{read}, after reasoning" if dialect.reasons else read


def _source(judge: PublishedJudge, options: str) -> str:
    """The source and the rest of a command, which the table has between marks of code."""
    if is_hub(judge.source):
        return f"{judge.source}{options}`"
    return f"FILE{options}`, downloaded from `{judge.source}`"


def _accuracies(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in accuracies.items()) or "-"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_whole(path, page_with_tables(path.read_text(encoding="utf-8")))
