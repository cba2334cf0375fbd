"""The report of an arena: arena.json, report.md and the plots that it shows."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefrm.arena.checked import CheckedImage, CheckMetrics, Share, measure_checks
from prefrm.arena.figures import draw
from prefrm.arena.images import Answers
from prefrm.arena.leaderboards import ArenaRun, leaderboard_of, why_not_beside
from prefrm.arena.overlap import Overlap
from prefrm.arena.rating import Estimate, Standings
from prefrm.arena.results import Agreement, CheckAgreement, JudgeResults, agreement, agreements_on_checks
from prefrm.arena.values import PromptSet
from prefrm.display import markdown_table, one_line
from prefrm.eval import Accuracy
from prefrm.eval.evaluation import to_json
from prefrm.eval.tables import number
from prefrm.files import write_whole

__all__ = ["CHECKS_BY", "Arena", "overlap_text", "summary", "write_report"]

FORMAT_VERSION = 1
CHECKS_BY = "checks by "
"""Before the name of a judge of checklists, in that of its verdicts."""
REASONS_SHOWN = 5
WORDS = """\
- **rating**: Bradley-Terry, maximum likelihood over all comparisons of two models' images of a prompt; 400
  points are odds of 10 to 1 and the mean over models is 1000. Only differences mean anything, and only
  between models that the same judge rated here.
- **win rate**: mean probability that a model's image is preferred to another model's image of the prompt.
- **score**: mean over single images, of a judge that scores them one by one.
- **intervals** are of 95% and clustered by prompt: the images of one prompt are not independent.
- **same preference**: of the pairs of images of which the judge in the second column prefers one, the share
  of which the judge in the first prefers the same. A coin gets half.
- **same answer**: of the checks that two judges have answered, the share of which both say that it holds, or
  both that it does not; of images, the share of which both say that all is right, or both that it is not.
