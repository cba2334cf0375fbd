import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from prefrm.__main__ import main
from prefrm.bundle import write_bundle
from prefrm.cli import program, run
from prefrm.media import decode
from prefrm.records import Comparison, PreferenceGroup, write_groups


@pytest.fixture
def bundle(judge, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle(folder, judge, calibration=None, data_fingerprint="none", metrics={}, card="# A judge\n")
    return folder


@pytest.fixture
def images(tmp_path: Path, png: Callable[..., bytes]) -> list[str]:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(png(n))
    return [str(path) for path in paths]


@pytest.fixture
def dataset(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    groups = [
        PreferenceGroup(
            id=f"g{n}",
            prompt="p",
            candidates=(png(n), png(n + 10)),
            comparisons=(Comparison.preferred(0, 1),),
            completions=("first", "second"),
        )
        for n in range(3)
    ]
    write_groups(groups, tmp_path / "data", "test")
    return tmp_path / "data"


def test_score_prints_the_matrix(
    bundle: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "matrix.png"
    assert run(["score", str(bundle), "--prompt", "a cat", *images, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert "win rate" in out
    assert all(Path(image).name in out for image in images)
    assert decode(plot.read_bytes()).width > 100


def test_score_as_json(bundle: Path, images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", str(bundle), "--prompt", "a cat", *images, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(answer["ranking"]) == [0, 1, 2]
    assert answer["win_matrix"][0][1] + answer["win_matrix"][1][0] == pytest.approx(1, abs=1e-7)


def test_eval_writes_a_report(
    bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", str(bundle), str(dataset), "--out", str(tmp_path / "out"), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["metrics"]["accuracy"]["pairs"] == 3
    assert (tmp_path / "out" / "report.md").is_file()


def test_label_continues_and_writes_pairs(
    bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["label", str(bundle), str(dataset), "--split", "test", "--out", str(tmp_path / "labels")]
    assert run(command) == 0
    first = capsys.readouterr().out
    assert "3 groups" in first
    assert "3 pairs of images for Diffusion-DPO's train.py: " in first
    assert "3 pairs of texts for TRL's DPOTrainer: " in first
    assert run(command) == 0
    assert capsys.readouterr().out == first


def test_a_blank_prompt_is_a_mistake(
    bundle: Path, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["score", str(bundle), "--prompt", " ", *images]) == 2
    assert "--prompt is empty; give the prompt of the candidates" in capsys.readouterr().err


MISTAKES = {
    "no such command": ["nonsense"],
    "missing argument": ["score", "somewhere"],
    "no bundle": ["eval", "nowhere", "nowhere"],
    "unreadable files": ["score", "nowhere", "--prompt", "p", "a.png", "b.png"],
    "one image": ["score", "nowhere", "--prompt", "p", __file__],
    "no candidates": ["score", "nowhere", "--prompt", "p"],
    "files and texts": ["score", "nowhere", "--prompt", "p", "{0}", "{1}", "--text", "a"],
    "a rule for one criterion": ["score", "nowhere", "--prompt", "p", "{0}", "{1}", "--combine", "vote"],
    "a margin without a rule": [
        "score",
        "nowhere",
        "--prompt",
        "p",
        "{0}",
        "{1}",
        "--criterion",
        "a",
        "--criterion",
        "b",
        "--margin",
        "0.1",
    ],
    "unknown plot format": ["score", "nowhere", "--prompt", "p", "a.png", "b.png", "--plot", "x.doc"],
    "no server": ["score", "grpc://127.0.0.1:9/judge", "--prompt", "p", "{0}", "{1}"],
    "bad url": ["eval", "ftp://there/judge", "nowhere"],
    "no config": ["train", "nowhere.yaml"],
    "unknown recipe": ["data", "build", "nothing", "--out", "x"],
    "no dataset": ["data", "inspect", "nowhere"],
    "no bundle to serve": ["serve", "nowhere"],
    "bad number": ["quickstart", "--seed", "many"],
}


def options_with_two_names(command: Any) -> list[str]:
    parts = getattr(command, "commands", {}).values()
    mine = [name for option in command.params for name in option.secondary_opts]
    return sum(map(options_with_two_names, parts), mine)


def test_no_switch_has_a_second_name_with_which_help_cuts_both() -> None:
    assert options_with_two_names(get_command(program.app)) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    name: str, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([part.format(*images) for part in MISTAKES[name]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("prefrm: ")


def test_a_file_where_a_folder_should_be_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    assert run(["data", "build", "shapes", "--out", str(file), "--set", "train=6"]) == 2
    refused = "cannot be written: Not a directory; choose another path"
    assert capsys.readouterr().err == f"prefrm: --out {file} {refused}\n"
    assert run(["data", "build", "shapes", "--out", str(file / "below"), "--set", "train=6"]) == 2
    assert capsys.readouterr().err == f"prefrm: --out {file / 'below'} {refused}\n"
    assert file.read_text() == "mine"


def test_two_unknown_keys_are_both_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "output: x\njudge: {base_model: y}\ndata: {path: z}\nouput: a\noptim: {learning_rate: 1}\n"
    )
    assert run(["train", str(config)]) == 2
    error = capsys.readouterr().err
    assert "ouput" in error
    assert "optim.learning_rate" in error


def test_an_interruption_of_the_imports_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        @staticmethod
        def find_spec(name: str, *args: object) -> None:
            if name == "prefrm.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "prefrm.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "prefrm: interrupted\n"


def test_an_interruption_ends_with_130(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prefrm.engine.Engine.score", interrupt)
    assert run(["eval", str(bundle), str(dataset)]) == 130
    assert capsys.readouterr().err.endswith("prefrm: interrupted\n")
