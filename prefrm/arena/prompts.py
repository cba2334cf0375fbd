"""Readers of prompt sets: the format of a file or folder is told by its contents.

| contents | format |
|---|---|
| a table with `index`, `prompt_en` and `sub_dims_en`, or those of `zh` | UniGenBench |
| lines of JSON with `tag`, `include` and `prompt` | GenEval |
| lines of JSON with `prompt`, `vqa_list` and `skills` | GenEval2 |
| a table with `item_id`, `text`, `question_natural_language` and others | DPG-Bench |
| files `color_val.txt`, `shape_val.txt` and others, or one of them | T2I-CompBench |
| a folder of other text files | one prompt in each, such as the prompts of DPG-Bench |
| any other text | one prompt in each line |

Of any other table, `columns` says what to read.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrm.arena import benchmarks, unigenbench
from prefrm.arena.values import ArenaPrompt, PromptSet
from prefrm.errors import ConfigError, DataError
from prefrm.files import read_regular
from prefrm.rows import read_rows, read_text

__all__ = ["read_prompts"]

MOST_BYTES = 64 * 2**20
"""Of a file of prompts; DPG-Bench's questions, the largest published ones, have 5 MB."""
NOT_IN_NAMES = ("/", "\\", "\0")
"""What an id has not, as names of files are made of it."""
TEXT, TEXTS, COMPBENCH = "text", "texts", "t2i-compbench"
"""Names of sets: of plain lines, of a folder of texts, and of T2I-CompBench."""
TABLES = (".csv", ".jsonl", ".tsv", ".json")
"""Files that are not plain lines, whatever is in them."""

Row = dict[str, Any]
Found = tuple[str, Sequence[ArenaPrompt]]
"""The name of a set, and its prompts."""


def read_prompts(path: Path | str, *, columns: Mapping[str, str] | None = None) -> PromptSet:
    """The prompts in a file or a folder, whose format is told by its contents.

    Prompts without an id of their own are numbered from 0 on; blank lines are not counted.

    Args:
        path: of the file or the folder.
        columns: of a CSV or JSONL file of another format, what is read -> its column: "text" of the prompt,
            "id" if there is one, and any name of a tag.

    Raises:
        ConfigError: the file cannot be read, is of no known format, or two prompts have the same id.
    """
    path, defects = Path(path), Counter[str]()
    try:
        contents = _contents(path)
        name, prompts = _prompts(path, contents, columns, defects)
    except OSError as error:
        raise ConfigError(f"the prompts {path} cannot be read: {error.strerror or error}") from error
    except DataError as error:
        named = str(path) in str(error)
        raise ConfigError(str(error) if named else f"the prompts {path}: {error}") from error
    _check_ids(path, prompts)
    return PromptSet(
        name=name,
        digest=_digest(path, contents),
        prompts=tuple(prompts),
        defects={kind: count for kind, count in defects.items() if count},
    )


def _contents(path: Path) -> dict[Path, bytes]:
    if not path.is_dir():
        return {path: read_regular(path, MOST_BYTES)}
    files = sorted(path.glob("*.txt"), key=_by_number)
    if categories := [file for file in files if benchmarks.compbench_category(file)]:
        files = categories
    return {file: read_regular(file, MOST_BYTES) for file in files}


def _by_number(file: Path) -> tuple[int, str]:
    return int(file.stem) if file.stem.isascii() and file.stem.isdigit() else -1, file.name


