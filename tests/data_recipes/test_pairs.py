import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from data_recipes.pipeline.recipe import MAX_CANDIDATES
from data_recipes.plan import Built
from data_recipes.registry import RECIPES
from prefrm import media
from prefrm.errors import ConfigError, DatasetError
from prefrm.records import Comparison, PreferenceGroup, read_groups

COLUMNS = ("prompt", "image_1", "image_2", "preferred")
WHOLE = {"validation": 0.0, "test": 0.0}  # everything in train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a.png .. f.png, each of another color, and bad.png, which is none."""
    for n, name in enumerate("abcdef"):
        Image.new("RGB", (8, 8), (40 * n, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    return tmp_path


def write_csv(folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = COLUMNS) -> Path:
    path = folder / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def grouped(source: Path) -> tuple[list[PreferenceGroup], Built]:
    out = source.parent / "out"
    built = RECIPES["pairs"].build(out, source=source, overwrite=True, **WHOLE)
    return list(read_groups(out, "train")), built


def judged(group: PreferenceGroup, folder: Path, name_1: str, name_2: str) -> list[float]:
    """What the group's comparisons say of P(name_1 is preferred to name_2)."""
    i, j = (group.candidates.index((folder / f"{name}.png").read_bytes()) for name in (name_1, name_2))
    both = [c if c.i == i else c.swapped() for c in group.comparisons]
    return [c.p for c in both if (c.i, c.j) == (i, j)]


@pytest.mark.parametrize(("preferred", "p"), [("1", 1.0), ("2", 0.0), ("tie", 0.5)])
def test_polarity_on_a_literal_row(folder: Path, preferred: str, p: float) -> None:
    """`preferred` 1 means that image_1 is preferred to image_2, so P(image_1 over image_2) is 1."""
    (group,), _ = grouped(write_csv(folder, [("a cat", "a.png", "b.png", preferred)]))
    assert judged(group, folder, "a", "b") == [p]
    (comparison,) = group.comparisons
    assert (comparison.i, comparison.j) == (0, 1)


def test_csv_and_jsonl_say_the_same(folder: Path) -> None:
    rows = [("a cat, black", "a.png", "b.png", "1"), ("a dog", "c.png", "d.png", "TIE")]
    from_csv, _ = grouped(write_csv(folder, rows))
    objects = [
        {"prompt": "a cat, black", "image_1": "a.png", "image_2": "b.png", "preferred": 1, "annotator": 7},
        {"prompt": "a dog", "image_1": "c.png", "image_2": "d.png", "preferred": "tie"},
    ]
    from_jsonl, _ = grouped(write_jsonl(folder, objects))
    assert [g.id for g in from_csv] == ["pairs.csv:2", "pairs.csv:3"]
    assert [g.id for g in from_jsonl] == ["pairs.jsonl:1", "pairs.jsonl:2"]
    assert [(g.prompt, g.candidates, g.comparisons) for g in from_csv] == [
        (g.prompt, g.candidates, g.comparisons) for g in from_jsonl
    ]


def test_pairs_of_a_prompt_that_share_images_become_one_group(folder: Path) -> None:
    rows = [
        ("a cat", "a.png", "b.png", "1"),
        ("a cat", "d.png", "e.png", "1"),
        ("a cat", "b.png", "c.png", "2"),
        ("a dog", "a.png", "c.png", "1"),
        ("a cat", "a.png", "b.png", "2"),
    ]
    groups, built = grouped(write_csv(folder, rows))
    assert [(g.id, g.prompt, len(g.candidates), len(g.comparisons)) for g in groups] == [
        ("pairs.csv:2", "a cat", 3, 2),
        ("pairs.csv:3", "a cat", 2, 1),
        ("pairs.csv:5", "a dog", 2, 1),
    ]
    assert judged(groups[0], folder, "a", "b") == [0.5]
    assert judged(groups[0], folder, "b", "c") == [0.0]
    assert (built.info.splits["train"].ties, built.info.splits["train"].contradictory) == (1, 1)
    assert built.contradictory["train"] == ("pairs.csv:2 (candidates 0 and 1)",)


@pytest.mark.parametrize("shape", ["chain", "star", "all"])
def test_many_linked_pairs_become_groups_of_bounded_size_and_none_is_lost(tmp_path: Path, shape: str) -> None:
    for n in range(20):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / f"{n}.png")
    edges = {
        "chain": [(n, n + 1) for n in range(19)],
        "star": [(0, n) for n in range(1, 20)],
        "all": list(itertools.combinations(range(20), 2)),
    }[shape]
    groups, _ = grouped(write_csv(tmp_path, [("a cat", f"{i}.png", f"{j}.png", "1") for i, j in edges]))
    assert max(len(group.candidates) for group in groups) == MAX_CANDIDATES
    place = {(tmp_path / f"{n}.png").read_bytes(): n for n in range(20)}
    found = []
    for group in groups:
        winners = [c if c.p == 1.0 else c.swapped() for c in group.comparisons]
        found += [(place[group.candidates[c.i] or b""], place[group.candidates[c.j] or b""]) for c in winners]
    assert sorted(found) == edges


def test_one_file_by_two_names_is_one_candidate(folder: Path) -> None:
    (folder / "sub").mkdir()
    rows = [("a cat", "a.png", "b.png", "1"), ("a cat", "./sub/../b.png", "c.png", "1")]
    (group,), _ = grouped(write_csv(folder, rows))
    assert len(group.candidates) == 3


def test_the_place_of_a_candidate_says_nothing_of_its_label(folder: Path) -> None:
    """The same pairs written the other way round give the same groups."""
    forward, _ = grouped(write_csv(folder, [(n, "a.png", f"{n}.png", "1") for n in "bcdef"]))
    backward, _ = grouped(write_csv(folder, [(n, f"{n}.png", "a.png", "2") for n in "bcdef"]))
    assert forward == backward
    assert {c.p for g in forward for c in g.comparisons} == {0.0, 1.0}


def test_an_unreadable_image_is_named_by_record_and_takes_nothing_else_with_it(folder: Path) -> None:
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    rows = [
        ("a cat", "a.png", "b.png", "1"),
        ("a cat", "b.png", "bad.png", "1"),
        ("a cat", "bad.png", "c.png", "1"),
        ("a cat", "c.png", "d.png", "1"),
        ("a dog", "cut.png", "gone.png", "1"),
    ]
    groups, built = grouped(write_csv(folder, rows))
    # What held a, b, c and d together is gone, so two groups remain.
    assert [(g.id, len(g.candidates)) for g in groups] == [("pairs.csv:2", 2), ("pairs.csv:5", 2)]
    assert [line.split(": ")[0] for line in built.left_out] == [
        "record pairs.csv:3",
        "record pairs.csv:4",
        "record pairs.csv:6",
    ]
    assert str(folder / "bad.png") in built.left_out[0]
    assert "cut.png" in built.left_out[2]
    assert built.info.left_out == {"broken image": 3}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (("a cat", "a.png", "b.png", "3"), "line 2: preferred must be 1, 2 or tie; received '3'"),
        (("a cat", "a.png", "b.png"), "line 2: preferred is missing or empty"),
        ((" ", "a.png", "b.png", "1"), "line 2: prompt is missing or empty"),
        (("a cat", "a.png", "a.png", "1"), "line 2: image_1 and image_2 are the same file, a.png"),
        (("a cat", "a.png", "./a.png", "1"), "line 2: image_1 and image_2 are the same file, a.png"),
        (("a cat", "a.png", "b.png", "1", "x"), "line 2: more fields than the header has"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(folder: Path, row: Sequence[str], complaint: str) -> None:
    source = write_csv(folder, [row, ("a dog", "a.png", "b.png", "1")])
    assert complaint in complaint_about(source)


def test_many_bad_rows_are_counted(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 9 bad rows: line 2: .*; and 4 more"):
        grouped(write_csv(folder, [("a cat", "a.png", "b.png", "?")] * 9))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.csv", b"", "lacks the columns prompt, image_1, image_2; its header is empty"),
        ("p.csv", b"prompt,image_1,preferred\n", "lacks the columns image_2; its header is prompt"),
        ("p.csv", b"prompt,image_1,image_2,preferred\n", "no usable judgement; left out: nothing"),
        ("p.jsonl", b"{", "line 1: not JSON: "),
        ("p.jsonl", b"\n[1]", "line 2: not a JSON object: [1]"),
        ("p.jsonl", b'{"prompt": {}, "image_1": 1}', "prompt must be text; received an object"),
        ("p.txt", b"", "must be a .csv or a .jsonl file"),
    ],
)
def test_a_file_of_another_format_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        grouped(tmp_path / name)
    assert complaint in str(caught.value)


def complaint_about(source: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        grouped(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompt": "a \ud83d"}, "line 2: prompt is not valid Unicode text: a lone surrogate, \\ud83d"),
        ({"image_1": "\udcff.png"}, "line 2: image_1 is not valid Unicode text"),
        ({"image_2": "b\0.png"}, "line 2: image_2 has a NUL character in it"),
        ({"preferred": True}, "line 2: preferred must be text; received true or false"),
        ({"preferred": None}, "line 2: preferred is missing or empty"),
        ({"preferred": 1.5}, "line 2: preferred must be 1, 2 or tie; received 1.5"),
        ({"prompt": ["a cat"]}, "line 2: prompt must be text; received a list"),
        (
            {"image_1": "https://example.org/a.png"},
            "line 2: a path is a URL, https://example.org/a.png; nothing",
        ),
        ({"image_1": "data:image/png;base64,AAAA"}, "line 2: a path is a URL, data:image/png"),
        ({"image_2": "s3://bucket/b.png"}, "line 2: a path is a URL, s3://bucket/b.png"),
    ],
)
def test_a_json_row_of_other_values_is_refused_with_its_line(
    folder: Path, fields: dict[str, object], complaint: str
) -> None:
    good = {"prompt": "a cat", "image_1": "a.png", "image_2": "b.png", "preferred": 1}
    assert complaint in complaint_about(write_jsonl(folder, [good, good | fields]))


def test_whole_numbers_may_be_written_as_floats(folder: Path) -> None:
    row = {"prompt": "a cat", "image_1": "a.png", "image_2": "b.png", "preferred": 2.0}
    ((group,), _) = grouped(write_jsonl(folder, [row]))
    assert judged(group, folder, "a", "b") == [0.0]
    ((group,), _) = grouped(write_csv(folder, [("x", "a.png", "b.png", "1.0")]))
    assert judged(group, folder, "a", "b") == [1.0]


def test_soft_labels_and_confidences(folder: Path) -> None:
    header = ("prompt", "image_1", "image_2", "p", "weight")
    rows = [
        ("x", "a.png", "b.png", "0.75", "4"),
        ("x", "b.png", "a.png", "0.5", ""),
        ("x", "b.png", "c.png", "1", "0.5"),
    ]
    ((group,), _) = grouped(write_csv(folder, rows, header))
    assert judged(group, folder, "a", "b") == [pytest.approx(3.5 / 5)]
    assert judged(group, folder, "b", "c") == [1.0]
    assert {c.weight for c in group.comparisons} == {5.0, 0.5}
    bad = [("x", "a.png", "b.png", "1.5", ""), ("x", "a.png", "b.png", "1", "-1")]
    assert "line 2: p must be in [0, 1]" in complaint_about(write_csv(folder, bad, header))


def test_a_number_in_place_of_a_text_keeps_its_digits_and_nan_is_no_text(folder: Path) -> None:
    row = {"prompt": 12345678.5, "image_1": "a.png", "image_2": "b.png", "preferred": 1}
    ((group,), _) = grouped(write_jsonl(folder, [row]))
    assert group.prompt == "12345678.5"
    for number in (math.nan, math.inf):
        complaint = complaint_about(write_jsonl(folder, [row | {"prompt": number}]))
        assert "line 1: prompt is missing or empty" in complaint


HEADER = b"prompt,image_1,image_2,preferred\n"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.csv", HEADER + b"x,a,b,1\ny\xff,a,b,1\n", "p.csv line 3 is not UTF-8 text: invalid start byte"),
        ("p.csv", HEADER.decode().encode("utf-16"), "p.csv line 1 is not UTF-8 text"),
        (
            "p.csv",
            HEADER + b'x,a,b,1\n"y,a,b,1\nz,a,b,1\n',
            "the row that starts at line 3 cannot be read: unexpected",
        ),
        (
            "p.csv",
            HEADER + b'x,a,b,1\ny,"a" b,c,1\n',
            "the row that starts at line 3 cannot be read: ',' expected",
        ),
        (
            "p.csv",
            HEADER + b"x" * 200_000 + b",a,b,1\n",
            "at line 2 cannot be read: field larger than field limit",
        ),
        ("p.csv", b"prompt,prompt,image_1,image_2,preferred\n", "has the column prompt more than once"),
        ("p.jsonl", b'{"prompt": "x", "prompt": "y"}', "line 1: it has prompt more than once"),
        ("p.jsonl", b"[" * 100_000, "line 1: not JSON: "),
        ("p.jsonl", b'{"prompt": ' + b"9" * 5000 + b"}", "line 1: not JSON: "),
    ],
)
def test_what_breaks_a_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert complaint in complaint_about(tmp_path / name)


