"""Offline labelling: what is written, and that stopping and starting again changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prefrm import media
from prefrm.client import connect
from prefrm.errors import (
    DatasetError,
    IncompleteMatrixError,
    PrefrmError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.label import Summary, label, read_matrices, write_ranking
from prefrm.records import PreferenceGroup, write_groups
from prefrm.rewards import Combination, Criteria
from prefrm.winmatrix import FakeScorer, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


def picture(level):
    return media.encode_png(Image.new("RGB", (2, 2), (level, level, level)))


def brightness(prompt, image):
    return media.decode(image).getpixel((0, 0))[0] / 40


def make_groups(count, texts=False):
    return [
        PreferenceGroup(
            id=f"g{n}",
            prompt=f"prompt {n}",
            candidates=tuple(picture((31 * n + 60 * k) % 256) for k in range(3)),
            comparisons=(),
            completions=tuple(f"fill {(31 * n + 60 * k) % 256}" for k in range(3)) if texts else None,
        )
        for n in range(count)
    ]


class Scorer:
    """`FakeScorer` that counts the groups it judged, and raises `error` after `fail_at` of them."""

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.judged, self.fail_at, self.error = 0, fail_at, error

    def score(self, groups):
        if self.fail_at is not None and self.judged + len(groups) > self.fail_at:
            raise self.error("stopped")
        self.judged += len(groups)
        return FakeScorer(brightness, first_bonus=0.3).score(groups)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_group_is_written_with_its_matrix(tmp_path):
    groups, seen = make_groups(5), []
    summary = label(Scorer(), iter(groups), tmp_path, judge="j", batch=2, shard_size=3, progress=seen.append)
    assert summary == Summary(groups=5, pairs=15)
    assert seen == [2, 3, 5]
    assert sorted(contents(tmp_path)) == [
        "label.json",
        "win_matrices/part-00000.parquet",
        "win_matrices/part-00001.parquet",
    ]
    expected = FakeScorer(brightness, first_bonus=0.3).score([group.group() for group in groups])
    labelled = list(read_matrices(tmp_path))
    assert [(entry.id, entry.prompt) for entry in labelled] == [(g.id, g.prompt) for g in groups]
    assert all(entry.matrix.equals(matrix) for entry, matrix in zip(labelled, expected, strict=True))


@pytest.mark.parametrize("name", ["spread", "label_mass"])
def test_what_a_scorer_reports_beside_the_matrix_is_written(tmp_path, name: str):
    class Judges(Scorer):
        def score(self, groups):
            reported = {name: np.where(np.eye(3), 0, 0.25)}
            return [replace(matrix, **reported) for matrix in super().score(groups)]

    label(Judges(), make_groups(1), tmp_path, judge="j")
    (entry,) = read_matrices(tmp_path)
    assert entry.matrix.equals(Judges().score([make_groups(1)[0].group()])[0])


def test_the_reason_of_a_pair_is_written(tmp_path):
    z = np.where(np.eye(3)[::-1] == 1, np.nan, 1.0)
    matrix = WinMatrix.from_order_logits(z, pair_errors={(0, 2): "it said: perhaps"})

    class Perhaps(Scorer):
        def score(self, groups):
            return [matrix for _ in groups]

    label(Perhaps(), make_groups(1), tmp_path, judge="j")
    (entry,) = read_matrices(tmp_path)
    assert entry.matrix.equals(matrix) and entry.matrix.reason(2, 0) == "it said: perhaps"


def test_a_row_reads_without_prefrm(tmp_path):
    broken = replace(make_groups(1)[0], candidates=(picture(10), picture(200), b"GIF89a", picture(90)))
    summary = label(Scorer(), [broken], tmp_path, judge="j")
    assert summary == Summary(groups=1, pairs=6, unjudged_pairs=3, unreadable=1)
    (row,) = pq.read_table(tmp_path / "win_matrices").to_pylist()
    matrix = np.array(row["win_matrix"])
    np.testing.assert_allclose(matrix[0, 1], 1 / (1 + np.exp(190 / 40)), rtol=1e-5)
    assert np.isnan(matrix[2]).all() and np.isnan(matrix[:, 2]).all()
    assert row["valid"][2] == [False] * 4
    assert row["ranking"] == [1, 3, 0]
    np.testing.assert_allclose(row["win_rate"][0], (matrix[0, 1] + matrix[0, 3]) / 2, rtol=1e-6)
    assert row["errors"][0] == "" and "not a valid PNG or JPEG or WEBP image" in row["errors"][2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ScoringError])
def test_what_was_stopped_goes_on_without_judging_a_finished_shard_again(tmp_path, error):
    groups = make_groups(10)
    label(Scorer(), groups, tmp_path / "whole", judge="j", batch=2, shard_size=4)
    out = tmp_path / "stopped"
    with pytest.raises(error):
        label(Scorer(fail_at=7, error=error), groups, out, judge="j", batch=2, shard_size=4)
    assert [path.name for path in (out / "win_matrices").iterdir()] == ["part-00000.parquet"]
    again = Scorer()
    assert label(again, groups, out, judge="j", batch=2, shard_size=4).groups == 10
    assert again.judged == 6
    assert contents(out) == contents(tmp_path / "whole")
    third = Scorer(fail_at=0)
    assert label(third, groups, out, judge="j", batch=2, shard_size=4).groups == 10


CHILD = """
import sys, time
from prefrm.label import label
from prefrm.records import read_groups
from prefrm.winmatrix import FakeScorer

