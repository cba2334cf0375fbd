"""How the folder of a dataset is written, whole or not at all, by a build that may be killed and started
again.

Unfinished work is in a folder `.building` inside: the splits that are complete, and whatever a recipe keeps
there.
"""

import errno
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data_recipes.plan import Built, Context, InterruptedBuild, Plan, Progress, Split
from prefrm.errors import DataError, DatasetError, PrefrmError
from prefrm.files import write_whole
from prefrm.records import (
    SPLITS,
    DatasetInfo,
    Fingerprint,
    PreferenceGroup,
    SplitCounts,
    prompt_key,
    read_prompt_keys,
    write_groups,
    write_info,
)

__all__ = ["build_dataset", "prove_disjoint"]

WORK = ".building"
WORK_VERSION = 4  # of the format in `.building`; another version starts the build from the beginning
KEPT = "kept"  # a file in `.building`: an error leaves the folder for the next build
# Options of the second pass, which reads nothing of the source: the same rows are split in another way.
SPLITTING = ("seed", "validation", "test")
NAMED = 3  # offenders that an error names; the rest are counted
FILES = ("dataset.json", *(f"{split}.parquet" for split in SPLITS))


def build_dataset(
    folder: Path,
    info: DatasetInfo,
    plan: Callable[[Context], Plan],
    *,
    seed: int,
    overwrite: bool,
    processes: int,
    apart_from: Sequence[str],
    progress: Progress,
) -> Built:
    """Write what a recipe plans; `info` has its name, its options, its licence and its source.

    Raises:
        InterruptedBuild: a disk is full, the Hub does not answer, a split is empty, ...; what was read is
            kept.
        DataError: the source is not what it should be, a prompt is in two splits, or the folder holds a
            dataset and `overwrite` is not set. What the folder held is still there.
    """
    if not overwrite:
        _require_room(folder)
    options = {name: value for name, value in info.options.items() if name not in SPLITTING}
    work = _claim(folder / WORK, {"recipe": info.recipe, "options": options})
    try:
        with ExitStack() as stack:
            context = Context(
                seed=seed,
                folder=work,
                keep=partial(_keep, work),
                processes=processes,
                apart_from=apart_from,
                progress=progress,
                stack=stack,
            )
            built = _write(plan(context), info, context)
    except InterruptedBuild:
        raise
    except PrefrmError as error:
        if not (work / KEPT).exists():
            shutil.rmtree(work)
            raise
        raise InterruptedBuild(
            f"{error}; what was read is kept; run the same command again to resume "
            "(seed, validation, test and --apart-from may differ)"
        ) from error
    except (OSError, sqlite3.OperationalError) as error:
        if not _is_full(error):
            raise
        raise InterruptedBuild(
            f"no space left on the disk of {folder}: a build needs about twice the size of the images and "
            "videos; free some space and run the same command again to resume"
        ) from error
    _move(work, folder)
    shutil.rmtree(work)
    return built


def prove_disjoint(prompts: Mapping[str, Iterable[str]]) -> None:
    """Prove that no prompt is in two splits, in whatever letter case and spacing.

    Args:
        prompts: by split; each is read once, and all but those of the last split are kept in memory.

    Raises:
        DataError: a prompt is in two splits; both are named.
    """
    *_, last = prompts
    home: dict[str, str] = {}
    shared: dict[str, str] = {}
    for split, texts in prompts.items():
        for text in texts:
            key = prompt_key(text)
            first = home.get(key, split) if split == last else home.setdefault(key, split)
            if first != split:
                shared.setdefault(key, f"{text!r} in {first} and {split}")
    if shared:
        raise DataError(
            f"prompts in more than one split: {len(shared)}: {_some([*shared.values()])}; "
            "results on a split that shares prompts with train are not meaningful"
        )


