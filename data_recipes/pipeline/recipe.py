"""A recipe for a published dataset: a reader and a function from a row to judgements, over the pipeline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Annotated, Any, ClassVar, Self

from data_recipes.pipeline.contents import PackWriter
from data_recipes.pipeline.grouping import Draft, Said, draft_groups
from data_recipes.pipeline.scan import BAD_ROW, FileReader, Judge, Scanner, scan_files, scan_rows
from data_recipes.pipeline.settle import BROKEN, Settled, settle, was_removed
from data_recipes.pipeline.spool import Spool
from data_recipes.pipeline.stores import open_store
from data_recipes.plan import Context, Notes, Plan, Split
from data_recipes.readers import HUB, Part
from data_recipes.recipe import Recipe, Source
from prefrm.data import dataset_folder
from prefrm.errors import ConfigError, DatasetError
from prefrm.records import SPLITS, Comparison, PreferenceGroup, read_info

__all__ = ["ALL", "MAX_CANDIDATES", "AxisOptions", "SourceOptions", "dataset", "one_of"]

MAX_CANDIDATES = 8  # a judge compares every two candidates of a group, in both orders
NAMED = 5  # bad rows that an error describes; the rest are counted
NAMED_ROWS = 100  # rows with broken images or videos that a build names
ALONE = "only candidate of its prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Where a dataset is, and the shares of prompts that are held out of what it calls train itself."""

    source: Annotated[str, "the file or folder as it is published, or hf://org/name[@revision]"]
    images: Annotated[
        str, "folder, zip or tar that paths of images and videos are relative to, if not that of the file"
    ] = ""
    validation: Annotated[float, "share of the prompts in validation, if the source has no such split"] = 0.05
    test: Annotated[float, "share of the prompts in test, if the source has no such split"] = 0.1

    def __post_init__(self) -> None:
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ConfigError(
                "validation and test must be at least 0 and leave something for train; "
                f"received validation={self.validation}, test={self.test}"
            )

    def each_axis(self) -> Iterator[tuple[str, Self]]:
        """(criterion of the groups, options to read them with)."""
        yield "", self


ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisOptions(SourceOptions):
    """What candidates are compared by, of a source with several axes: one, or each with its criterion.

    A subclass gives `axis` its default. Groups by one axis have no criterion: it is that of all of them.

    Attributes:
        AXES: value of `axis` -> what rows or files call it.
        CRITERIA: value of `axis` -> criterion, where that is not the value itself. "" is overall preference.
        ALL_AXES: those of `axis=all`, by default every one; none where an axis is a file, whose rows do not
            name it.
    """

    AXES: ClassVar[Mapping[str, str]]
    CRITERIA: ClassVar[Mapping[str, str]] = {"overall": ""}
    ALL_AXES: ClassVar[Sequence[str] | None] = None

    axis: Annotated[str, "what candidates are compared by"]

    def __post_init__(self) -> None:
        super(AxisOptions, self).__post_init__()
        one_of("axis", self.axis, (*self.AXES, *([ALL] if self.all_axes else ())))

    def each_axis(self) -> Iterator[tuple[str, Self]]:
        """(criterion of the groups, options with one axis)."""
        if self.axis != ALL:
            yield "", self
            return
        for axis in self.all_axes:
            yield self.CRITERIA.get(axis, axis), replace(self, axis=axis)

    @property
    def all_axes(self) -> Sequence[str]:
        """The axes that `axis=all` reads."""
        return tuple(self.AXES) if self.ALL_AXES is None else self.ALL_AXES

    @property
    def key(self) -> str:
        """What rows or files call the axis."""
        return self.AXES[self.axis]

    @property
    def keys(self) -> list[str]:
        """`key` of each axis that is read."""
        return [options.key for _, options in self.each_axis()]


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ConfigError` if an option is not one of its choices."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; received {value!r}")


def _images(archives: str, options: SourceOptions) -> tuple[str, str]:
    """Where paths in rows lead: of a dataset on the Hub, into its own repository and not onto this disk."""
    if options.images or not options.source.startswith(HUB):
        return options.images, ""
    return options.source, archives


def dataset(
    *,
    name: str,
    summary: str,
    source: Source,
    read: Callable[[Any], Sequence[Part]],
    judge: Judge,
    options_type: type[SourceOptions] = SourceOptions,
    archives: str = "",
    images: Callable[[Any], tuple[str, str]] | None = None,
    max_candidates: int = MAX_CANDIDATES,
    strict: bool = False,
) -> Recipe:
    """A recipe over the pipeline.

    Args:
        name: what the command line calls it.
        summary: a line about it.
        source: who publishes it, where, under which licence, and how large it is.
        read: from the options to the parts of the source (`data_recipes.readers.read_source`).
        judge: from a row and the options to what it says; a function of a module, which other processes
            import.
        options_type: a subclass of `SourceOptions`.
        archives: on the Hub, the pattern of the archives that hold the images; without it, they are files of
            the repository.
        images: the store of files, as the arguments of `open_store`, where it follows another rule.
        max_candidates: of a group, at most. A source whose rows are rankings has whole rankings in its
            groups.
        strict: refuse a source with bad rows, named by line, rather than leave them out: a person wrote it.
    """
    pieces = _Pieces(
        judge=judge,
        images=images or partial(_images, archives),
        max_candidates=max_candidates,
        strict=strict,
    )
    return Recipe(
        name=name,
        summary=summary,
        source=source,
        options_type=options_type,
        plan=lambda options, context: pieces.plan(read(options), options, context),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """The arguments of `dataset` that the passes need."""

    judge: Judge
    images: Callable[[Any], tuple[str, str]]
    max_candidates: int
    strict: bool

    def plan(self, parts: Sequence[Part], options: Any, context: Context) -> Plan:
        """Read, check and settle everything; the groups are drawn afterwards, from the spool."""
        for other in context.apart_from:  # a mistake is found before hours of reading
            read_info(dataset_folder(other))
        stamps = [f"{part.name} {part.split} {part.stamp}" for part in parts]
        spool = context.stack.enter_context(closing(Spool(context.folder / "spool", stamps)))
        context.keep(spool.has_rows() and not self.strict)
        store, pack = (
            open_store(*self.images(options)),
            context.stack.enter_context(closing(PackWriter(spool.folder))),
        )
        scanner = Scanner(judge=self.judge, options=options, files=store, pack=pack)
        reader = FileReader(files=store, pack=pack)

        def advance(done: int, total: int | None) -> None:
            if not self.strict:
                context.keep(True)
            context.progress("rows", done, total)

        scan_rows(spool, parts, scanner, context.processes, advance, strict=self.strict)
        if self.strict:
            _refuse_bad_rows(spool, options.source)
            context.keep(True)
        scan_files(spool, reader, context.processes, partial(context.progress, "files"))
        shares = {"validation": options.validation, "test": options.test}
        settled = settle(spool, shares, context.seed, context.apart_from)
        splits = {split: _split(spool, split, self.max_candidates, settled) for split in SPLITS}
        return Plan(
            splits={name: split for name, split in splits.items() if split.total},
            left_out=_named(spool),
            apart_from=settled.apart_from,
            state=spool.state(),
        )


def _split(spool: Spool, split: str, max_candidates: int, settled: Settled) -> Split:
    left_out = _reasons(spool, split)
    notes = Notes(left_out=left_out, first_wins=_first_wins(spool, split))
    distinct = f"SELECT DISTINCT asked, criterion {IN_SPLIT}"
    (total,) = spool.db.execute(f"SELECT COUNT(*) FROM ({distinct})", (split,)).fetchone()
    return Split(
        groups=_groups(spool, split, max_candidates, notes),
        total=total,
        notes=notes,
        drawn=split in settled.drawn,
        complete=not any(reason == BAD_ROW or was_removed(reason) for reason in left_out),
    )


IN_SPLIT = "FROM statement WHERE place = ? AND reason = ''"


def _groups(spool: Spool, split: str, max_candidates: int, notes: Notes) -> Iterator[PreferenceGroup]:
    rows = spool.db.execute(
        "SELECT s.asked, s.criterion, a.kind, s.id, s.name, a.digest, b.digest, s.value, s.weight, s.cluster,"
        " s.tags FROM statement AS s JOIN content AS a ON a.id = s.first"
        " LEFT JOIN content AS b ON b.id = s.second"
        " WHERE s.place = ? AND s.reason = '' ORDER BY s.asked, s.criterion, a.kind, s.id",
        (split,),
    )
    for (prompt, criterion, _), same in groupby(rows, key=lambda row: row[:3]):
        said = [Said(*row[3:]) for row in same]
        rated = {one.first for one in said}
        for draft in draft_groups(said, max_candidates):
            rated -= set(draft.candidates)
            notes.contradict(f"{draft.id} (candidates {i} and {j})" for i, j in draft.contradictory)
            yield _group(spool, prompt, criterion, draft)
        notes.leave_out(ALONE, len(rated))


def _group(spool: Spool, prompt: int, criterion: str, draft: Draft) -> PreferenceGroup:
    (text,) = spool.db.execute("SELECT text FROM prompt WHERE id = ?", (prompt,)).fetchone()
    context = spool.db.execute(
        "SELECT digest FROM context JOIN content ON content.id = content WHERE prompt = ? ORDER BY place",
        (prompt,),
    )
    return PreferenceGroup(
        id=draft.id,
        prompt=text,
        candidates=tuple(map(spool.read, draft.candidates)),
        comparisons=tuple(Comparison(i=i, j=j, p=p, weight=weight) for i, j, p, weight in draft.comparisons),
        context=tuple(spool.read_file(digest) for (digest,) in context),
        criterion=criterion,
        quality=draft.quality,
        tags=draft.tags,
    )


def _reasons(spool: Spool, split: str) -> dict[str, int]:
    found = "SELECT reason, COUNT(*) FROM statement WHERE place = ? AND reason != '' GROUP BY reason"
    return dict(spool.db.execute(f"{found} ORDER BY reason", (split,)))


def _first_wins(spool: Spool, split: str) -> float | None:
    found = f"SELECT AVG(value > 0.5) {IN_SPLIT} AND second IS NOT NULL AND value != 0.5"
    share: float | None = spool.db.execute(found, (split,)).fetchone()[0]
    return share


_MENDABLE = ", ".join(map(repr, (*BROKEN, BAD_ROW)))


def _named(spool: Spool) -> tuple[str, ...]:
    """A line for each judgement that is left out for something that can be mended, up to a bound."""
    found = spool.db.execute(
        f"SELECT name, detail FROM statement WHERE reason IN ({_MENDABLE}) ORDER BY id LIMIT ?",
        (NAMED_ROWS,),
    )
    return tuple(f"record {name}: {detail}" for name, detail in found)


def _refuse_bad_rows(spool: Spool, source: str) -> None:
    bad = "FROM statement WHERE reason = ?"
    (total,) = spool.db.execute(f"SELECT COUNT(*) {bad}", (BAD_ROW,)).fetchone()
    if total:
        rows = spool.db.execute(f"SELECT name, detail {bad} ORDER BY id LIMIT ?", (BAD_ROW, NAMED))
        lines = [f"line {name.rpartition(':')[2]}: {detail}" for name, detail in rows]
        more = f"; and {total - NAMED} more" if total > NAMED else ""
        raise DatasetError(f"{source} has {total} bad rows: {'; '.join(lines)}{more}")
