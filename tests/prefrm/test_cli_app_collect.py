"""The options of `prefrm app` for the page Collect."""

from pathlib import Path

import pytest

from prefrm.cli.collect import Collecting
from prefrm.errors import ConfigError


def test_options_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--pairs-of, --people without --collect"):
        Collecting(pairs_of="data", people=2).check()
    with pytest.raises(ConfigError, match=r"--collect needs the dataset .*--pairs-of DATA"):
        Collecting(collect=Path("answers.sqlite")).check()
    Collecting().check()
    Collecting(collect=Path("answers.sqlite"), pairs_of="data").check()
