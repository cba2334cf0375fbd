"""Images of models in folders: patterns of names, coverage, groups."""

from pathlib import Path

import pytest

from prefrm.arena import ArenaPrompt
from prefrm.arena.images import ImageFolder, Place, read_answers
from prefrm.errors import ConfigError
from tests.prefrm.candidates import noise_png

PROMPTS = tuple(ArenaPrompt(id=str(n), text=f"prompt {n}") for n in range(3))


def folder(root: Path, model: str, *names: str) -> Path:
    for n, name in enumerate(names):
        path = root / model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise_png(hash((model, n)) % 1000))
    return root / model


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["0_0.png", "0_1.png", "1_0.png"], "{id}_{n}"),
        (["0_1.jpg", "0_2.jpg"], "{id}_{n+1}"),
        (["00000/samples/0000.png", "00002/samples/0000.png"], "{id:05}/samples/{n:04}"),
        (["0/0.webp", "1/0.webp"], "{id}/{n}"),
        (["0.png", "2.png"], "{id}"),
    ],
)
def test_the_pattern_of_names_is_found(tmp_path: Path, names: list[str], pattern: str) -> None:
    path = folder(tmp_path, "a", *names)
    found = ImageFolder.find("a", path, PROMPTS)
    assert found.pattern == pattern
    assert found.file(PROMPTS[0], 0) == path / names[0]


def test_a_pattern_of_the_callers_own(tmp_path: Path) -> None:
    path = folder(tmp_path, "a", "x/p0-seed3.png", "x/p1-seed3.png")
    found = ImageFolder.find("a", path, PROMPTS, "x/p{id}-seed3.png")
    assert found.file(PROMPTS[1], 0) == path / "x/p1-seed3.png"
    # Without a number there is one image of each prompt.
    assert found.file(PROMPTS[1], 1) is None


@pytest.mark.parametrize("pattern", ["{id", "{prompt}_{n}", "{}", "{id:q}"])
def test_a_malformed_pattern_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid pattern"):
        ImageFolder.find("a", folder(tmp_path, "a", "0.png"), PROMPTS, pattern)


def test_a_folder_without_images_of_the_prompts_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has cat\.png; give a pattern"):
        ImageFolder.find("a", folder(tmp_path, "a", "cat.png"), PROMPTS)
    with pytest.raises(ConfigError, match="is not a folder"):
        ImageFolder.find("a", tmp_path / "absent", PROMPTS)


def test_what_is_missing_or_unreadable_is_coverage_and_no_candidate(tmp_path: Path) -> None:
    first = folder(tmp_path, "a", "0_0.png", "0_1.png", "1_0.png", "2_0.png", "2_1.png")
    second = folder(tmp_path, "b", "0_0.png", "1_0.png", "1_1.png", "2_0.png", "2_1.png")
    (second / "0_0.png").write_bytes(b"not an image")
    third = folder(tmp_path, "c", "0_0.png")
    folders = [ImageFolder.find(path.name, path, PROMPTS) for path in (first, second, third)]
    answers = read_answers(PROMPTS, folders)
    assert answers.images == 2
    # Two models have an image here, and one alone or none elsewhere.
    places = [(place.prompt, place.image) for place in answers.places]
    assert places == [(0, 0), (1, 0), (2, 0), (2, 1)]
    group = next(answers.groups())
    assert (group.id, group.prompt) == ("0_0", "prompt 0")
    assert group.candidates == ((first / "0_0.png").read_bytes(), None, (third / "0_0.png").read_bytes())
    assert answers.candidates(Place(prompt=2, image=1))[2] is None
    coverage = answers.coverage()
    assert coverage["a"] == {
        "expected": 6,
        "found": 5,
        "missing": 1,
        "unreadable": 0,
        "share": 5 / 6,
        "first": ["1_1"],
        "reasons": {},
    }
    assert (coverage["b"]["found"], coverage["b"]["missing"], coverage["b"]["unreadable"]) == (4, 1, 1)
    assert "0_0.png" in coverage["b"]["reasons"]
    assert coverage["c"]["share"] == 1 / 6


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    paths = [folder(tmp_path, "a", "0_0.png"), folder(tmp_path, "b", "1_0.png")]
    folders = [ImageFolder.find(path.name, path, PROMPTS) for path in paths]
    with pytest.raises(ConfigError, match="no two models"):
        read_answers(PROMPTS, folders)
    with pytest.raises(ConfigError, match="at least 2"):
        read_answers(PROMPTS, folders[:1])
