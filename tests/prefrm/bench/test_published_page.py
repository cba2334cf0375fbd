"""docs/judges-published.md has the rows of the registry."""

import re
from pathlib import Path

import pytest

from prefrm.bench.published_page import page_with_tables
from prefrm.imports import PUBLISHED
from prefrm.scorers.chat import DIALECTS

PAGE = Path(__file__).parents[3] / "docs" / "judges-published.md"


def test_the_page_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tables(page), f"run `python -m prefrm.bench.published_page {PAGE}`"
    page = re.sub(" +", " ", page)
    for judge in PUBLISHED.values():
        assert f"| [{judge.title}]({judge.paper}) |" in page
        assert judge.licence in page and judge.exactness in page
    for dialect in DIALECTS.values():
        assert f"| {dialect.title} | `{dialect.name}` |" in page


def test_a_table_replaces_an_older_one_and_nothing_else():
    old = "before\n<!-- table: imports -->\n| old |\n<!-- end -->\nafter\n"
    new = page_with_tables(old)
    assert new.startswith("before\n<!-- table: imports -->\n| judge ") and "| old |" not in new
    assert new.endswith("|\n<!-- end -->\nafter\n") and page_with_tables(new) == new
    with pytest.raises(KeyError):
        page_with_tables("<!-- table: other -->\n<!-- end -->\n")