- An image that is missing or unreadable, and a pair without a verdict, are in no number but in the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Everything that an arena found.

    Attributes:
        prompts: the set.
        answers: of the models.
        results: of each judge, by its name; the first one is what reports are ordered by.
        checks: judge of checklists -> model -> its images; `results` has its verdicts as `CHECKS_BY` it.
        settings: with which it ran, as plain data.
        overlaps: of the prompts with training sets.
        own_words: whether checklists were asked in a wording of a person's own.
    """

    prompts: PromptSet
    answers: Answers
    results: Mapping[str, JudgeResults]
    checks: Mapping[str, Mapping[str, Sequence[CheckedImage]]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overlaps: Sequence[Overlap] = ()
    own_words: bool = False


def write_report(arena: Arena, out: Path) -> dict[str, Any]:
    """Write arena.json, report.md and plots into a folder, which is made; returns what arena.json holds."""
    out.mkdir(parents=True, exist_ok=True)
    metrics = {
        judge: {model: measure_checks(arena.prompts, images) for model, images in by_model.items()}
        for judge, by_model in arena.checks.items()
    }
    agreements = {
        name: {
            other: agreement(one, second, arena.answers)
            for other, second in arena.results.items()
            if other != name
        }
        for name, one in arena.results.items()
    }
    on_checks = agreements_on_checks(arena.prompts, arena.answers, arena.checks, arena.results)
    plots = draw(arena.results, arena.answers, out)
    facts = _facts(arena, metrics, agreements, on_checks)
    write_whole(out / "arena.json", json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    report = _markdown(arena, metrics, agreements, on_checks, plots)
    write_whole(out / "report.md", "\n\n".join(report) + "\n")
    return facts


def summary(arena: Arena) -> Iterator[str]:
    """Lines for a terminal: the models with their ratings, the best first by the first judge."""
    names = list(arena.results)
    width = max(map(len, (*arena.answers.models, "model")))
    yield "  ".join([f"{'model':<{width}}", *(f"{one_line(name)[-28:]:>28}" for name in names)])
    for m in _order(arena):
        cells = [_rating_text(arena.results[name].overall.rating[m]) for name in names]
        yield "  ".join([f"{arena.answers.models[m]:<{width}}", *(f"{cell:>28}" for cell in cells)])


def _facts(
    arena: Arena,
    metrics: Mapping[str, Mapping[str, CheckMetrics]],
    agreements: Mapping[str, Mapping[str, Agreement]],
    on_checks: Mapping[str, Mapping[str, CheckAgreement]],
) -> dict[str, Any]:
    prompts, answers = arena.prompts, arena.answers
    return {
        "format_version": FORMAT_VERSION,
        "prompts": {
            "name": prompts.name,
            "digest": prompts.digest,
            "count": len(answers.prompts),
            "in_file": len(prompts.prompts),
            "checks": sum(len(prompt.checks) for prompt in answers.prompts),
            "defects": dict(prompts.defects),
            "tags": _tag_counts(answers),
        },
        "models": list(answers.models),
        "images": {
            "per_prompt": answers.images,
            "folders": {one.model: str(one.folder) for one in answers.folders},
            "patterns": {one.model: one.pattern for one in answers.folders},
        },
        "settings": dict(arena.settings),
        "judges": {name: one.to_json(answers.models) for name, one in arena.results.items()},
        "checklists": {
            judge: {model: to_json(asdict(one)) for model, one in by_model.items()}
            for judge, by_model in metrics.items()
        },
        "unparsed": {
            judge: {model: one.unparsed for model, one in by_model.items()}
            for judge, by_model in metrics.items()
        },
        "agreement": {
            name: {other: one.to_json() for other, one in others.items()}
            for name, others in agreements.items()
        },
        "check_agreement": {
            judge: {other: one.to_json() for other, one in others.items()}
            for judge, others in on_checks.items()
        },
        "published": {
            judge: {
                model: why_not_beside(_run(arena, judge, m, metrics[judge][model]))
                for m, model in enumerate(answers.models)
            }
            for judge in metrics
        },
        "overlap": [asdict(one) for one in arena.overlaps],
        "coverage": answers.coverage(),
    }


def _run(arena: Arena, judge: str, model: int, metrics: CheckMetrics) -> ArenaRun:
    """What decides where the numbers of a model may stand."""
    prompts = arena.answers.prompts
    return ArenaRun(
        prompts=arena.prompts.name,
        count=len(prompts),
        checks=sum(len(prompt.checks) for prompt in prompts),
        images=arena.answers.images,
        missing=int((~arena.answers.readable[:, :, model]).sum()) + metrics.unparsed,
        judge=arena.results[f"{CHECKS_BY}{judge}"].verdicts.identity,
        own_words=arena.own_words,
        trained=len({id for one in arena.overlaps for id in one.ids}),
    )


def _tag_counts(answers: Answers) -> dict[str, dict[str, int]]:
    """Tag, "dimension" or "subdimension" -> value -> number of prompts, or of checks."""
    counts: dict[str, Counter[str]] = {}
    for prompt in answers.prompts:
        of_checks = [{"dimension": one.dimension, "subdimension": one.subdimension} for one in prompt.checks]
        for tag, value in ((tag, value) for each in (prompt.tags, *of_checks) for tag, value in each.items()):
            if value:
                counts.setdefault(tag, Counter())[value] += 1
    return {tag: dict(sorted(values.items())) for tag, values in counts.items()}


def _order(arena: Arena) -> list[int]:
    """The models, the best first by the first judge that rates them."""
    ratings = [one.overall.rating for one in arena.results.values()]
    first = next((each for each in ratings if any(one.value == one.value for one in each)), ratings[0])
    return sorted(range(len(first)), key=lambda m: -first[m].value if first[m].value == first[m].value else 1)


def _markdown(
    arena: Arena,
    metrics: Mapping[str, Mapping[str, CheckMetrics]],
    agreements: Mapping[str, Mapping[str, Agreement]],
    on_checks: Mapping[str, Mapping[str, CheckAgreement]],
    plots: Mapping[str, str],
) -> Iterator[str]:
    yield "# Arena"
    yield _introduction(arena)
    for one in arena.overlaps:
        yield overlap_text(one)
    yield "## Ratings"
    yield _by_judge(arena, lambda one, m: _rating_text(one.overall.rating[m]))
    yield from _pictures(plots, "ratings")
    yield "## Win rates"
    yield _by_judge(arena, lambda one, m: _share_text(one.overall.win_rate[m]))
    if any(one.verdicts.scores for one in arena.results.values()):
        yield "## Scores"
        yield _by_judge(arena, lambda one, m: number(one.verdicts.scores[m]) if one.verdicts.scores else "-")
    yield from _pictures(plots, "differences")
    yield "## Win matrices"
    yield from _pictures(plots, "win_matrix")
    yield from _parts(arena)
    yield from _pictures(plots, "by_")
    for judge, by_model in metrics.items():
        yield from _checklist(judge, by_model)
        yield from _beside(arena, judge, by_model)
    if any(on_checks.values()):
        yield "## Agreement on checks"
        yield _check_agreement_table(on_checks)
    if len(agreements) > 1:
        yield "## Agreement"
        yield _agreement_table(agreements)
    yield "## What was judged"
    yield _cost_table(arena)
    yield from _reasons(arena)
    yield "## Coverage"
    yield _coverage_table(arena.answers)
    yield "## What the words mean"
    yield WORDS


def _introduction(arena: Arena) -> str:
    prompts, answers = arena.prompts, arena.answers
    of = "" if len(answers.prompts) == len(prompts.prompts) else f" of {len(prompts.prompts)}"
    checks = sum(len(prompt.checks) for prompt in answers.prompts)
    lines = [
        f"- prompts: `{prompts.name}`, {len(answers.prompts)}{of}, with {checks} checks",
        f"- sha256 of the prompts: `{prompts.digest}`",
        *(f"- in that file: {kind}: {count}" for kind, count in prompts.defects.items()),
        f"- models: {', '.join(answers.models)}; images of a prompt by each: {answers.images}",
        *(f"- judge `{name}`: {one_line(one.verdicts.identity)}" for name, one in arena.results.items()),
        *(f"- {name}: {value}" for name, value in arena.settings.items() if value is not None),
    ]
    return "\n".join(lines)


def _pictures(plots: Mapping[str, str], start: str) -> Iterator[str]:
    for file, caption in plots.items():
        if file.startswith(start):
            yield f"![{caption}]({file})"
            yield caption


def _by_judge(arena: Arena, cell: Any) -> str:
    """A row for each model, the best first, and a column for each judge."""
    body = [
        [arena.answers.models[m], *(cell(one, m) for one in arena.results.values())] for m in _order(arena)
    ]
    return markdown_table(["model", *arena.results], body)


def _parts(arena: Arena) -> Iterator[str]:
    models = arena.answers.models
    for name, one in arena.results.items():
        for tag, values in one.by.items():
            yield f"## Win rates by {tag}, `{name}`"
            body = [_part_row(value, part) for value, part in values.items()]
            yield markdown_table([tag, "prompts", *models], body)


def _part_row(value: str, part: Standings) -> list[str]:
    return [value, str(part.prompts), *(_share_text(one) for one in part.win_rate)]


def _checklist(judge: str, by_model: Mapping[str, CheckMetrics]) -> Iterator[str]:
    yield f"## Checks by `{judge}`"
    rows: dict[str, Mapping[str, Share]] = {
        "**mean over dimensions**": {model: one.overall for model, one in by_model.items()}
    }
    for pick in ("published", "dimensions", "subdimensions"):
        for key in dict.fromkeys(key for one in by_model.values() for key in getattr(one, pick)):
            named = {m: getattr(one, pick)[key] for m, one in by_model.items() if key in getattr(one, pick)}
            rows[f"{'- ' if pick == 'subdimensions' else ''}{key}"] = named
    body = [
        [key, *(_share_text(found[model]) if model in found else "-" for model in by_model)]
        for key, found in rows.items()
    ]
    counts = [
        ["images judged", *(str(one.judged) for one in by_model.values())],
        ["answers not read", *(str(one.unparsed) for one in by_model.values())],
    ]
    yield markdown_table(["share of checks that hold", *by_model], [*body, *counts])


def _beside(arena: Arena, judge: str, by_model: Mapping[str, CheckMetrics]) -> Iterator[str]:
    """Whether the numbers may stand beside those of the published leaderboard."""
    if (board := leaderboard_of(arena.prompts.name)) is None:
        return
    lines = [
        f"- {model}: {'; '.join(why_not_beside(_run(arena, judge, m, one))) or 'may stand beside it'}"
        for m, (model, one) in enumerate(by_model.items())
    ]
    yield f"Published: {board.title} ({board.source}), judged by {board.judge}. Of these numbers,"
    yield "\n".join(lines)


def overlap_text(one: Overlap) -> str:
    """A sentence for people."""
    shown = ", ".join(one.ids[:REASONS_SHOWN]) + (", ..." if len(one.ids) > REASONS_SHOWN else "")
    which = f": {shown}" if one.ids else ""
    return f"{len(one.ids)} of the prompts are among the {one.trained} of {one.source}{which}."


def _agreement_table(agreements: Mapping[str, Mapping[str, Agreement]]) -> str:
    body = [
        [
            name,
            other,
            _share_text(one.pairs),
            str(one.pairs.pairs),
            number(one.kendall_tau),
        ]
        for name, others in agreements.items()
        for other, one in others.items()
    ]
    return markdown_table(["judge", "with", "same preference", "pairs", "Kendall's tau of the ratings"], body)


def _check_agreement_table(on_checks: Mapping[str, Mapping[str, CheckAgreement]]) -> str:
    """Each two judges once, as both agree with each other alike."""
    rows: dict[tuple[str, str], Mapping[str, Share]] = {}
    for judge, others in on_checks.items():
        for other, one in others.items():
            if (other, judge) not in rows:
                named = {f"- {name}" if name else "**checks**": share for name, share in one.checks.items()}
                rows[judge, other] = {"**images**": one.images, **named}
    body = [
        [judge, other, about, _share_text(one), str(one.count), str(one.prompts)]
        for (judge, other), shares in rows.items()
        for about, one in shares.items()
    ]
    return markdown_table(["checks by", "with", "of", "same answer", "count", "prompts"], body)


def _cost_table(arena: Arena) -> str:
    body = [
        [
            name,
            one.verdicts.kind,
            str(one.verdicts.pairs),
            str(one.verdicts.pairs - one.verdicts.judged),
            f"{one.verdicts.seconds:.1f}",
        ]
        for name, one in arena.results.items()
    ]
    return markdown_table(["judge", "kind", "pairs of images", "not judged", "seconds"], body)


def _reasons(arena: Arena) -> Iterator[str]:
    lines = [
        f"- `{name}`: {count} times: {one_line(reason)}"
        for name, one in arena.results.items()
        for reason, count in Counter(one.verdicts.reasons).most_common(REASONS_SHOWN)
    ]
    if lines:
        yield "\n".join(lines)


def _coverage_table(answers: Answers) -> str:
    found = answers.coverage()
    body = [
        [
            folder.model,
            *(str(one[key]) for key in ("expected", "found", "missing", "unreadable")),
            ", ".join([*one["first"], *one["reasons"]]) or "-",
            f"`{folder.folder / folder.pattern}`",
        ]
        for folder, one in zip(answers.folders, found.values(), strict=True)
    ]
    columns = ["images expected", "found", "missing", "unreadable", "such as", "files"]
    return markdown_table(["model", *columns], body)


def _rating_text(one: Estimate) -> str:
    if one.value != one.value:
        return "-"
    if one.low != one.low:
        return f"{one.value:.0f}"
    return f"{one.value:.0f} ({one.low:.0f} to {one.high:.0f})"


def _share_text(one: Estimate | Share | Accuracy) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" if one.value == one.value else "-"