def _write(plan: Plan, info: DatasetInfo, context: Context) -> Built:
    _drop_splits_of_others(plan, info, context)
    fingerprints, counts = {}, {}
    for name, split in plan.splits.items():
        fingerprints[name], counts[name] = _write_split(split, context, name)
        if not counts[name].groups:
            reasons = ", ".join(f"{n} {reason}" for reason, n in counts[name].left_out.items())
            found = "; ".join(filter(None, (reasons, _some(plan.left_out))))
            raise DatasetError(f"the {name} split has no usable group; left out: {found or 'nothing'}")
    # The largest split comes last.
    names = sorted(counts, key=lambda name: counts[name].groups)
    prove_disjoint({name: read_prompt_keys(context.folder, name) for name in names})
    whole = DatasetInfo(
        recipe=info.recipe,
        options=info.options,
        fingerprints=fingerprints,
        splits=counts,
        licence=info.licence,
        source=info.source,
        apart_from=plan.apart_from,
    )
    write_info(context.folder, whole)
    examples = {name: tuple(split.notes.examples) for name, split in plan.splits.items()}
    return Built(info=whole, left_out=tuple(plan.left_out), contradictory=examples)


def _keep(folder: Path, whether: bool) -> None:
    mark = folder / KEPT
    if whether != mark.exists():
        mark.touch() if whether else mark.unlink()


def _drop_splits_of_others(plan: Plan, info: DatasetInfo, context: Context) -> None:
    """Delete the splits that an earlier build finished, if its files or its shares were others."""
    basis = {name: info.options.get(name) for name in SPLITTING}
    text = json.dumps([basis, dict(plan.apart_from), plan.state], sort_keys=True)
    mark = context.folder / "splits.json"
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == text):
        for split in SPLITS:
            for name in (f"{split}.json", f"{split}.parquet"):
                (context.folder / name).unlink(missing_ok=True)
        write_whole(mark, text)


def _write_split(split: Split, context: Context, name: str) -> tuple[str, SplitCounts]:
    """Write a split, unless an earlier build did; returns its fingerprint and its counts."""
    done = context.folder / f"{name}.json"
    if done.is_file():
        found = json.loads(done.read_text(encoding="utf-8"))
        return found["fingerprint"], SplitCounts(**found["counts"])
    total, numbers = Fingerprint(), Counter[str]()

    def watched() -> Iterator[PreferenceGroup]:
        context.progress(name, 0, split.total)
        for n, group in enumerate(split.groups, 1):
            yield group
            total.add(group)
            numbers.update(
                candidates=len(group.candidates), strict=sum(c.is_strict for c in group.comparisons)
            )
            numbers.update(ties=sum(not c.is_strict for c in group.comparisons))
            context.progress(name, n, max(n, split.total))

    groups = write_groups(watched(), context.folder, name)
    counts = SplitCounts(
        groups=groups,
        candidates=numbers["candidates"],
        strict=numbers["strict"],
        ties=numbers["ties"],
        contradictory=split.notes.contradictory,
        left_out=split.notes.left_out,
        first_wins=split.notes.first_wins,
        drawn=split.drawn,
        complete=split.complete,
    )
    write_whole(done, json.dumps({"fingerprint": total.hexdigest(), "counts": asdict(counts)}))
    return total.hexdigest(), counts


def _is_full(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error)


def _claim(folder: Path, identity: Mapping[str, Any]) -> Path:
    """The folder, with what an earlier build of the same identity left there, or else empty."""
    mark, text = folder / "build.json", json.dumps({"version": WORK_VERSION, **identity}, sort_keys=True)
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_whole(mark, text)
    return folder


def _some(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return "; ".join(lines[:NAMED]) + more


def _require_room(folder: Path) -> None:
    if found := [name for name in FILES if (folder / name).exists()]:
        raise DataError(
            f"{folder} already holds {', '.join(found)}; choose another folder, or pass "
            "--overwrite to replace it"
        )


def _move(dataset: Path, folder: Path) -> None:
    """Put a whole dataset in the place of what the folder holds, so that no stale split outlives it."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in reversed(FILES):
        if (dataset / name).exists():
            (dataset / name).replace(folder / name)
