import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from data_recipes.commands import app
from data_recipes.registry import RECIPES
from prefrm.errors import ConfigError, DataError, DatasetError, PrefrmError
from prefrm.records import SPLITS, read_groups

TINY = ["--set", "train=12", "--set", "validation=6", "--set", "test=6"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def error_of(*arguments: str | Path) -> PrefrmError:
    """The error that the top-level application will print."""
    error = run(*arguments).exception
    assert isinstance(error, PrefrmError)
    return error


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shapes"
    result = run("build", "shapes", "--out", out, "--seed", "3", *TINY)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 12 train, 6 validation, 6 test groups\n"
    return out


def test_list_shows_a_line_for_each_recipe() -> None:
    result = run("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert list(lines) == list(RECIPES)
    assert all(text in lines["hpdv3"] for text in ("MIT", "1.17 million pairs", "images.tar.gz"))


def test_list_shows_the_options_of_one_recipe() -> None:
    result = run("list", "pairs")
    for word in ("source", "(must be given)", "validation", "0.05"):
        assert word in result.stdout
    assert "licence: MIT" in run("list", "hpdv3").stdout


def test_list_as_json() -> None:
    recipes = {recipe["name"]: recipe for recipe in json.loads(run("list", "--json").stdout)}
    assert list(recipes) == list(RECIPES)
    assert recipes["pairs"]["options"][0]["required"] is True
    assert recipes["hpdv3"]["licence"] == "MIT"
    assert recipes["shapes"]["options"][0] == {
        "name": "train",
        "type": "int",
        "default": 1500,
        "required": False,
        "help": "groups in the train split",
    }


def test_build_as_json_prints_json_only(tmp_path: Path) -> None:
    result = run("build", "shapes", "--out", tmp_path / "d", "--json", *TINY)
    built = json.loads(result.stdout)
    assert built["groups"] == {"train": 12, "validation": 6, "test": 6}
    assert built["info"]["options"]["train"] == 12
    train = built["info"]["splits"]["train"]
    assert (train["groups"], train["candidates"], train["strict"] + train["ties"]) == (12, 48, 72)
    assert built["left_out"] == []


def test_inspect_tells_what_is_there(dataset: Path) -> None:
    result = run("inspect", dataset)
    assert result.exit_code == 0, result.output
    for words in (
        "recipe shapes (seed=3, train=12",
        "64 x 64: 48",
        "prompts in more than one split: none",
        "images or videos in more than one split: ",
        "questionable comparisons in train: none",
    ):
        assert words in result.stdout


def test_inspect_as_json_of_one_split_with_a_picture(dataset: Path, tmp_path: Path) -> None:
    plot = tmp_path / "new" / "sheet.png"
    result = run("inspect", dataset, "--split", "test", "--json", "--plot", plot, "--rows", "3")
    summary = json.loads(result.stdout)
    assert list(summary["splits"]) == ["test"]
    assert summary["splits"]["test"]["tags"]["skill"]["counting"]["groups"] == 1
    assert summary["splits"]["test"]["against_quality"] == 0
    with Image.open(plot) as sheet:
        assert sheet.format == "PNG"
        assert sheet.height > 3 * 128


def test_inspect_draws_each_split_into_a_folder(dataset: Path, tmp_path: Path) -> None:
    result = run("inspect", dataset, "--plot", tmp_path / "report", "--rows", "1")
    assert [f"wrote {tmp_path / 'report' / split}.png" in result.stdout for split in SPLITS] == [True] * 3
    assert sorted(path.stem for path in (tmp_path / "report").iterdir()) == sorted(SPLITS)


def test_pairs_report_what_was_left_out(tmp_path: Path) -> None:
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    rows = [
        ["prompt", "image_1", "image_2", "preferred"],
        ["x", "a.png", "b.png", "1"],
        ["y", "a.png", "c.png", "2"],
    ]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    settings = ("--set", f"source={tmp_path / 'mine.csv'}", "--set", "validation=0", "--set", "test=0")
    result = run("build", "pairs", "--out", tmp_path / "out", *settings)
    assert result.stdout == f"{tmp_path / 'out'}: 1 train groups; left out: 1 broken image\n"
    assert "left out: record mine.csv:3: " in result.stderr
    assert "c.png" in result.stderr
    shown = run("inspect", tmp_path / "out").stdout
    assert "left out by the build: 1 broken image\n" in shown
    # Pairs have no known quality.
    (line,) = (line for line in shown.splitlines() if "contradict the known quality" in line)
    assert line.split("\u2502")[2].strip() == "-"


def test_a_build_that_was_interrupted_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, color in (("0", "red"), ("1", "blue")):
        (tmp_path / "in" / "a cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / "in" / "a cat" / f"{name}.png")
    command = ("build", "folder", "--out", tmp_path / "out", "--set", f"source={tmp_path / 'in'}")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("data_recipes.pipeline.recipe.scan_files", interrupted)
        result = run(*command)
    assert "interrupted: run the same command again to resume this build\n" in result.stderr
    assert (result.exit_code, (tmp_path / "out" / "dataset.json").exists()) == (130, False)
    assert run(*command).stdout == f"{tmp_path / 'out'}: 1 train groups\n"


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    absent = error_of("build", "folder", "--out", tmp_path / "out", "--set", "source=~/images")
    assert str(absent) == f"{tmp_path / 'images'} does not exist"


def test_contradictions_are_merged_and_named(tmp_path: Path) -> None:
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    rows = [["prompt", "image_1", "image_2", "preferred"], ["x", "a.png", "b.png", "1"]]
    rows += [["x", "a.png", "b.png", "2"], ["x", "a.png", "b.png", "1"]]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    settings = ("--set", f"source={tmp_path / 'mine.csv'}", "--set", "validation=0", "--set", "test=0")
    result = run("build", "pairs", "--out", tmp_path / "out", *settings)
    assert result.exit_code == 0
    assert result.stderr == "contradictory in train: 1: mine.csv:2 (candidates 0 and 1)\n"
    (group,) = read_groups(tmp_path / "out", "train")
    (comparison,) = group.comparisons
    assert comparison.weight == 3
    assert min(comparison.p, 1 - comparison.p) == pytest.approx(1 / 3)


def test_mistakes_are_raised_as_errors_of_ours(dataset: Path, tmp_path: Path) -> None:
    assert "unknown recipe 'shape'" in str(error_of("build", "shape", "--out", tmp_path))
    for source in ("hf://org/name", "./HPDv3/"):
        refused = str(error_of("build", source, "--out", tmp_path))
        assert (
            f"{source} is not a recipe but a source; " in refused
            and f"table --set source={source} " in refused
        )
    assert "--set takes option=value; received 'train'" in str(
        error_of("build", "shapes", "--out", tmp_path, "--set", "train")
    )
    assert "--set train is given twice" in str(error_of("build", "shapes", "--out", tmp_path, *TINY, *TINY))
    assert isinstance(error_of("build", "shapes", "--out", tmp_path, "--set", "flip=x"), ConfigError)
    assert "given as --set source=HPDv3/" in str(error_of("build", "hpdv3", "HPDv3/", "--out", tmp_path))
    assert "given as --set a=b" in str(error_of("build", "hpdv3", "a=b", "--out", tmp_path))
    nowhere = tmp_path / "nowhere"
    (tmp_path / "a cat.png").write_bytes(b"never read")
    source = ("--set", f"source={tmp_path}")
    apart = error_of("build", "folder", "--out", tmp_path / "new", "--apart-from", nowhere, *source)
    assert str(apart) == f"{nowhere} is not a dataset: it has no dataset.json; build it first"
    assert isinstance(error_of("build", "shapes", "--out", dataset, *TINY), DataError)
    assert isinstance(error_of("inspect", tmp_path), DatasetError)
    assert "--plot must name a .png file or a folder" in str(
        error_of("inspect", dataset, "--plot", tmp_path / "x.gif")
    )


def test_the_commands_load_without_what_an_extra_brings() -> None:
    """`prefrm --help` imports every command, on a client's machine too."""
    code = "import sys, data_recipes.commands; print({'torch', 'scipy', 'pyarrow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
