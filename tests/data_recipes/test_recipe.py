from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from data_recipes.building import prove_disjoint
from data_recipes.plan import Context, Plan, Split
from data_recipes.recipe import Recipe
from data_recipes.registry import RECIPES, get_recipe
from prefrm.errors import ConfigError, DataError
from prefrm.records import Comparison, PreferenceGroup, fingerprint, read_groups, read_info


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOptions:
    where: Annotated[Path, "a path"]
    n: Annotated[int, "groups in train"] = 2
    share: Annotated[float, "a share"] = 0.5


def toy_recipe(*, leak: bool = False, left_out: tuple[str, ...] = ()) -> Recipe:
    def group(split: str, n: int) -> PreferenceGroup:
        prompt = "the same" if leak else f"{split} {n}"
        return PreferenceGroup(
            id=f"{split}-{n}",
            prompt=prompt,
            candidates=(b"1", b"2"),
            comparisons=(Comparison.preferred(0, 1),),
        )

    def plan(options: ToyOptions, context: Context) -> Plan:
        def groups(split: str, count: int) -> Iterator[PreferenceGroup]:
            yield from (group(split, n) for n in range(count))

        splits = {"train": Split(groups=groups("train", options.n), total=options.n)}
        splits["test"] = Split(groups=groups("test", 1), total=1)
        return Plan(splits=splits, left_out=left_out)

    return Recipe(name="toy", summary="a toy", options_type=ToyOptions, plan=plan)


def test_options_are_described_with_their_types() -> None:
    described = [(o.name, o.type, o.default, o.required, o.help) for o in toy_recipe().options]
    assert described == [
        ("where", Path, None, True, "a path"),
        ("n", int, 2, False, "groups in train"),
        ("share", float, 0.5, False, "a share"),
    ]


def test_options_may_be_values_or_text() -> None:
    read = toy_recipe().read_options
    assert read({"where": "a/b", "n": "3", "share": "0.25"}) == ToyOptions(where=Path("a/b"), n=3, share=0.25)
    assert read({"where": Path("a"), "share": 1}) == ToyOptions(where=Path("a"), share=1.0)


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        toy_recipe().read_options({"n": "many", "share": True, "nn": 1})
    message = str(caught.value)
    for part in (
        "option 'n' must be of type int; received 'many'",
        "option 'share' must be of type float; received True",
        "option 'where' must be given (a path)",
        "unknown option 'nn'",
        "its options are where, n, share",
    ):
        assert part in message


def test_a_build_writes_splits_fingerprints_and_options(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    built = toy_recipe(left_out=("one",)).build(
        tmp_path, seed=3, where="x", progress=lambda *step: seen.append(step)
    )
    assert built.groups == {"train": 2, "test": 1}
    assert built.left_out == ("one",)
    assert seen == [("train", 0, 2), ("train", 1, 2), ("train", 2, 2), ("test", 0, 1), ("test", 1, 1)]
    info = read_info(tmp_path)
    assert info == built.info
    assert info.options == {"seed": 3, "where": "x", "n": 2, "share": 0.5}
    assert info.fingerprints["train"] == fingerprint(read_groups(tmp_path, "train"))


def test_a_dataset_is_not_overwritten_by_accident_and_no_stale_split_survives(tmp_path: Path) -> None:
    toy_recipe().build(tmp_path, where="x")
    (tmp_path / "validation.parquet").write_bytes(b"stale")
    with pytest.raises(DataError, match=r"already holds dataset\.json, train\.parquet"):
        toy_recipe().build(tmp_path, where="x", n=1)
    assert toy_recipe().build(tmp_path, where="x", n=1, overwrite=True).groups["train"] == 1
    assert not (tmp_path / "validation.parquet").exists()


def test_a_split_without_a_dataset_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"foreign")
    with pytest.raises(DataError, match=r"already holds train\.parquet; choose another folder"):
        toy_recipe().build(tmp_path, where="x")
    assert (tmp_path / "train.parquet").read_bytes() == b"foreign"


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    toy_recipe().build(tmp_path, where="x")
    (tmp_path / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="in more than one split: 1: 'the same' in test and train"):
        toy_recipe(leak=True).build(tmp_path, where="x", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    toy_recipe().build(tmp_path, where="x", n=1, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == before.keys()


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed must be a whole number of at least 0; received -1"):
        toy_recipe().build(tmp_path, where="x", seed=-1)


def test_a_split_without_a_group_is_an_error_that_says_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the train split has no usable group; left out: bad; worse"):
        toy_recipe(left_out=("bad", "worse")).build(tmp_path, where="x", n=0)


def test_disjoint_splits_are_proved_and_leaks_are_counted() -> None:
    prove_disjoint({"train": ["a", "a", "b"], "test": ["c"]})
    with pytest.raises(DataError, match="prompts in more than one split: 1: 'a  Cat ' in train and test"):
        prove_disjoint({"train": ["A cat"], "test": ["a  Cat "]})
    with pytest.raises(DataError, match=r"'b' in validation and train; 'c' in test and train"):
        prove_disjoint({"validation": "ab", "test": "c", "train": "bbcd"})
    with pytest.raises(DataError, match=r"more than one split: 5: 'e' in train and test; .* and 2 more"):
        prove_disjoint({"train": "abcde", "test": "edcbaf"})


def test_the_registry_knows_its_recipes() -> None:
    worlds = ["shapes", "shapes-edits", "shapes-clips", "shapes-questions", "shapes-criteria"]
    assert list(RECIPES)[:7] == [*worlds, "cyclic", "pairs"]
    assert get_recipe("pairs") is RECIPES["pairs"]
    with pytest.raises(ConfigError, match="unknown recipe 'shape'; the recipes are shapes, shapes-edits, "):
        get_recipe("shape")
