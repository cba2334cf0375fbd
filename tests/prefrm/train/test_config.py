"""The settings that are shipped, what they say of memory, and what is refused."""

import re
from pathlib import Path

import pytest

from prefrm.bench.cases import GROUPS, JUDGES
from prefrm.config import load_config
from prefrm.errors import ConfigError
from prefrm.train import TrainConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "train"
OF_SHAPES = sorted(p for p in CONFIGS.glob("shapes*.yaml") if "shapes-captioner" in p.read_text())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load_and_name_their_command(path: Path) -> None:
    load_config(TrainConfig, path)
    assert path.read_text().splitlines()[0] == f"# prefrm train configs/train/{path.name}"


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIGS.glob("*.yaml") if "together" in path.read_text()),
    ids=lambda p: p.stem,
)
def test_the_rows_of_a_memory_estimate_add_up(path: Path) -> None:
    """A row is a name and, at the end of its last line, a number of GiB."""
    before, after = path.read_text().split("#   together")
    rows = re.split(r"^#   (?=\w+  )", before, flags=re.M)[1:]
    numbers = [re.search(r" (\d+\.\d)$", row, flags=re.M) for row in rows]
    assert len(numbers) >= 5 and all(numbers)
    (together,) = re.findall(r"^ +(\d+\.\d), and about 1 for the CUDA context$", after, flags=re.M)
    assert sum(float(number[1]) for number in numbers if number) == pytest.approx(float(together))


@pytest.mark.parametrize("path", OF_SHAPES, ids=lambda path: path.stem)
def test_the_judges_of_the_shapes_learn_as_in_the_benchmark(path: Path) -> None:
    config = load_config(TrainConfig, path)
    kinds = {(kind.head, kind.attention, kind.quantize): kind for kind in JUDGES}
    kind = kinds[config.judge.head, config.judge.attention, config.judge.quantize]
    assert (config.judge.template, config.optim.batch_size) == (kind.template, GROUPS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.steps=0", "steps must be at least 1"),
        ("optim.pairs_per_group=0", "pairs_per_group must be at least 1; received 0"),
        ("optim.warmup=1", r"warmup must be in \[0, 1\)"),
        ("optim.lr=.inf", "lr must be positive and finite"),
        ("optim.lr=.nan", "lr must be positive and finite"),
        ("optim.weight_decay=.inf", "weight_decay must be at least 0 and finite"),
        ("optim.weight_decay=-1", "weight_decay must be at least 0 and finite"),
        ("seed=-1", "seed must be in"),
        ("dtype=int8", "dtype must be one of auto"),
        ("adapter.rank=0", "rank must be at least 1"),
        ("data.test=train", "different splits"),
        ("data.weight=0", "weight must be positive"),
        ("data.shuffle_buffer=0", "shuffle_buffer must be at least 1"),
        ("data.mix=[{weight: 2}]", r"missing key data.mix\[0\].path"),
        ("data.mix=[{path: x, weight: -1}]", r"data.mix\[0\]: weight must be positive"),
        ("data.mix=x", "data.mix must be a list of sections, received 'x'"),
        ("evaluation.patience=0", "patience must be at least 1"),
        ("judge.head=scaler", "head must be one of"),
        ("checkpoint.save_every=0", "save_every must be at least 1"),
        ("export=zip", "export must be one of merged, adapter"),
    ],
)
def test_bad_settings(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainConfig, CONFIGS / "shapes.yaml", [override])
