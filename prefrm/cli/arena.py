"""`prefrm arena`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrm.cli.criteria import ByCriteria
from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import AsJson, Pairs, open_scorer, require_judge, require_judged
from prefrm.errors import ConfigError, missing_extra
from prefrm.files import require_writable_folder
from prefrm.options import given_options, with_options

if TYPE_CHECKING:
    from prefrm.arena.checked import CheckedImage
    from prefrm.arena.images import Answers, ImageFolder
    from prefrm.arena.values import ArenaPrompt
    from prefrm.arena.verdicts import Verdicts
    from prefrm.rewards import Criteria

    Checks = dict[str, dict[str, list[CheckedImage]]]
    """Judge of checklists -> model -> its images."""

__all__ = ["arena"]

IMAGES = 4
"""Of a prompt, that a generator draws by default."""


@with_options
def arena(
    prompts: Annotated[
        Path,
        typer.Argument(
            help="a file of prompts: UniGenBench's, GenEval's, GenEval2's, DPG-Bench's or T2I-CompBench's, a "
            "prompt in each line, or a table with --column"
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=FOLDER...", help="models, each with the folder of its images"),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="SCORER", help="that compares the models' images; may be given several times"),
    ] = None,
    checklist: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JUDGE",
            help="that answers the checks of images: the URL of a chat endpoint, or the bundle of a judge "
            "that answers yes or no; may be given several times",
        ),
    ] = None,
    wording: Annotated[
        Path | None,
        typer.Option(help="a text file with the wording of checklists, as docs/arena.md describes it"),
    ] = None,
    generate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="a model that draws the images itself: a YAML file as in docs/arena.md"
        ),
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="a world, such as shapes, whose oracle is shown beside the judges")
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option(
            help="people's votes, a .csv or .jsonl file with the columns prompt, first, second and preferred"
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="images of a prompt by each model", show_default=f"all; drawn: {IMAGES}"),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="names of the image files, such as {id}_{n}.png", show_default="found by itself"),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=COLUMN",
            help="of a table of prompts: text, id or a tag, and the column that has it",
        ),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="a dataset or a file of prompts that a model was trained on, for the prompts in both",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="how many of the first prompts are used")] = None,
    pairs: Pairs = None,
    out: Annotated[
        Path, typer.Option(help="folder of everything; an interrupted run continues there")
    ] = Path("runs/arena"),
    as_json: AsJson = False,
    *,
    by: ByCriteria,
    local: Local,
    remote: Remote,
) -> None:
    """Compare models by their images for the same prompts: ratings with intervals, win matrices, a report.

    The i-th images of all models for a prompt are a group, which every judge compares. What is missing is
    coverage, and never a score. The exit status is 1 if nothing could be judged.
    """
    from prefrm.arena.images import ImageFolder, read_answers
    from prefrm.arena.overlap import find_overlap
    from prefrm.arena.prompts import read_prompts
    from prefrm.arena.report import Arena, overlap_text, summary, write_report
    from prefrm.arena.results import measure
    from prefrm.progress import track

    judging = _Judging(
        scorers=judge or [],
        checklists=checklist or [],
        wording=wording,
        world=world,
        votes=votes,
        pairs=pairs,
        local=local,
        remote=remote,
    )
    judging.check(by)
    require_writable_folder(out, "--out")
    criteria = by.criteria()
    found = read_prompts(prompts, columns=dict(_named(column or [], "--column")) or None)
    chosen = found.prompts[:limit]
    if judging.checklists and not any(prompt.checks for prompt in chosen):
        raise ConfigError(f"--checklist: the prompts of {prompts} ({found.name}) have no checks")
    overlaps = [find_overlap(chosen, source) for source in trained_on or []]
    for overlap in overlaps:
        print(overlap_text(overlap), file=sys.stderr)
    folders, generated = dict(_named(models or [], "a model")), dict(_named(generate or [], "--generate"))
    if both := [name for name in folders if name in generated]:
        raise ConfigError(f"the model {both[0]} is given twice")
    sources = [ImageFolder.find(name, Path(path), chosen, pattern) for name, path in folders.items()]
    judging.require_scorers()
    sources += _generated(generated, chosen, images or IMAGES, out)
    with track("checking images", len(chosen)) as advance:
        answers = read_answers(chosen, sources, images, advance)
    _print_coverage(answers)
    verdicts, checks = judging.verdicts(answers, out, criteria)
    result = Arena(
        prompts=found,
        answers=answers,
        results={one.name: measure(one, answers) for one in verdicts},
        checks=checks,
        overlaps=overlaps,
        own_words=wording is not None,
        settings={
            "prefrm": version("prefrm"),
            "criteria": None if criteria is None else criteria.describe(),
            "pairs of a group": pairs,
        },
    )
    facts = write_report(result, out)
    if as_json:
        print((out / "arena.json").read_text(encoding="utf-8"), end="")
    else:
        print("\n".join(summary(result)))
        print(f"report: {out / 'report.md'}")
    judged = any(one["comparisons"] for one in facts["judges"].values())
    require_judged(judged, f"the reasons are in {out / 'report.md'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judging:
    """The judges that the options name, and what opens each."""

    scorers: Sequence[str]
    checklists: Sequence[str]
    wording: Path | None
    world: str | None
    votes: Path | None
    pairs: int | None
    local: Local
    remote: Remote

    def check(self, by: ByCriteria) -> None:
        """Raise `ConfigError` for a mistake in the options that shows before an image is read or drawn."""
        from prefrm.worlds import load_world

        targets = [*self.scorers, *self.checklists]
        if not (targets or self.world or self.votes):
            raise ConfigError("nothing judges; give --judge, --checklist, --world or --votes")
        for option, names in (("--judge", self.scorers), ("--checklist", self.checklists)):
            if repeated := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f"{option} {repeated[0]} is given twice")
        if self.wording is not None and not self.checklists:
            raise ConfigError(f"--wording {self.wording}: for a judge of checklists; give --checklist JUDGE")
        self._wording()
        if self.world is not None:
            load_world(self.world, "--world")
        if targets:
            self.local.require_bundle(*targets)
            self.remote.require_url(*targets)
        elif given := ", ".join(filter(None, map(given_options, (self.local, self.remote, by)))):
            raise ConfigError(f"{given}: for judges; give --judge or --checklist")

    def require_scorers(self) -> None:
        """Raise before any image is drawn if a scorer is not a bundle, or no server answers."""
        for target in self.scorers:
            require_judge(target, self.remote)

    def verdicts(
        self, answers: "Answers", out: Path, criteria: "Criteria | None"
    ) -> "tuple[list[Verdicts], Checks]":
        """The verdicts of all judges, and those of checklists check by check; both are kept in `out`."""
        from prefrm.arena.verdicts import from_people

        # A mistake in the file shows before others judge for hours; in the report people are last.
        people = [] if self.votes is None else [from_people(self.votes, answers)]
        found = [self._by_scorer(target, answers, out, criteria) for target in self.scorers]
        checks: Checks = {}
        for target in self.checklists:
            one, checks[target] = self._by_checklist(target, answers, out)
            found.append(one)
        if self.world is not None:
            found.append(_by_oracle(self.world, answers, out))
        return [*found, *people], checks

    def _wording(self) -> str:
        from prefrm.arena.checklists import WORDING, read_wording

        return WORDING if self.wording is None else read_wording(self.wording)

    def _by_scorer(
        self, target: str, answers: "Answers", out: Path, criteria: "Criteria | None"
    ) -> "Verdicts":
        from prefrm.arena.verdicts import from_scorer
        from prefrm.progress import track

        with (
            open_scorer(target, self.pairs, self.remote, self.local) as scorer,
            track(f"judging by {target}", len(answers.places)) as advance,
        ):
            return from_scorer(
                scorer,
                target,
                scorer.identity(),
                answers,
                _folder(out, target),
                criteria=criteria,
                progress=advance,
            )

    def _by_checklist(
        self, target: str, answers: "Answers", out: Path
    ) -> "tuple[Verdicts, dict[str, list[CheckedImage]]]":
        from prefrm.arena.checking import from_checks
        from prefrm.arena.report import CHECKS_BY
        from prefrm.progress import track
        from prefrm.scorers.chat import ChatScorer
        from prefrm.scorers.checking import open_check_judge

        name = f"{CHECKS_BY}{target}"
        total = sum(
            bool(answers.prompts[q].checks) for q, *_ in zip(*answers.readable.nonzero(), strict=True)
        )
        with (
            open_check_judge(
                target,
                wording=self._wording(),
                engine={"device": self.local.device, "dtype": self.local.dtype},
                generator=self.remote.generator,
                scorer=lambda url: ChatScorer.connect(url, **self.remote.options(url)),
            ) as judge,
            track(name, total) as advance,
        ):
            return from_checks(judge, name, answers, _folder(out, name), advance)


def _named(given: Sequence[str], what: str) -> Iterator[tuple[str, str]]:
    """Each NAME=VALUE. Raises `ConfigError` for one without a name or a value, or a name that comes twice."""
    seen = set[str]()
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{what} is given as NAME=VALUE; received {one!r}")
        if name in seen:
            raise ConfigError(f"{what} {name} is given twice")
        seen.add(name)
        yield name, value


def _generated(
    files: "dict[str, str]", prompts: "Sequence[ArenaPrompt]", images: int, out: Path
) -> "list[ImageFolder]":
    """The images that models draw, in folders of their own."""
    if not files:
        return []
    try:
        from prefrm.arena.generating import PATTERN, generate, load_generator
    except ImportError as error:
        raise missing_extra(str(error.name), "flow") from error
    from prefrm.arena.figures import slug
    from prefrm.arena.images import ImageFolder
    from prefrm.progress import track

    # All of them, before anything is drawn.
    configs = {name: load_generator(Path(file)) for name, file in files.items()}
    found = []
    for name, config in configs.items():
        folder = out / "images" / slug(name)
        with track(f"drawing {name}", len(prompts) * images) as advance:
            generate(config, prompts, images, folder, advance)
        found.append(ImageFolder.find(name, folder, prompts, PATTERN))
    return found


def _print_coverage(answers: "Answers") -> None:
    for model, one in answers.coverage().items():
        if one["found"] < one["expected"]:
            first = ", ".join([*one["first"], *one["reasons"].values()])
            print(
                f"{model}: {one['found']} of {one['expected']} images, {one['missing']} missing, "
                f"{one['unreadable']} unreadable: {first}",
                file=sys.stderr,
            )


def _by_oracle(name: str, answers: "Answers", out: Path) -> "Verdicts":
    from prefrm.arena.verdicts import from_oracle
    from prefrm.progress import track
    from prefrm.worlds import load_world

    oracle: Callable[[str, bytes], float] = load_world(name, "--world").oracle
    with track(f"oracle of {name}", int(answers.readable.sum())) as advance:
        return from_oracle(oracle, name, answers, _folder(out, f"oracle of {name}"), advance)


def _folder(out: Path, judge: str) -> Path:
    """Where the verdicts of a judge are kept; names that differ have folders that do."""
    from prefrm.arena.figures import slug
    from prefrm.media import digest

    return out / "judges" / f"{slug(judge)[-60:]}-{digest(judge)[:8]}"
