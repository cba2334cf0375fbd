"""`prefrm score`, `eval` and `label` over a URL, and what they say when things go wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prefrm.bundle import read_manifest, write_bundle
from prefrm.cli import run
from prefrm.cli.shared import require_judge
from prefrm.errors import OutOfMemoryError
from prefrm.eval import require_readable
from prefrm.label import read_matrices
from prefrm.protocol import BUNDLE_PARAMETER
from prefrm.records import Comparison, DatasetInfo, PreferenceGroup, SplitCounts, write_groups, write_info
from prefrm.scorers import ScorerFile, Source, write_scorer_file
from prefrm.winmatrix import FakeScorer, Group, Inputs, WinMatrix
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer


def brightness(prompt: str, image: bytes) -> float:
    if image == b"broken":
        raise ValueError("the image cannot be read")
    return sum(image) % 101 / 30


def serving(digest: str) -> JudgeServer:
    return JudgeServer(FakeScorer(brightness), ModelInfo(name="judge", facts={BUNDLE_PARAMETER: digest}))


@pytest.fixture(scope="module")
def served() -> Iterator[Addresses]:
    with background(serving("a" * 64)) as addresses:
        yield addresses


@pytest.fixture
def groups(png: Callable[..., bytes]) -> list[PreferenceGroup]:
    return [
        PreferenceGroup(
            id=f"g{n}",
            prompt="p",
            candidates=(png(n), png(n + 10), png(n + 20)),
            comparisons=(Comparison.preferred(0, 1),),
        )
        for n in range(3)
    ]


@pytest.fixture
def dataset(tmp_path: Path, groups: list[PreferenceGroup]) -> Path:
    write_groups(groups, tmp_path / "data", "test")
    return tmp_path / "data"


@pytest.fixture
def images(tmp_path: Path, png: Callable[..., bytes]) -> list[str]:
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for n, path in enumerate(paths):
        path.write_bytes(png(n))
    return [str(path) for path in paths]


def label(url: str, dataset: Path, out: Path, *options: str) -> int:
    return run(["label", url, str(dataset), "--split", "test", "--out", str(out), *options])


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_eval_over_a_url(
    served: Addresses, wire: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = getattr(served, f"{wire}_url")
    assert run(["eval", url, str(dataset), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["pairs"] == 3


def test_eval_against_another_judge(
    served: Addresses, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other judge prefers what this one does not, and both are served."""
    darkness = JudgeServer(FakeScorer(lambda p, i: -brightness(p, i)), ModelInfo(name="judge"))
    out = tmp_path / "out"
    with background(darkness) as other:
        assert (
            run(["eval", served.grpc_url, str(dataset), "--against", other.http_url, "--out", str(out)]) == 0
        )
    numbers = json.loads((out / "report.json").read_text())
    against = numbers["against"]
    assert against["judge"] == other.http_url
    mine = numbers["metrics"]["accuracy"]["value"]
    theirs = against["evaluation"]["metrics"]["accuracy"]["value"]
    assert against["pair_accuracy"]["value"] == pytest.approx(mine - theirs)
    assert against["differ"] == against["pairs"] == 3
    text = (out / "report.md").read_text()
    assert f"## Against `{other.http_url}`" in text
    assert "Their verdicts differ on 3 of 3 pairs." in text
    assert (out / "against.png").is_file()
    assert f"against {other.http_url}: pair accuracy " in capsys.readouterr().out


class JudgeOf(FakeScorer):
    """Reads what it is made for."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(brightness)
        self._inputs = inputs

    def inputs(self) -> Inputs:
        return self._inputs


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (Inputs(kinds=("video",)), "the candidates are images; this judge reads videos"),
        (Inputs(context=True, needs_context=True), "the group has no context image, which this judge needs"),
        (
            Inputs(criterion=True, needs_criterion=True),
            "the group has no criterion, which this judge needs",
        ),
    ],
)
def test_eval_refuses_a_judge_that_reads_no_group_before_anything_is_scored(
    inputs: Inputs, reason: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On either side, over either wire, and as a member of an ensemble whose other member reads all."""
    scored: list[bytes] = []
    remembering = JudgeServer(FakeScorer(lambda p, i: scored.append(i) or 0.0), ModelInfo(name="judge"))
    another = JudgeServer(JudgeOf(inputs), ModelInfo(name="judge"))
    command = [str(dataset), "--out", str(tmp_path / "out")]
    both = str(tmp_path / "both.yaml")
    with background(remembering) as first, background(another) as other:
        members = tuple(Source(scorer=one.grpc_url) for one in (first, other))
        write_scorer_file(ScorerFile(scorers=members), Path(both))
        names = {other.grpc_url: "", other.http_url: "", both: f"{other.grpc_url}: "}
        for name, member in names.items():
            expected = f"{name} can read no group of the split 'test' of {dataset}: {member}{reason}"
            assert run(["eval", first.grpc_url, *command, "--against", name]) == 2
            assert expected in capsys.readouterr().err
        assert run(["eval", both, *command, "--against", first.grpc_url]) == 2
        assert expected in capsys.readouterr().err
    assert not scored


