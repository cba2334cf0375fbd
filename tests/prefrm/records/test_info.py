import json

import pytest

from prefrm.errors import DatasetError
from prefrm.records import DatasetInfo, read_info, write_info

INFO = DatasetInfo(recipe="shapes", options={"seed": 1}, fingerprints={"train": "ab"})


def test_what_is_written_is_read(tmp_path):
    write_info(tmp_path, INFO)
    assert read_info(tmp_path) == INFO


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "recipe": "shapes"}'])
def test_what_is_malformed_is_named(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.json is absent or malformed"):
        read_info(tmp_path)


def test_absent(tmp_path):
    with pytest.raises(DatasetError, match="is not a dataset: it has no dataset"):
        read_info(tmp_path)


def test_another_version_is_refused(tmp_path):
    write_info(tmp_path, INFO)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 1}))
    with pytest.raises(DatasetError, match="its format is version 1; this is 2"):
        read_info(tmp_path)
