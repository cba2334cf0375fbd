"""Formats of prompt sets, on literal rows of their sources."""

import hashlib
import json
from pathlib import Path

import pytest

from prefrm.arena import ArenaPrompt, Check, PromptSet, read_prompts
from prefrm.errors import ConfigError

GENEVAL = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    '{"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", '
    '"count": 3}], "prompt": "a photo of two clocks"}\n'
    '{"tag": "position", "include": [{"class": "teddy bear", "count": 1}, {"class": "dog", "count": 1, '
    '"position": ["right of", 0]}], "prompt": "a photo of a dog right of a teddy bear"}\n'
    '{"tag": "color_attr", "include": [{"class": "wine glass", "count": 1, "color": "purple"}, {"class": '
    '"apple", "count": 1, "color": "orange"}], "prompt": "a photo of a purple wine glass and an orange '
    'apple"}\n'
)
GENEVAL2 = (
    '{"prompt": "four white bicycles in front of three plastic cows", "atom_count": 7, "vqa_list": [["How '
    'many bicycles are in the image?", "four"], ["Are the bicycles white?", "Yes"]], "skills": ["count", '
    '"attribute"]}\n'
)
DPG = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
    "sample,a cabbage with dew,,1,0,entity,whole,entity - whole (cabbage),Is there a cabbage?\n"
    'sample,a cabbage with dew,,2,"1,7",attribute,texture,attribute - texture (wet),Is it wet?\n'
)


def written(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, name: str = "prompts.txt") -> PromptSet:
    return read_prompts(written(folder, text, name))


def test_a_text_file_has_a_prompt_in_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a red square\r\n\n  two blue circles \n")
    found = read_prompts(path)
    assert found.name == "text"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.prompts == (
        ArenaPrompt(id="0", text="a red square"),
        ArenaPrompt(id="1", text="two blue circles"),
    )


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_a_file_without_a_prompt_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no prompt"):
        read(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "absent.txt")


def test_geneval_asks_for_each_object(tmp_path: Path) -> None:
    found = read(tmp_path, GENEVAL, "evaluation_metadata.jsonl")
    assert found.name == "geneval"
    assert [prompt.id for prompt in found.prompts] == ["00000", "00001", "00002", "00003"]
    assert found.prompts[0] == ArenaPrompt(
        id="00000",
        text="a photo of a bench",
        tags={"task": "single_object"},
        checks=(Check(question="Is there a bench?", dimension="single_object"),),
    )
    asked = [[check.question for check in prompt.checks] for prompt in found.prompts[1:]]
    assert "exactly two" in asked[0][0] and "clock" in asked[0][0]
    assert asked[1] == ["Is there a teddy bear?", "Is the dog to the right of the teddy bear?"]
    assert asked[2] == ["Is there a purple wine glass?", "Is there an orange apple?"]


def test_geneval2_has_questions_with_answers(tmp_path: Path) -> None:
    found = read(tmp_path, GENEVAL2)
    (prompt,) = found.prompts
    assert (found.name, prompt.id, prompt.tags) == ("geneval2", "0", {"atoms": "7"})
    assert prompt.checks == (
        Check(question="How many bicycles are in the image?", dimension="count", answer="four"),
        Check(question="Are the bicycles white?", dimension="attribute", answer="Yes"),
    )


def test_dpg_bench_has_a_question_in_a_row_the_first_one_too(tmp_path: Path) -> None:
    found = read(tmp_path, DPG, "dpg_bench.csv")
    (prompt,) = found.prompts
    assert (found.name, prompt.id, prompt.text) == ("dpg-bench", "sample", "a cabbage with dew")
    assert prompt.checks == (
        Check(question="Is there a cabbage?", dimension="entity", subdimension="entity - whole"),
        Check(question="Is it wet?", dimension="attribute", subdimension="attribute - texture", parents=(0,)),
    )
    assert found.defects == {"question that depends on one that is not there": 1}


def test_t2i_compbench_is_a_folder_of_categories(tmp_path: Path) -> None:
    written(tmp_path, "two boys\nsix airplanes", "numeracy_val.txt")
    color = written(tmp_path, "a green bench and a blue bowl\n", "color_val.txt")
    written(tmp_path, "where it is from", "SOURCE.txt")
    found = read_prompts(tmp_path)
    assert found.name == "t2i-compbench"
    assert [(prompt.id, prompt.tags["category"]) for prompt in found.prompts] == [
        ("color_0", "color"),
        ("numeracy_0", "numeracy"),
        ("numeracy_1", "numeracy"),
    ]
    assert read_prompts(color).prompts == found.prompts[:1]


def test_a_folder_of_texts_has_a_prompt_in_each_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in (10, 2):
        written(tmp_path, f"prompt {number}\n", f"{number}.txt")
    found = read_prompts(tmp_path)
    assert [(prompt.id, prompt.text) for prompt in found.prompts] == [("2", "prompt 2"), ("10", "prompt 10")]
    before = found.digest
    written(tmp_path, "another\n", "2.txt")
    assert read_prompts(tmp_path).digest != before


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_columns_say_what_a_table_has(tmp_path: Path, kind: str) -> None:
    rows = [
        {"key": "a", "caption": "a red square", "set": "colors"},
        {"key": "b", "caption": "two", "set": ""},
    ]
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    text = "\n".join(lines if kind == "csv" else map(json.dumps, rows))
    path = written(tmp_path, text, f"table.{kind}")
    found = read_prompts(path, columns={"text": "caption", "id": "key", "theme": "set"})
    assert found.prompts == (
        ArenaPrompt(id="a", text="a red square", tags={"theme": "colors"}),
        ArenaPrompt(id="b", text="two", tags={"theme": ""}),
    )
    assert [prompt.id for prompt in read_prompts(path, columns={"text": "caption"}).prompts] == ["0", "1"]
    with pytest.raises(ConfigError, match=r"none of the known formats.*caption, key, set"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="as text=COLUMN"):
        read_prompts(path, columns={"id": "key"})
    if kind == "csv":
        with pytest.raises(ConfigError, match="lacks the columns absent"):
            read_prompts(path, columns={"text": "absent"})


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ('{"tag": "colors", "include": [{"count": 1}], "prompt": "a"}', "not a list of objects"),
        ('{"tag": "colors", "include": 3, "prompt": "a"}', "not a list of objects"),
        ('{"tag": "colors", "include": [], "prompt": ""}', "prompt is missing or empty"),
        ('{"prompt": "a", "vqa_list": [["b", "c"]], "skills": []}', "not aligned"),
        ('{"tag": "colors", "include": [], "prompt": "a"}\n{"tag"', "line 2: not JSON"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        read(tmp_path, row)


@pytest.mark.parametrize(("keys", "wrong"), [("aa", "two prompts have the id 'a'"), ("a/", "part of a file")])
def test_ids_name_files(tmp_path: Path, keys: str, wrong: str) -> None:
    path = written(tmp_path, f"key,text\n{keys[0]},one\n{keys[1]},two\n", "table.csv")
    with pytest.raises(ConfigError, match=wrong):
        read_prompts(path, columns={"text": "text", "id": "key"})