MEANT = [
    "\ufeffprompt,image_1,image_2,preferred\r\n\r\nx,a.png,b.png,1\r\n,,,\r\n{z},a.png,c.png,tie\r\n",
    "prompt, image_1, image_2, preferred, note, note\n\nx, a.png, b.png, 1,,\n  \n{z}, a.png, c.png, tie\n",
    "prompt,image_1,image_2,preferred\r\rx,a.png,b.png,1\r\r{z},a.png,c.png,tie",
    ",,,\nprompt,image_1,image_2,preferred\nx,a.png,b.png,1\n\n{z},a.png,c.png,tie\n",
]


@pytest.mark.parametrize("content", [text.format(z='"y\r\nz"').encode() for text in MEANT])
def test_a_byte_order_mark_any_line_ends_and_blank_lines_are_read_as_they_are_meant(
    folder: Path, content: bytes
) -> None:
    (folder / "p.csv").write_bytes(content)
    groups, _ = grouped(folder / "p.csv")
    assert [(group.id, group.prompt) for group in groups] == [("p.csv:3", "x"), ("p.csv:5", "y\r\nz")]
    assert judged(groups[0], folder, "a", "b") == [1.0]
    assert judged(groups[1], folder, "a", "c") == [0.5]


def test_concatenated_json_lines_keep_no_byte_order_mark(folder: Path) -> None:
    lines = [
        json.dumps({"prompt": prompt, "image_1": "a.png", "image_2": "b.png", "preferred": 1}).encode()
        for prompt in "xy"
    ]
    (folder / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n\xef\xbb\xbf".join(lines))
    groups, _ = grouped(folder / "p.jsonl")
    assert [(group.id, group.prompt) for group in groups] == [("p.jsonl:1", "x"), ("p.jsonl:3", "y")]


def test_a_path_in_a_circle_and_a_folder_are_named(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    rows = [("x", "loop.png", "b.png", "1"), ("y", "a.png", "b.png", "1")]
    _, built = grouped(write_csv(folder, rows))
    assert "loop.png: cannot be read: Too many levels of symbolic links" in built.left_out[0]
    (folder / "folder.csv").mkdir()
    assert "folder.csv has no file" in complaint_about(folder / "folder.csv")


def test_identical_images_are_left_out(folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    rows = [
        ("a cat", "a.png", "copy.png", "2"),
        ("a dog", "a.png", "copy.png", "tie"),
        ("x", "b.png", "c.png", "1"),
    ]
    groups, built = grouped(write_csv(folder, rows))
    assert [group.prompt for group in groups] == ["x"]
    assert built.info.left_out == {"identical candidates": 2}


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.csv does not exist"):
        grouped(tmp_path / "nothing.csv")


def test_neither_a_prompt_nor_an_image_is_in_two_splits(tmp_path: Path) -> None:
    """Each prompt shares one picture with the next of its ten; a copy of a picture is that picture."""
    rows = []
    for n in range(100):
        shared = n if n % 10 else n + 1
        for name, color in ((f"{n}.png", (n, 0, 0)), (f"copy {n}.png", (shared, 0, 9))):
            Image.new("RGB", (4, 4), color).save(tmp_path / name)
        Image.new("RGB", (4, 4), (n + 1, 0, 9)).save(tmp_path / f"next {n}.png")
        rows.append((f"prompt {n}", f"{n}.png", f"copy {n}.png", "1"))
        rows += [(f"Prompt  {n}", f"{n}.png", f"next {n}.png", "1")] if n % 10 < 9 else []
    source = write_csv(tmp_path, rows)
    built = RECIPES["pairs"].build(tmp_path / "out", source=source, validation=0.3, test=0.3)
    assert list(built.groups) == ["train", "validation", "test"]
    splits = [list(read_groups(tmp_path / "out", split)) for split in built.groups]
    assert sum(c.weight for groups in splits for group in groups for c in group.comparisons) == len(rows)
    images = [{image for group in groups for image in group.candidates} for groups in splits]
    assert sum(map(len, images)) == len(set().union(*images))
    numbers = [{group.prompt.split()[1] for group in groups} for groups in splits]
    assert sum(map(len, numbers)) == 100


def test_a_build_reads_back(folder: Path, tmp_path: Path) -> None:
    for n in range(80):
        Image.new("RGB", (8, 8), (n, 0, 99)).save(folder / f"{n}.png")
    rows = [(f"prompt {n}", f"{2 * n}.png", f"{2 * n + 1}.png", "12"[n % 2]) for n in range(40)]
    rows.append(("prompt 0", "0.png", "bad.png", "1"))
    out = tmp_path / "out"
    built = RECIPES["pairs"].build(out, source=write_csv(folder, rows), validation="0.2", test="0.3")
    assert sum(built.groups.values()) == 40
    assert [line.split(": ")[0] for line in built.left_out] == ["record pairs.csv:42"]
    groups = [g for split in built.groups for g in read_groups(out, split)]
    assert {g.prompt for g in groups} == {f"prompt {n}" for n in range(40)}
    assert all(media.decode(image or b"").size == (8, 8) for g in groups for image in g.candidates)
    assert {c for g in groups for c in g.comparisons} == {
        Comparison(i=0, j=1, p=1.0),
        Comparison(i=0, j=1, p=0.0),
    }


def test_too_few_prompts_for_a_split_is_an_error_that_helps(folder: Path, tmp_path: Path) -> None:
    source = write_csv(folder, [("a cat", "a.png", "b.png", "1")])
    with pytest.raises(DatasetError, match="none falls into the validation split; give validation=0 to do"):
        RECIPES["pairs"].build(tmp_path / "out", source=source, test=0.0)
    assert RECIPES["pairs"].build(tmp_path / "out", source=source, **WHOLE).groups == {"train": 1}


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.1)])
def test_shares_out_of_range_are_refused(tmp_path: Path, validation: float, test: float) -> None:
    with pytest.raises(ConfigError, match=f"received validation={validation}, test={test}"):
        RECIPES["pairs"].build(tmp_path, source="x.csv", validation=validation, test=test)


def test_texts_with_context_and_criterion(folder: Path) -> None:
    rows = [
        {"prompt": "What is it?", "text_1": "A cat.", "text_2": "a.png", "preferred": 2, "context": "a.png"},
        {
            "prompt": "x",
            "text_1": "y",
            "text_2": "z",
            "p": 0.25,
            "context": ["a.png", "b.png"],
            "criterion": "style",
        },
    ]
    out = folder / "out"
    RECIPES["pairs"].build(out, source=write_jsonl(folder, rows), kind="text", **WHOLE)
    first, second = read_groups(out, "train")
    a, b = ((folder / name).read_bytes() for name in ("a.png", "b.png"))
    assert (first.context, first.criterion) == ((a,), "")
    assert (second.context, second.criterion) == ((a, b), "style")
    (c,) = first.comparisons
    assert first.candidates[c.i if c.p == 1.0 else c.j] == "a.png"
    same = [rows[0] | {"text_2": "A cat."}]
    with pytest.raises(DatasetError, match="line 1: text_1 and text_2 are the same text, A cat"):
        RECIPES["pairs"].build(folder / "same", source=write_jsonl(folder, same), kind="text", **WHOLE)