def _digest(path: Path, contents: Mapping[Path, bytes]) -> str:
    if not path.is_dir():
        return hashlib.sha256(contents[path]).hexdigest()
    lines = [f"{hashlib.sha256(content).hexdigest()}  {file.name}\n" for file, content in contents.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _prompts(
    path: Path, contents: Mapping[Path, bytes], columns: Mapping[str, str] | None, defects: Counter[str]
) -> Found:
    texts = {file: _text(file, content) for file, content in contents.items()}
    if columns is not None:
        return _mapped(path, texts, columns)
    if not path.is_dir() and (found := _table(path, texts[path], defects)):
        return found
    if texts and all(map(benchmarks.compbench_category, texts)):
        return COMPBENCH, [one for file, text in texts.items() for one in _compbench(file, text)]
    if path.is_dir():
        found_texts = [(file.stem, text.strip()) for file, text in texts.items()]
        return TEXTS, [ArenaPrompt(id=stem, text=text) for stem, text in found_texts if text]
    return TEXT, [ArenaPrompt(id=str(n), text=line) for n, line in enumerate(_lines(texts[path]))]


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompts {path} are not UTF-8 text: {error.reason}") from error


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def _compbench(file: Path, text: str) -> list[ArenaPrompt]:
    category = benchmarks.compbench_category(file)
    return [
        ArenaPrompt(id=f"{category}_{n}", text=line, tags={"category": category})
        for n, line in enumerate(_lines(text))
    ]


def _table(path: Path, text: str, defects: Counter[str]) -> Found | None:
    """The prompts of a published table; None if it is text of plain lines.

    Raises:
        ConfigError: it is a table of no known format.
    """
    given = _columns(text)
    if language := unigenbench.language(given):
        parse = [unigenbench.parse_row(row, language, defects) for row in _rows(path, ".csv")]
        return unigenbench.set_name(language, parse), parse
    if set(benchmarks.DPG_COLUMNS) <= given:
        return "dpg-bench", benchmarks.dpg_prompts(list(_rows(path, ".csv")), defects)
    lines: list[tuple[str, Sequence[str], Callable[[int, Row], ArenaPrompt]]] = [
        ("geneval", benchmarks.GENEVAL_COLUMNS, benchmarks.geneval_prompt),
        ("geneval2", benchmarks.GENEVAL2_COLUMNS, benchmarks.geneval2_prompt),
    ]
    for name, names, read in lines:
        if set(names) <= given:
            rows = _rows(path, ".jsonl", names)
            return name, [read(number, row) for number, row in enumerate(rows)]
    if path.suffix.lower() in TABLES or text.lstrip().startswith("{"):
        known = ", ".join(("unigenbench", *(name for name, _, _ in lines), "dpg-bench"))
        raise ConfigError(
            f"{path} is a table of none of the known formats ({known}); its columns are "
            f"{', '.join(sorted(given)) or 'none'}: name the one with the prompts as the column of text"
        )
    return None


def _columns(text: str) -> set[str]:
    """The names of the columns of a CSV or JSONL file; of any other text, what its first line is as such."""
    first = next(iter(_lines(text)), "")
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return set(found)
    return {name.strip() for name in next(csv.reader([first]), [])}


def _rows(path: Path, kind: str, columns: Sequence[str] = ()) -> Iterable[Row]:
    for line, row in read_rows(path, columns, kind=kind):
        if isinstance(row, DataError):
            raise ConfigError(f"{path} line {line}: {row}")
        yield row


def _mapped(path: Path, texts: Mapping[Path, str], columns: Mapping[str, str]) -> Found:
    if "text" not in columns or path.is_dir():
        raise ConfigError(
            f"columns say where the text of a table's prompts is, as text=COLUMN; received {dict(columns)} "
            f"for {path}"
        )
    kind = ".jsonl" if texts[path].lstrip().startswith("{") else ".csv"
    tags = [name for name in columns if name not in ("text", "id")]
    prompts = []
    for number, row in enumerate(_rows(path, kind, tuple(columns.values()))):
        values = {name: row[columns[name]] for name in tags}
        prompts.append(
            ArenaPrompt(
                id=read_text(row, columns["id"]) if "id" in columns else str(number),
                text=read_text(row, columns["text"]),
                tags={name: str(value).strip() for name, value in values.items() if value is not None},
            )
        )
    return "table", prompts


def _check_ids(path: Path, prompts: Sequence[ArenaPrompt]) -> None:
    if not prompts:
        raise ConfigError(f"{path} has no prompt; write one in each line")
    counts = Counter(prompt.id for prompt in prompts)
    if repeated := [id for id, count in counts.items() if count > 1]:
        raise ConfigError(f"{path}: two prompts have the id {repeated[0]!r}; give each its own")
    if unfit := [id for id in counts if id in (".", "..") or any(part in id for part in NOT_IN_NAMES)]:
        raise ConfigError(f"{path}: the id {unfit[0]!r} cannot be part of a file's name")
