from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from data_recipes.cyclic import CYCLE, MAX_BYSTANDERS, Choice, beats, choices, compare, label, split_choices
from data_recipes.registry import RECIPES
from data_recipes.shapes.captioner import CHECKPOINT
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import COLORS, MAX_SHAPES, Scene
from prefrm import media
from prefrm.errors import ConfigError
from prefrm.records import SPLITS, Comparison, PreferenceGroup, read_groups

SMALL = {"train": 24, "validation": 8, "test": 12}


def picture(program: str) -> bytes:
    return media.encode_png(render(Scene.parse(program)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[PreferenceGroup]]:
    out = tmp_path_factory.mktemp("cyclic")
    RECIPES["cyclic"].build(out, seed=7, **SMALL)
    return {split: list(read_groups(out, split)) for split in SPLITS}


def kinds_of(group: PreferenceGroup) -> list[str]:
    """What each candidate shows in the color that counts, by the program that drew it."""
    color = group.tags["color"]
    shown = [
        [s.kind for s in Scene.parse(text or "").shapes if s.color == color and s.kind in CYCLE]
        for text in group.completions or ()
    ]
    return [kind for (kind,) in shown]


def best_share(comparisons: tuple[Comparison, ...], size: int) -> Fraction:
    """The largest share of the strict comparisons that any utilities of the candidates get right.

    Accuracy sees only how utilities are ordered, and an equality is wrong: so orders are all there is.
    """
    strict = [(c.i, c.j) if c.p == 1.0 else (c.j, c.i) for c in comparisons if c.is_strict]
    right = max(sum(u[winner] > u[loser] for winner, loser in strict) for u in permutations(range(size)))
    return Fraction(right, len(strict))


def test_polarity_on_a_literal_row() -> None:
    """Red counts. Candidates 0 and 3 show a square, 1 a triangle and 2 a circle, whatever stands by."""
    choice = Choice(form="a red {} left of a star", color="red", skill="position")
    images = (
        picture("red square 0 0 ; black star 2 1 ; blue circle 3 3"),
        picture("red triangle 1 2 ; green star 3 2"),
        picture("red circle 0 3 ; red star 1 3 ; blue triangle 0 0"),
        picture("red square 2 2 ; blue star 3 0"),
    )
    group = label("row", choice, images)
    assert group.comparisons == (
        Comparison(i=0, j=1, p=1.0),  # a square beats a triangle
        Comparison(i=0, j=2, p=0.0),  # a circle beats a square
        Comparison(i=0, j=3, p=0.5),
        Comparison(i=1, j=2, p=1.0),  # a triangle beats a circle
        Comparison(i=1, j=3, p=0.0),
        Comparison(i=2, j=3, p=1.0),
    )
    assert group.prompt == "a red circle or square or triangle left of a star"
    assert (group.quality, group.tags) == (None, {"skill": "position", "color": "red"})


def test_the_cycle_closes() -> None:
    assert [pair for pair in product(CYCLE, repeat=2) if beats(*pair)] == [
        ("circle", "square"),
        ("square", "triangle"),
        ("triangle", "circle"),
    ]


@pytest.mark.parametrize("size", [3, 6])
def test_no_utilities_get_more_than_two_thirds_of_a_group_right(size: int) -> None:
    """Every candidate has a utility of its own here, so they may depend on anything but the opponent."""
    assert best_share(compare(CYCLE * (size // 3)), size) == Fraction(2, 3)


def test_utilities_get_a_ranking_right_and_more_than_two_thirds_of_an_unbalanced_group() -> None:
    """Why a group holds every kind equally often."""
    assert best_share(compare(("circle", "square", "circle")), 3) == 1
    assert best_share(compare(("circle", "square", "triangle", "triangle")), 4) == Fraction(4, 5)


def test_arrows_in_two_dimensions_get_every_comparison_right() -> None:
    """The skew product of a general preference model; its sign is that of the preference."""
    angles = {kind: 2 * np.pi * n / 3 for n, kind in enumerate(CYCLE)}
    for a, b in product(CYCLE, repeat=2):
        score = np.sin(angles[b] - angles[a])
        assert (score > 1e-9) == beats(a, b)
        assert (score < -1e-9) == beats(b, a)


def test_groups_are_balanced_and_every_win_rate_is_a_half(
    dataset: dict[str, list[PreferenceGroup]],
) -> None:
    for split, groups in dataset.items():
        assert len(groups) == SMALL[split]
        for group in groups:
            assert Counter(kinds_of(group)) == dict.fromkeys(CYCLE, 2)
            wins = np.zeros(6)
            for c in group.comparisons:
                wins[[c.i, c.j]] += c.p, 1 - c.p
            assert (wins / 5 == 0.5).all()


def test_labels_are_the_cycle_of_what_was_drawn(dataset: dict[str, list[PreferenceGroup]]) -> None:
    for group in (group for groups in dataset.values() for group in groups):
        assert group.comparisons == compare(kinds_of(group))
        assert sum(c.is_strict for c in group.comparisons) == 12
        drawn = [picture(text or "") for text in group.completions or ()]
        assert drawn == list(group.candidates)


def test_a_candidates_place_and_what_stands_by_give_nothing_away(
    dataset: dict[str, list[PreferenceGroup]],
) -> None:
    assert len({tuple(kinds_of(group)) for group in dataset["train"]}) > 15
    choice = choices()[0]
    rng = np.random.default_rng(0)
    for kind in CYCLE:
        scenes = [choice.draw(kind, 2, rng) for _ in range(300)]
        by = [[s for s in scene.shapes if s.color != choice.color] for scene in scenes]
        assert Counter(map(len, by)).keys() == {0, 1, 2}
        shown = Counter(s.kind for shapes in by for s in shapes)
        assert all(0.17 < shown[k] / shown.total() < 0.33 for k in (*CYCLE, "star"))
        assert max(len(scene.shapes) for scene in scenes) <= MAX_SHAPES


def test_prompts_are_divided_and_every_color_is_trained() -> None:
    splits = {split: [choice.text for choice in split_choices(split)] for split in SPLITS}
    assert {split: len(texts) for split, texts in splits.items()} == {
        "train": 59,
        "validation": 8,
        "test": 17,
    }
    assert len({text for texts in splits.values() for text in texts}) == len(choices()) == 84
    assert {choice.color for choice in split_choices("train")} == set(COLORS)


def test_the_captioner_reads_prompts_word_by_word() -> None:
    tokenizers = pytest.importorskip("transformers")
    tokenizer = tokenizers.AutoTokenizer.from_pretrained(CHECKPOINT)
    for choice in choices():
        assert [t.removeprefix("Ġ") for t in tokenizer.tokenize(choice.text)] == choice.text.split()


def test_noise_is_in_train_alone_and_the_crowd_changes_no_label(tmp_path: Path) -> None:
    sizes = {"train": 12, "validation": 12, "test": 12, "bystanders": MAX_BYSTANDERS}
    RECIPES["cyclic"].build(tmp_path, seed=0, flip=0.3, **sizes)

    def flipped(split: str) -> float:
        pairs = [(c, t) for g in read_groups(tmp_path, split) for c, t in _with_truth(g) if t.is_strict]
        return sum(c != t for c, t in pairs) / len(pairs)

    assert 0.15 < flipped("train") < 0.45
    assert flipped("validation") == flipped("test") == 0.0


def _with_truth(group: PreferenceGroup) -> list[tuple[Comparison, Comparison]]:
    return list(zip(group.comparisons, compare(kinds_of(group)), strict=True))


def test_a_build_is_reproducible_and_a_smaller_one_its_prefix(tmp_path: Path) -> None:
    cyclic = RECIPES["cyclic"]
    sizes = {"validation": 1, "test": 1, "group_size": 3}
    first = cyclic.build(tmp_path / "a", seed=1, train=6, **sizes)
    assert cyclic.build(tmp_path / "b", seed=1, train=6, **sizes).info == first.info
    cyclic.build(tmp_path / "c", seed=1, train=3, **sizes)
    assert list(read_groups(tmp_path / "c", "train")) == list(read_groups(tmp_path / "a", "train"))[:3]
    other = cyclic.build(tmp_path / "d", seed=2, train=6, **sizes)
    assert other.info.fingerprints["train"] != first.info.fingerprints["train"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"train": 0}, "train must be at least 1 group; received 0"),
        ({"group_size": 0}, "group_size must be a multiple of 3.* received 0"),
        ({"group_size": 4}, "group_size must be a multiple of 3.* received 4"),
        ({"bystanders": 4}, "bystanders must be 0 to 3; received 4"),
        ({"flip": 0.5}, r"flip must be in \[0, 0.5\)"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RECIPES["cyclic"].build(tmp_path, **options)
    assert not list(tmp_path.iterdir())
