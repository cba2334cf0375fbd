"""An audit in the background, the findings that are kept, and the labels that are corrected."""

import csv
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from data_recipes.registry import get_recipe
from prefrm.app.auditing import Audit
from prefrm.app.findings import find
from prefrm.app.judges import Judges
from prefrm.data import load_groups
from prefrm.errors import DataError, DatasetError, RecordError
from prefrm.records import (
    Comparison,
    Correction,
    Corrections,
    DatasetInfo,
    PreferenceGroup,
    SplitCounts,
    fingerprint,
    read_groups,
    write_groups,
    write_info,
)
from prefrm.winmatrix import FakeScorer


class Named(FakeScorer):
    def identity(self) -> str:
        return "by length"


def groups() -> list[PreferenceGroup]:
    """Texts of three lengths; the label of every third group prefers the shorter one."""
    return [
        PreferenceGroup(
            id=f"g{n}",
            prompt=f"longer {n}",
            candidates=("a", "a" * (n + 2), "a" * (n + 3)),
            comparisons=(Comparison.preferred(0, 1) if n % 3 == 0 else Comparison.preferred(1, 0),),
        )
        for n in range(20)
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_groups(groups(), folder, "test")
    counts = SplitCounts(groups=20, candidates=60, strict=20, ties=0)
    info = DatasetInfo(
        recipe="table", options={}, fingerprints={"test": fingerprint(groups())}, splits={"test": counts}
    )
    write_info(folder, info)
    return folder


@pytest.fixture
def audit(dataset: Path, tmp_path: Path) -> Audit:
    judges = Judges({"length": lambda: nullcontext(Named(lambda prompt, text: len(text)))})
    return Audit(judges, load_groups(dataset, "test"), tmp_path / "state")


def finish(audit: Audit, judge: str, most: int) -> None:
    audit.start(judge, most)
    end = time.monotonic() + 60
    while (progress := audit.progress(judge)) is None or progress.running:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_findings_are_kept_once_with_the_judge_that_gave_them(audit: Audit, dataset: Path) -> None:
    assert audit.progress("length") is None
    finish(audit, "length", 10)
    progress = audit.progress("length")
    assert progress is not None and (len(progress.groups), progress.total, progress.error) == (10, 10, "")
    found = find(progress.groups, "disagreement")
    assert [finding.record for finding in found] == ["g9", "g6", "g3", "g0"]
    for _ in range(2):
        audit.keep("length", found[0], "the label is wrong", "ann")
    audit.keep("length", found[1], "", "")
    with audit.findings.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["record"], first["candidates"], first["note"], first["by"]) == (
        "g9",
        "1 0",
        "the label is wrong",
        "ann",
    )
    assert (second["record"], second["identity"]) == ("g6", "by length")
    again = Audit(Judges({}), load_groups(dataset, "test"), audit.findings.parent)
    assert again.is_kept("length", found[0]) and not again.is_kept("length", found[2])


def test_a_corrected_label_stands_in_an_overlay(audit: Audit, dataset: Path, tmp_path: Path) -> None:
    before = (dataset / "test.parquet").read_bytes()
    finish(audit, "length", 20)
    audit.corrections.add(Correction(record="g9", first=1, second=0, p=1.0, note="longer", by="ann"))
    audit.corrections.add(Correction(record="g3", first=0, second=1, p=0.5))
    audit.corrections.add(Correction(record="g3", first=1, second=0, p=None))
    audit.corrections.add(Correction(record="g0", first=2, second=1, p=1.0))
    assert audit.record("g9").comparisons == (Comparison.preferred(1, 0),)
    assert audit.record("g3").comparisons == ()
    assert (dataset / "test.parquet").read_bytes() == before

    built = get_recipe("corrected").build(
        tmp_path / "out", source=str(dataset), corrections=audit.corrections_file
    )
    assert built.groups == {"test": 20}
    after = {group.id: group.comparisons for group in read_groups(tmp_path / "out", "test")}
    own = {group.id: group.comparisons for group in groups()}
    assert {id for id in own if after[id] != own[id]} == {"g0", "g3", "g9"}
    assert after["g0"] == (*own["g0"], Comparison.preferred(2, 1))


def test_a_judge_that_cannot_answer_stops_the_audit_with_its_reason(audit: Audit) -> None:
    finish(audit, "absent", 5)
    progress = audit.progress("absent")
    assert progress is not None and "no judge 'absent'" in progress.error
    with pytest.raises(DataError, match="no judged record"):
        audit.record("g19")


def test_corrections_that_do_not_fit_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        Correction(record="g0", first=1, second=1, p=1.0)
    with pytest.raises(RecordError):
        Correction(record="g0", first=0, second=1, p=1.5)
    path = tmp_path / "corrections.csv"
    Corrections(path).add(Correction(record="elsewhere", first=0, second=1, p=1.0))
    with pytest.raises(DatasetError, match=r"corrects 1 records that .* lacks, such as 'elsewhere'"):
        get_recipe("corrected").build(tmp_path / "out", source=str(dataset), corrections=path)
    path.write_text("record,first,second,p,note,by\ng0,0,one,1,,\n")
    with pytest.raises(DatasetError, match=r"corrections\.csv, line 2"):
        Corrections(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="lacks the columns"):
        Corrections(path)