def slowly(prompt, image):
    time.sleep(0.004)
    return float(image[-20])

label(FakeScorer(slowly), read_groups(sys.argv[1], "test"), sys.argv[2], judge="j", batch=1, shard_size=5)
"""


def test_a_killed_process_leaves_whole_shards_only(tmp_path):
    """SIGKILL, which no handler sees, at a moment that nothing chose; then the same command again."""
    groups = make_groups(60)
    write_groups(groups, tmp_path / "data", "test")

    def utility(prompt, image):
        return float(image[-20])

    label(FakeScorer(utility), groups, tmp_path / "whole", judge="j", shard_size=5)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(tmp_path / "data"), str(out)]
    child = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not (out / "win_matrices" / "part-00001.parquet").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = len(list((out / "win_matrices").glob("part-*.parquet")))
    assert 2 <= done < 12
    assert len(list(read_matrices(out))) == done * 5
    subprocess.run(command, check=True, timeout=60)
    assert contents(out) == contents(tmp_path / "whole")


def test_another_judge_is_refused(tmp_path):
    label(Scorer(), make_groups(2), tmp_path, judge="bundle a")
    before = contents(tmp_path)
    with pytest.raises(DatasetError, match="labelled with judge 'bundle a', not 'bundle b'"):
        label(Scorer(), make_groups(2), tmp_path, judge="bundle b")
    assert contents(tmp_path) == before


def test_other_data_is_refused(tmp_path):
    groups = make_groups(4)
    label(Scorer(), groups, tmp_path, judge="j", shard_size=2)
    changed = [*groups[:3], replace(groups[3], prompt="another prompt")]
    scorer = Scorer()
    with pytest.raises(DatasetError, match=r"part-00001\.parquet was labelled from other data.*'g2' on"):
        label(scorer, changed, tmp_path, judge="j", shard_size=2)
    assert scorer.judged == 0


def test_a_longer_dataset_that_was_labelled_before_is_refused(tmp_path):
    label(Scorer(), make_groups(6), tmp_path, judge="j", shard_size=2)
    with pytest.raises(DatasetError, match="holds 3 shards, but these 4 groups fill 2"):
        label(Scorer(), make_groups(4), tmp_path, judge="j", shard_size=2)


def test_a_damaged_shard_is_named(tmp_path):
    label(Scorer(), make_groups(2), tmp_path, judge="j")
    shard = tmp_path / "win_matrices" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    for read in (
        lambda: label(Scorer(), make_groups(2), tmp_path, judge="j"),
        lambda: list(read_matrices(tmp_path)),
    ):
        with pytest.raises(DatasetError, match=r"part-00000\.parquet is damaged"):
            read()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_folder_with_another_label_json_is_refused(tmp_path, text):
    (tmp_path / "label.json").write_text(text)
    with pytest.raises(DatasetError, match="malformed"):
        label(Scorer(), make_groups(2), tmp_path, judge="j")


def test_raise_stops_at_a_pair_that_was_not_judged_and_names_the_record(tmp_path):
    groups = make_groups(4)
    groups[2] = replace(groups[2], candidates=(*groups[2].candidates[:2], b"GIF89a"))
    with pytest.raises(IncompleteMatrixError, match=r"record 'g2': .*not a valid PNG or JPEG or WEBP image"):
        label(Scorer(), groups, tmp_path, judge="j", on_missing="raise", shard_size=2)
    assert len(list(read_matrices(tmp_path))) == 2
    assert label(Scorer(), groups, tmp_path, judge="j", shard_size=2).unjudged_pairs == 2
    with pytest.raises(IncompleteMatrixError, match="holds 2 pairs that were neither judged"):
        label(Scorer(), groups, tmp_path, judge="j", on_missing="raise", shard_size=2)


class HalfJudged(FakeScorer):
    """Judges candidate 0 against the others, and infers the rest."""

    def __init__(self):
        super().__init__(brightness)

    def score(self, groups):
        matrices = []
        for whole in super().score(groups):
            p = whole.p.astype(float)
            z = np.log(p) - np.log(p.T)
            judged = np.full(z.shape, np.nan)
            judged[0], judged[:, 0] = z[0], z[:, 0]
            matrices.append(WinMatrix.from_order_logits(judged).with_inferred(z))
        return matrices


def test_what_was_inferred_is_written_as_inferred_and_is_not_missing(tmp_path):
    groups = make_groups(2)
    for _ in range(2):
        summary = label(HalfJudged(), groups, tmp_path, judge="j", on_missing="raise")
        assert summary == Summary(groups=2, pairs=6, inferred_pairs=2)
    expected = HalfJudged().score([group.group() for group in groups])
    labelled = list(read_matrices(tmp_path))
    assert all(entry.matrix.equals(matrix) for entry, matrix in zip(labelled, expected, strict=True))
    assert labelled[0].matrix.inferred[1, 2]


def refusable(count=20):
    """Groups of which a server refuses two, and an image of a third."""
    groups = make_groups(count)
    groups[1] = replace(groups[1], prompt="a" * 40_000)
    groups[4] = replace(groups[4], candidates=groups[4].candidates * 24)
    groups[7] = replace(groups[7], candidates=(*groups[7].candidates[:2], b"GIF89a"))
    return groups


def test_a_server_labels_as_a_local_judge_does_but_for_what_it_refuses(tmp_path):
    groups = refusable()
    label(FakeScorer(brightness), groups, tmp_path / "local", judge="j")
    with (
        background(JudgeServer(FakeScorer(brightness), ModelInfo(name="judge"))) as served,
        connect(served.grpc_url) as remote,
    ):
        summary = label(remote, groups, tmp_path / "remote", judge="j")
    # 3 pairs, the 2556 of 72 candidates, and 2 of an unreadable image.
    # Not judged: the 3 pairs of a group of 3, the 2556 of 72 candidates, and 2 of an unreadable image.
    lost = 3 + 2556 + 2
    assert summary == Summary(groups=20, pairs=57 + 2556, unjudged_pairs=lost, unreadable=3 + 72 + 1)
    pairs = zip(read_matrices(tmp_path / "local"), read_matrices(tmp_path / "remote"), strict=True)
    for n, (local, remote) in enumerate(pairs):
        assert remote.id == local.id
        if n in (1, 4):
            assert not remote.matrix.known.any()
        else:
            assert np.array_equal(remote.matrix.p, local.matrix.p, equal_nan=True)
    errors = {n: row.matrix.errors for n, row in enumerate(read_matrices(tmp_path / "remote"))}
    assert set(errors[1]) == {"a prompt may have 32768 bytes; received 40000"}
    assert set(errors[4]) == {"a group may have 64 candidates; received 72"}


def test_a_failure_of_the_whole_service_ends_the_run(tmp_path):
    with background(JudgeServer(FakeScorer(brightness), ModelInfo(name="judge"))) as served:
        for url, error in (
            (served.grpc_url.replace("judge", "other"), RequestError),
            ("grpc://127.0.0.1:1/judge", ServerUnavailableError),
        ):
            with connect(url, unavailable_timeout=0) as remote, pytest.raises(error):
                label(remote, make_groups(3), tmp_path / "out", judge="j")
    assert not (tmp_path / "out").exists()


def test_nothing_to_label_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="holds no group"):
        label(Scorer(), [], tmp_path, judge="j")
    with pytest.raises(DatasetError, match="holds no win matrices"):
        list(read_matrices(tmp_path))


def test_label_json_says_whose_labels_these_are(tmp_path):
    label(Scorer(), make_groups(1), tmp_path, judge="sha256:abc", shard_size=7)
    assert json.loads(Path(tmp_path / "label.json").read_text()) == {
        "format_version": 2,
        "judge": "sha256:abc",
        "shard_size": 7,
        "criteria": None,
    }


class Short:
    """A scorer that forgets the last group of each call."""

    def score(self, groups):
        return Scorer().score(groups)[:-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(batch=0), "batch must be at least 1; received 0"),
        (dict(shard_size=0), "shard_size must be at least 1; received 0"),
        (dict(on_missing="dorp"), "received 'dorp'"),
        (dict(groups=[]), "holds no group"),
        (dict(scorer=Short()), "answered with matrices of"),
        (dict(scorer=Scorer(fail_at=0, error=ScoringError)), "stopped"),
    ],
)
def test_a_call_that_labels_nothing_leaves_nothing(tmp_path, options, message):
    scorer, groups = options.pop("scorer", Scorer()), options.pop("groups", make_groups(2))
    with pytest.raises(PrefrmError, match=message):
        label(scorer, groups, tmp_path / "out", judge="a", **options)
    assert not (tmp_path / "out").exists()
    label(Scorer(), make_groups(2), tmp_path / "out", judge="b")


def test_a_flipped_bit_in_a_shard_is_never_another_matrix(tmp_path):
    label(Scorer(), make_groups(3), tmp_path, judge="j")
    shard = tmp_path / "win_matrices" / "part-00000.parquet"
    whole, before = shard.read_bytes(), list(read_matrices(tmp_path))
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        shard.write_bytes(damaged)
        try:
            after = list(read_matrices(tmp_path))
        except DatasetError as error:
            assert "part-00000.parquet is damaged" in str(error)
        else:
            assert [entry.id for entry in after] == [entry.id for entry in before]
            assert all(a.matrix.equals(b.matrix) for a, b in zip(after, before, strict=True))


def test_each_criterion_has_a_column_and_the_labels_are_of_the_combined_matrix(tmp_path):
    class ByCriterion:
        def score(self, groups):
            signs = [-1.0 if group.criterion == "dark" else 1.0 for group in groups]
            return [
                FakeScorer(lambda p, x, s=sign: s * brightness(p, x)).score([group])[0]
                for group, sign in zip(groups, signs, strict=True)
            ]

    criteria = Criteria(names=("", "dark"), combination=Combination(rule="lexicographic"))
    groups = make_groups(5)
    write = {"judge": "j", "criteria": criteria, "batch": 2, "shard_size": 3}
    assert label(ByCriterion(), groups, tmp_path, **write) == Summary(groups=5, pairs=15)
    assert label(ByCriterion(), groups, tmp_path, **write) == Summary(groups=5, pairs=15)
    for entry, group in zip(read_matrices(tmp_path), groups, strict=True):
        (bright,) = FakeScorer(brightness).score([group.group()])
        assert list(entry.criteria) == ["", "dark"] and entry.criteria[""].equals(bright)
        assert np.array_equal(entry.matrix.p, bright.p)
        np.testing.assert_allclose(entry.criteria["dark"].p, bright.p.T, atol=1e-6)
    (row, *_) = pq.read_table(tmp_path / "win_matrices").to_pylist()
    assert row["criteria"]["dark"]["win_rate"] == pytest.approx([1 - x for x in row["win_rate"]])
    written = write_ranking(groups, tmp_path, lambda group: [["a"], ["b"], ["c"]]).read_text().splitlines()
    assert written[0].endswith(",group,criterion,win_rate overall,win_rate dark") and len(written) == 16
    with pytest.raises(
        DatasetError, match="labelled with criteria 'lexicographic 0 of overall x 1, dark x 1'"
    ):
        label(ByCriterion(), groups, tmp_path, **{**write, "criteria": None})


def test_one_criterion_replaces_that_of_a_group(tmp_path):
    seen = []

    class Asked(Scorer):
        def score(self, groups):
            seen.extend(group.criterion for group in groups)
            return super().score(groups)

    groups = [replace(group, criterion="light") for group in make_groups(2)]
    for out, criteria, name in (("own", None, "light"), ("one", Criteria(names=("alignment",)), "alignment")):
        label(Asked(), groups, tmp_path / out, judge="j", criteria=criteria)
        assert seen[-2:] == [name] * 2
        entries = list(read_matrices(tmp_path / out))
        assert [(entry.criterion, entry.criteria) for entry in entries] == [(name, {})] * 2
        written = write_ranking(groups, tmp_path / out, lambda group: [["a"], ["b"], ["c"]])
        assert written.read_text().splitlines()[1].endswith(f",g0,{name}")


def test_a_folder_of_another_format_is_refused(tmp_path):
    label(Scorer(), make_groups(1), tmp_path, judge="j")
    claim = tmp_path / "label.json"
    claim.write_text(claim.read_text().replace('"format_version": 2', '"format_version": 1'))
    for refused in (lambda: list(read_matrices(tmp_path)), lambda: label(Scorer(), [], tmp_path, judge="j")):
        with pytest.raises(DatasetError, match="format_version 1, not 2; give another output folder"):
            refused()
