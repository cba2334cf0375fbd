import logging
import os
import subprocess
import sys
import warnings

import pytest

from prefrm.quiet import quiet


def test_libraries_log_errors_alone_while_the_block_runs(caplog):
    logger = logging.getLogger("peft.tuners")
    with quiet():
        logger.warning("advice")
        logging.getLogger("prefrm.train").warning("ours")
        logger.error("broken")
    logger.warning("after")
    assert [record.getMessage() for record in caplog.records] == ["ours", "broken", "after"]


def test_deprecations_of_libraries_are_not_shown_and_others_are():
    with quiet():
        warnings.warn_explicit("old name", FutureWarning, "x.py", 1, module="transformers.modeling_utils")
        with pytest.raises(FutureWarning):
            warnings.warn_explicit("old name", FutureWarning, "x.py", 1, module="transformers_of_mine")
        with pytest.raises(UserWarning):
            warnings.warn_explicit("no driver", UserWarning, "x.py", 1, module="torch.cuda")


def test_a_library_that_is_told_to_be_verbose_is(monkeypatch):
    logger = logging.getLogger("transformers")
    before = logger.level
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.delenv("DATASETS_VERBOSITY", raising=False)
    with quiet():
        assert logger.level == before
        assert os.environ["DATASETS_VERBOSITY"] == "error"
        with quiet():
            assert logging.getLogger("datasets").level == logging.ERROR
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert "DATASETS_VERBOSITY" not in os.environ


@pytest.mark.parametrize("imported", ["before", "in"])
def test_a_library_is_quiet_whenever_it_is_imported(imported):
    program = """
import sys, logging
from prefrm.quiet import quiet
if sys.argv[1] == "before":
    import transformers
with quiet(), quiet():
    from transformers.utils import logging as library
    library.get_logger("transformers.x").warning("advice")
    print(list(library.tqdm(range(2)))) if sys.argv[1] == "before" else None
"""
    done = subprocess.run(
        [sys.executable, "-c", program, imported], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