def test_a_member_that_has_a_criterion_needs_none_of_the_group(dataset: Path, tmp_path: Path) -> None:
    judge = JudgeServer(JudgeOf(Inputs(criterion=True, needs_criterion=True)), ModelInfo(name="judge"))
    path = tmp_path / "hue.yaml"
    with background(judge) as served:
        members = tuple(Source(scorer=served.grpc_url, criterion=name) for name in ("hue", "size"))
        write_scorer_file(ScorerFile(scorers=members), path)
        inputs = require_judge(str(path))
    assert list(inputs) == [member.name for member in members]
    require_readable(str(path), inputs, dataset, "test")


def test_ensembles_are_compared_and_label(
    served: Addresses, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of a judge and its opposite, against the judge; in labels it is named by its members."""
    darkness = JudgeServer(FakeScorer(lambda p, i: -brightness(p, i)), ModelInfo(name="judge"))
    path, out = tmp_path / "both.yaml", tmp_path / "out"
    with background(darkness) as other:
        sources = (Source(scorer=served.grpc_url, weight=2.0), Source(scorer=other.http_url))
        write_scorer_file(ScorerFile(scorers=sources), path)
        assert run(["eval", str(path), str(dataset), "--against", served.grpc_url, "--out", str(out)]) == 0
        against = json.loads((out / "report.json").read_text())["against"]
        assert (against["pairs"], against["differ"]) == (3, 0)
        capsys.readouterr()
        assert run(["eval", str(path), str(dataset), "--amend"]) == 2
        assert "--amend writes into a bundle's folder; received" in capsys.readouterr().err
        assert label(str(path), dataset, tmp_path / "labels") == 0
        said = json.loads((tmp_path / "labels" / "label.json").read_text())["judge"]
        assert said == f"mean of {'a' * 64} x 2; {other.http_url} x 1"
        (entry, *_) = read_matrices(tmp_path / "labels")
        assert entry.matrix.spread is not None and entry.matrix.spread[0, 1] > 0


def test_eval_fits_on_the_validation_split_and_says_where_there_is_none(
    served: Addresses,
    dataset: Path,
    groups: list[PreferenceGroup],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["eval", served.grpc_url, str(dataset), "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert "nothing was fitted: the dataset has no split 'validation'" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["thresholds"] is None and "recalibrated" not in numbers
    text = (tmp_path / "out" / "report.md").read_text()
    assert "there is none: the dataset has no split 'validation'." in text
    write_groups([replace(group, prompt="another") for group in groups], dataset, "validation")
    assert run(command) == 0
    assert "tie calibrated accuracy" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["thresholds"]["split"] == "validation" and numbers["thresholds"]["pairs"] == 3
    assert numbers["recalibrated"]["applied"]["parameters"]["temperature"] > 0


def test_eval_shows_a_judge_in_a_published_column(
    served: Addresses, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the recipe of the dataset, or by name."""
    out = tmp_path / "out"
    command = ["eval", served.grpc_url, str(dataset), "--out", str(out)]
    assert run([*command, "--definition", "mmrb2"]) == 0
    assert "Gemini 3 Pro 0.744" in capsys.readouterr().out
    assert list(json.loads((out / "report.json").read_text())["columns"]) == ["mmrb2"]
    write_info(dataset, DatasetInfo(recipe="hpdv3", options={}, fingerprints={}))
    assert run(command) == 0
    assert "published on HPDv3 test: HPSv3 0.769, PickScore 0.656" in capsys.readouterr().out
    numbers = json.loads((out / "report.json").read_text())
    column = numbers["columns"]["hpdv3"]
    assert column["this_judge"] == numbers["metrics"]["published"]["hpdv3"]
    assert column["this_judge"]["pairs"] == 3 and column["judges"]["HPSv3"] == 0.769
    text = re.sub(" +", " ", (out / "report.md").read_text())
    assert "## Published: `hpdv3`" in text and "| HPSv3 | 0.769 |" in text and "**this judge**" in text
    assert "pickapic" not in numbers["metrics"]["published"]
    counts = SplitCounts(groups=1, candidates=2, strict=1, ties=0, left_out={"also in b": 3}, complete=False)
    write_info(dataset, DatasetInfo(recipe="hpdv3", options={}, fingerprints={}, splits={"test": counts}))
    assert run(command) == 0
    shown, why = capsys.readouterr()
    assert "HPSv3" not in shown and "it is not complete: left out: 3 also in b; --definition NAME" in why
    assert "columns" not in json.loads((out / "report.json").read_text())


@pytest.fixture
def judging_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(*args: object, **kwargs: object) -> None:
        raise AssertionError("a group was judged")

    monkeypatch.setattr("prefrm.eval.study.evaluate", judged)


EVAL_MISTAKES = {
    "no such split": (["--split", "nowhere"], "nowhere.parquet does not exist; splits found"),
    "no such validation split": (["--validation", "nowhere"], "nowhere.parquet does not exist; splits found"),
    "fitted on the test split": (["--validation", "test"], "cannot be fitted on 'test'"),
    "against no bundle": (["--against", "nowhere"], "nowhere is not a bundle"),
    "against nobody": (["--against", "grpc://127.0.0.1:9/judge"], "127.0.0.1:9"),
    "an unknown definition": (["--definition", "hpdv4"], "a definition is one of hpdv3"),
    "a threshold from nowhere": (["--definition", "pickapic"], "pickapic needs a tie threshold"),
    "a served judge has no card": (["--amend"], "--amend writes into a bundle's folder"),
}


@pytest.mark.parametrize("name", EVAL_MISTAKES)
def test_a_mistake_is_said_before_anything_is_judged(
    served: Addresses,
    name: str,
    dataset: Path,
    tmp_path: Path,
    judging_is_an_error: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, message = EVAL_MISTAKES[name]
    assert run(["eval", served.grpc_url, str(dataset), "--out", str(tmp_path / "out"), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_report_goes_is_found_before_anything_is_judged(
    served: Addresses,
    dataset: Path,
    tmp_path: Path,
    judging_is_an_error: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert run(["eval", served.grpc_url, str(dataset), "--out", str(taken)]) == 2
    error = capsys.readouterr().err
    assert error == (f"prefrm: --out {taken} cannot be written: Not a directory; choose another path\n")


def test_eval_amends_a_bundle_and_leaves_its_weights(
    served: Addresses,
    judge: object,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bundle"
    before = write_bundle(
        folder, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n\nfacts\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.png").write_bytes(b"no plot of this report")
    assert run(["eval", str(folder), str(dataset), "--out", str(out)]) == 0
    assert read_manifest(folder) == before
    assert run(["eval", str(folder), str(dataset), "--out", str(out), "--amend"]) == 0
    after = read_manifest(folder)
    assert after.metrics["metrics"]["accuracy"]["pairs"] == 3
    assert after.digest != before.digest
    card = (folder / "README.md").read_text()
    assert card.startswith("# A judge\n\nfacts\n\n## Results\n\nOn the split `test`:")
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "accuracy.png",
        "order_gap.png",
        "reliability.png",
    }
    said = ("README.md", "plots/")
    weights = {path: digest for path, digest in before.files.items() if not path.startswith(said)}
    assert {path: digest for path, digest in after.files.items() if not path.startswith(said)} == weights
    assert f"amended: {after.describe()}\n" in capsys.readouterr().err
    again = ["eval", str(folder), str(dataset), "--out", str(out), "--amend", "--against", served.grpc_url]
    assert run(again) == 0
    assert (out / "against.png").is_file()
    assert (folder / "README.md").read_text() == card
    assert read_manifest(folder) == after


def test_labelling_goes_on_at_another_address_of_the_same_judge(
    served: Addresses, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    assert label(served.grpc_url, dataset, out) == 0
    assert json.loads((out / "label.json").read_text())["judge"] == "a" * 64
    first = capsys.readouterr().out
    with background(serving("a" * 64)) as moved:
        assert label(moved.http_url, dataset, out) == 0
    assert capsys.readouterr().out == first


def test_labelling_refuses_another_judge_at_the_same_address(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with background(serving("a" * 64)) as before:
        assert label(before.grpc_url, dataset, tmp_path / "labels") == 0
    port = int(before.grpc.rpartition(":")[2])
    other = JudgeServer(
        FakeScorer(brightness), ModelInfo(name="judge", facts={BUNDLE_PARAMETER: "b" * 64}), grpc_port=port
    )
    with background(other) as after:
        assert after.grpc_url == before.grpc_url
        assert label(after.grpc_url, dataset, tmp_path / "labels") == 2
    assert "was labelled with judge 'aaa" in capsys.readouterr().err


def test_labelling_counts_and_names_what_was_not_judged(
    served: Addresses,
    dataset: Path,
    groups: list[PreferenceGroup],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = replace(groups[0], candidates=(groups[0].candidates[0], groups[0].candidates[1], b"GIF89a"))
    missing = replace(groups[1], candidates=(groups[1].candidates[0], groups[1].candidates[1], None))
    write_groups([first, missing, groups[2]], dataset, "test")
    assert label(served.grpc_url, dataset, tmp_path / "labels", "--select", "all") == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "record 'g0', candidate 2 was not judged: not a valid PNG or JPEG or WEBP image but GIF; "
        "convert it to PNG\n"
    )
    out = captured.out.splitlines()
    assert out[0] == "3 groups, 5 pairs judged, 4 not judged"
    table = tmp_path / "labels" / "diffusion_dpo"
    assert out[1] == f"5 pairs of images for Diffusion-DPO's train.py: {table}"
    assert out[2] == "no table for TRL's DPOTrainer: the dataset has no texts"
    assert out[3] == "left out: 4 not judged"
    assert pq.read_metadata(table / "train.parquet").num_rows == 5


def test_labelling_says_how_many_pairs_are_within_the_margin(
    served: Addresses, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(served.grpc_url, dataset, tmp_path / "labels", "--min-margin", "0.99") == 0
    assert "left out: 3 not beyond the margin\n" in capsys.readouterr().out


@pytest.mark.parametrize("margin", ["1", "-0.1", "nan"])
def test_a_margin_out_of_range_is_said_before_anything_is_judged(
    margin: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = "grpc://127.0.0.1:9/judge"
    assert label(nobody, dataset, tmp_path / "labels", f"--min-margin={margin}") == 2
    assert "--min-margin must be in [0, 1)" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_a_plot_into_no_folder_is_said_before_anything_is_judged(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "nowhere" / "x.png"
    assert run(["score", "grpc://127.0.0.1:9/judge", "--prompt", "p", *images, "--plot", str(plot)]) == 2
    assert f"{plot.parent} is not a folder" in capsys.readouterr().err


UNWRITABLE = {
    "score": ["--prompt", "p", "{0}", "{1}", "--plot", "/proc/x.png"],
    "eval": ["{data}", "--out", "/proc/x"],
    "label": ["{data}", "--split", "test", "--out", "/proc/x"],
}


@pytest.mark.parametrize("command", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_refused_before_anybody_is_asked(
    command: str, images: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part.format(*images, data=dataset) for part in UNWRITABLE[command]]
    assert run([command, "grpc://127.0.0.1:9/judge", *options]) == 2
    error = capsys.readouterr().err
    assert "/proc/x" in error and "cannot be written" in error and error.count("\n") == 1


class Silent:
    """A judge that answers nothing."""

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        return [WinMatrix.missing(["the image\nis blank"] * len(group.candidates)) for group in groups]


NOTHING_JUDGED = {
    "score": ["--prompt", "p", "{0}", "{1}"],
    "score as JSON": ["--prompt", "p", "{0}", "{1}", "--json"],
    "eval": ["{data}", "--out", "{out}"],
    "label": ["{data}", "--split", "test", "--out", "{out}"],
}


def test_a_group_beyond_the_memory_is_not_judged(
    bundle: Path, images: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(self: object, groups: object) -> None:
        raise OutOfMemoryError("the device is full")

    monkeypatch.setattr("prefrm.engine.Engine.score", score)
    assert run(["score", str(bundle), *images, "--prompt", "p"]) == 1
    assert "nothing was judged: " in (error := capsys.readouterr().err) and "the device is full" in error


@pytest.mark.parametrize("name", NOTHING_JUDGED)
def test_nothing_judged_is_status_1(
    name: str, images: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part.format(*images, data=dataset, out=tmp_path / "out") for part in NOTHING_JUDGED[name]]
    with background(JudgeServer(Silent(), ModelInfo(name="judge"))) as silent:
        assert run([name.split()[0], silent.http_url, *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("prefrm: nothing was judged: ")
    if name == "score":
        assert captured.out.count("not judged") == 2
    if name == "score as JSON":
        assert json.loads(captured.out)["ranking"] == []


def test_files_of_one_name_are_told_apart_by_their_folders(
    served: Addresses, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [tmp_path / folder / "0.png" for folder in "ab"]
    for path, image in zip(same, images, strict=True):
        path.parent.mkdir()
        path.write_bytes(Path(image).read_bytes())
    assert run(["score", served.http_url, "--prompt", "p", *map(str, same)]) == 0
    out = capsys.readouterr().out
    assert "a/0.png" in out and "b/0.png" in out


def test_a_served_judge_decides_its_device_itself(
    served: Addresses, images: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While `--against` may name a bundle on this machine."""
    assert run(["score", served.http_url, "--prompt", "p", *images, "--device", "cpu"]) == 2
    assert "--device: for a bundle on this machine" in capsys.readouterr().err
    against = ["--against", "nowhere", "--dtype", "float32"]
    assert run(["eval", served.http_url, str(dataset), "--out", str(tmp_path / "out"), *against]) == 2
    assert "nowhere is not a bundle" in capsys.readouterr().err


DEVICES = {
    "score": ["--prompt", "p", "{0}", "{1}"],
    "eval": ["{data}", "--out", "{out}"],
    "label": ["{data}", "--split", "test", "--out", "{out}"],
}


@pytest.mark.parametrize("command", DEVICES)
def test_a_bundle_is_loaded_onto_the_device_that_was_named(
    command: str,
    bundle: Path,
    images: list[str],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [part.format(*images, data=dataset, out=tmp_path / "out") for part in DEVICES[command]]
    assert run([command, str(bundle), *options, "--device", "nowhere:1"]) == 2
    assert "prefrm: device 'nowhere:1' cannot be used" in capsys.readouterr().err


def test_a_bundle_is_loaded_in_the_type_that_was_named(
    bundle: Path, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {}
    for dtype in ("auto", "float32", "bfloat16"):
        assert run(["score", str(bundle), "--prompt", "p", *images, "--json", "--dtype", dtype]) == 0
        answers[dtype] = capsys.readouterr().out
    assert answers["auto"] == answers["float32"] != answers["bfloat16"]


def test_a_plot_may_have_a_suffix_in_capitals(served: Addresses, images: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "X.PNG"
    assert run(["score", served.http_url, "--prompt", "p", *images, "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_an_uncalibrated_judge_is_called_so(
    judge: object, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n")
    assert run(["score", str(folder), "--prompt", "p", *images, "--json"]) == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert f"judge: {read_manifest(folder).describe()}\n" in captured.err
    assert "uncalibrated" in captured.err


def test_a_missing_extra_is_one_line(bundle: Path, images: list[str]) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from prefrm.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "score", str(bundle), "--prompt", "p", *images]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "torch is not installed" in done.stderr.splitlines()[-1]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("prefrm ")


class Sleepy:
    """Says when it was asked, and takes a minute."""

    def __init__(self) -> None:
        self.asked = False

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.asked = True
        time.sleep(60)
        return []


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_ctrl_c_ends_a_client_with_one_line(wire: str, images: list[str]) -> None:
    scorer = Sleepy()
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=Limits(drain_s=0.1))) as addresses:
        url = getattr(addresses, f"{wire}_url")
        command = [sys.executable, "-m", "prefrm", "score", url, "--prompt", "p", *images]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            try:
                end = time.monotonic() + 60
                while not scorer.asked:
                    assert running.poll() is None and time.monotonic() < end
                    time.sleep(0.01)
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=20)
            finally:
                running.kill()
    assert (running.returncode, out, err) == (130, "", "prefrm: interrupted\n")


@pytest.fixture
def bundle(judge: object, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle(folder, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n")
    return folder


def test_a_budget_of_pairs_is_judged_and_the_rest_inferred(
    bundle: Path, tmp_path: Path, png: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for n, path in enumerate(paths):
        path.write_bytes(png(n))
    command = ["score", str(bundle), "--prompt", "p", *map(str, paths), "--json"]
    assert run([*command, "--pairs", "6"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(map(sum, answer["valid"])) == 5 + 2 * 6
    assert all(0 <= p <= 1 for row in answer["win_matrix"] for p in row)
    # At least as many as connect all candidates.
    assert run([*command, "--pairs", "3"]) == 0
    assert sum(map(sum, json.loads(capsys.readouterr().out)["valid"])) == 5 + 2 * 4


def test_a_budget_is_the_servers_own(
    served: Addresses, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["score", served.http_url, "--prompt", "p", *images, "--pairs", "3"]) == 2
    assert "give it to `prefrm serve`" in capsys.readouterr().err


def test_labels_of_another_budget_are_not_continued(
    bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    assert label(str(bundle), dataset, out) == 0
    assert label(str(bundle), dataset, out, "--pairs", "2") == 2
    assert "with 2 pairs" in capsys.readouterr().err
