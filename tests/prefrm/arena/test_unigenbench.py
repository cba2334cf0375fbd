"""UniGenBench's files: literal rows of both languages, and what is repaired, folded and counted."""

# The punctuation of Chinese.
# ruff: noqa: RUF001

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from prefrm.arena import ArenaPrompt, Check, PromptSet, read_prompts
from prefrm.arena.unigenbench import POINTS, SUBTHEMES

ENGLISH = [
    [
        "0",
        "In the style of classical ink painting, against the background of Egyptian pyramids, two pandas "
        "wearing spacesuits are leisurely tasting bamboo.",
        '{"Primary Categories": "Creative Divergence", "Secondary Categories": "Imaginative Thinking", '
        '"Subjects": "Animal", "Sentence Structure": "Descriptive", "Testpoints": ["Style", '
        '"World Knowledge", "Attribute - Quantity"], "Testpoint Description": ["classical ink painting", '
        '"Egyptian pyramids", "two pandas"]}',
    ]
]
CHINESE = [
    [
        "562",
        "请画一幅画：画面前景有两只一大一小的陶瓷花瓶，后面的墙上挂着一个木制画框，"
        "画框里写着中文 “每一刻都是全新的开始”",
        '{"一级垂类": "艺术", "二级垂类": "艺术-平面艺术", "主体": "其他实体", '
        '"考点": ["实体布局-三维空间", "文本生成"], "句式": "指令式句式", '
        '"考点对应描述": ["画面前景有花瓶，后面的墙上挂着画框", "每一刻都是全新的开始"]}',
    ]
]
SPELLINGS = {
    "Art": "Art-Graphic Art|Graphic Art|Art-Photography Art|Photography Art|Art-Three-dimensional Art|"
    "Sculptural Art|Other",
    "Creative Divergence": "Creative divergence-other|Other|Creativity divergence-imagination divergence|"
    "Imaginative Thinking",
    "Design": "Advertising/E-commerce Design|Design Assets|Design-Game Design|Game Design|"
    "Design-Space Design|Spatial Design|Fashion Design|IP Design|Logo/Icon Design|Logo/icon design|"
    "Poster Design|UI Design",
    "Film & Story": "Animation|Realism|Sci-Fi",
    "Illustration": "Content Illustration|Mapping-Content Mapping|Copywriting Illustration",
}
"""Theme -> every spelling of its subthemes in the English files."""


def read(folder: Path, rows: list[list[str]], language: str = "en") -> PromptSet:
    path = folder / f"test_prompts_{language}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerows([["index", f"prompt_{language}", f"sub_dims_{language}"], *rows])
    return read_prompts(path)


def row(number: int = 0, **changed: Any) -> list[str]:
    _, text, dims = ENGLISH[0]
    return [str(number), text, json.dumps(json.loads(dims) | changed)]


def test_a_row_in_english(tmp_path: Path) -> None:
    found = read(tmp_path, ENGLISH)
    assert (found.name, found.defects) == ("unigenbench-en", {})
    assert found.prompts == (
        ArenaPrompt(
            id="0",
            text=ENGLISH[0][1],
            tags={
                "theme": "Creative Divergence",
                "subtheme": "Creative Divergence - Imaginative Thinking",
                "subject": "Animal",
                "sentence": "Descriptive",
            },
            checks=(
                Check(question="classical ink painting", dimension="Style"),
                Check(question="Egyptian pyramids", dimension="World Knowledge"),
                Check(question="two pandas", dimension="Attribute", subdimension="Attribute - Quantity"),
            ),
        ),
    )


def test_a_row_in_chinese_has_the_same_themes_and_dimensions(tmp_path: Path) -> None:
    found = read(tmp_path, CHINESE, "zh")
    (prompt,) = found.prompts
    assert (found.name, prompt.id, prompt.text) == ("unigenbench-zh", "562", CHINESE[0][1])
    assert prompt.tags == {
        "theme": "Art",
        "subtheme": "Art - Graphic",
        "subject": "Other Entity",
        "sentence": "Imperative",
    }
    assert [(check.question, check.dimension, check.subdimension) for check in prompt.checks] == [
        ("画面前景有花瓶，后面的墙上挂着画框", "Entity Layout", "Entity Layout - Three-Dimensional Space"),
        ("每一刻都是全新的开始", "Text Generation", ""),
    ]
    assert found.defects == {
        "subtheme in another spelling, folded": 1,
        "sentence structure in another spelling, folded": 1,
    }


def test_28_spellings_are_20_subthemes(tmp_path: Path) -> None:
    pairs = [(theme, one) for theme, all in SPELLINGS.items() for one in all.split("|")]
    assert len({spelling for _, spelling in pairs}) == 28
    rows = [
        row(n, **{"Primary Categories": theme, "Secondary Categories": spelling})
        for n, (theme, spelling) in enumerate(pairs)
    ]
    found = read(tmp_path, rows)
    assert {prompt.tags["subtheme"] for prompt in found.prompts} == {
        f"{theme} - {name}" for theme, names in SUBTHEMES.items() for name in names
    }
    assert sum(map(len, SUBTHEMES.values())) == 20
    assert found.defects == {"subtheme in another spelling, folded": 9}


def test_a_long_set_has_more_test_points(tmp_path: Path) -> None:
    points, texts = list(POINTS)[:6], list("abcdef")
    found = read(tmp_path, [row(**{"Testpoints": points, "Testpoint Description": texts})])
    assert found.name == "unigenbench-en-long"


def test_a_missing_comma_is_repaired_and_counted(tmp_path: Path) -> None:
    broken = row()
    broken[2] = broken[2].replace('"Style", "World', '"Style" "World')
    found = read(tmp_path, [broken])
    assert len(found.prompts[0].checks) == 3
    assert found.defects == {"missing comma in the test points, repaired": 1}


@pytest.mark.parametrize(
    ("changed", "checks", "defect"),
    [
        ({"Testpoint Description": ["one"]}, 0, "test points and descriptions that do not match, left out"),
        ({"Testpoint Description": ["a", "", "c"]}, 3, "test point without a description"),
        ({"Testpoints": ["Style", "Style", "Attribute - Size"]}, 3, "prompt that names a test point twice"),
        ({"Testpoints": ["Style", "Taste", "Attribute - Size"]}, 3, "unknown test point"),
        ({"Primary Categories": "Music"}, 3, "unknown theme"),
        ({"Secondary Categories": "Music"}, 3, "unknown subtheme"),
    ],
)
def test_other_defects_are_counted(tmp_path: Path, changed: dict[str, Any], checks: int, defect: str) -> None:
    found = read(tmp_path, [row(**changed)])
    assert len(found.prompts[0].checks) == checks
    assert found.defects == {defect: 1}


def test_test_points_that_cannot_be_read_leave_the_prompt(tmp_path: Path) -> None:
    found = read(tmp_path, [["3", "a cat", '{"Testpoints": [']])
    assert found.prompts[0].text == "a cat" and found.prompts[0].checks == ()
    assert found.defects["test points that are not a JSON object, left out"] == 1
