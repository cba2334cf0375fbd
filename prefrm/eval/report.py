"""Write an evaluation as Markdown, JSON and plots.

Decides nothing about a judge and computes nothing; it shows what `prefrm.eval.evaluation` measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrm.display import markdown_table
from prefrm.eval.evaluation import Evaluation, to_json
from prefrm.eval.figures import draw, remove_stale
from prefrm.eval.paired import SideBySide, compare
from prefrm.eval.published import PUBLISHED
from prefrm.eval.study import Study
from prefrm.eval.tables import (
    accuracy_text,
    against_tables,
    column_table,
    criterion_table,
    definition_table,
    difference_text,
    headline,
    illusory_table,
    left_out,
    length_tables,
    name,
    number,
    published_tables,
    reliability_table,
    tag_table,
    turned,
    words,
)
from prefrm.files import require_writable_folder, write_json
from prefrm.rewards import criterion_name

__all__ = ["Opponent", "summary", "write_report"]

DEFINITIONS = """\
- **pair accuracy** (ImageReward): the share of strict pairs, those of which the dataset prefers one
  candidate, with the right verdict; a judge that answers exactly 0.5 is wrong.
- **prompt accuracy** (HPSv2): the pair accuracy of each prompt, then the mean over prompts.
- **half tie accuracy** (PickScore): over all pairs, 1 for the right verdict and 1/2 where only one side
  says tie; the judge says tie where |p - (1 - p)| is at most a threshold.
- **tie calibrated accuracy** (Deutsch et al., arXiv 2305.14324): the share of all pairs on which verdict
  and label are the same of win, lose and tie; again with a threshold.
- **three label accuracy**: the same without a threshold, by the judge's own most probable outcome; a judge
  without P(tie) says tie only at exactly 0.5. GenAI-Bench has a fourth label, "both bad", which a
  comparison cannot carry, so this is not its number.
- **length of texts** is counted in characters; a judge without a length bias is as good where the preferred
  text is the longer one as where it is the shorter one.
- A **published definition** counts as the publication does: hpdv3, imagereward and hpdv2 without the
  comparisons' weights, pickapic and genai_bench by votes.
- Both thresholds, and the calibration, are fitted on the validation split and never on what is measured.
- A pair that was not judged counts neither way. Intervals are 95%: exact binomial ones at the effective
  sample size, since pairs of one prompt are not independent (Korn and Graubard 1998); of differences,
  adjusted Wald ones at that size (Bonett and Price 2012). A fitted threshold's uncertainty is not in them.
- **always first** prefers the lower index, **chance** tosses a coin between the two, **always tie** says
  tie. A judge that does not beat all three has not looked.
- **expected calibration error**: ten bins of equal width over the confidence max(p, 1 - p). Over all
  pairs: a tie of the dataset is half right, whichever candidate the judge prefers. **Strict pairs alone**
  leaves those ties out, under the same calibration, which was fitted on ties too. The bins below are of all
  pairs.
- **order gap**: the change of P(i beats j) when the two are presented the other way round.
- **intransitive triples**: three candidates whose verdicts no ranking explains, ties allowed; 0.25 of
  those of a coin.
- **regret of best-of-K**: what the candidate with the highest win rate lacks to the best one, in the
  dataset's unit of quality.
- **illusory advantage**: each set of candidates of equal quality in a group, taken as a group of its own.
  The right advantage is 0. Divided by the set's own standard deviation it is 0.7 to 0.9 however small the
  differences are, for any reward, and 0 only where they are exactly 0; divided by the reward's usual
  spread over all groups it shows how large they are beside those that the reward makes elsewhere; the
  **amplification** is the one over the other. A win rate over few opponents is noisy, which small sets
  show. All three rewards come from the same matrix: Bradley-Terry utilities (the pointwise view, in
  nats), mean probabilities of winning, and shares of opponents beaten. **Noise to signal** is, in the
  groups as they are, the difference in reward of two equally good candidates over that of two unequal
  ones, rewards divided by their group's standard deviation; 0 is right, 1 is a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opponent:
    """Another judge on the same groups: what it is called, its numbers, and the first judge against it."""

    name: str
    evaluation: Evaluation
    difference: SideBySide

    @classmethod
    def of(cls, name: str, study: Study, first: Study) -> "Opponent":
        """The judge of `study`, compared with that of `first`. Raises `DatasetError` as `compare`."""
        difference = compare(first.evaluation.judged, study.evaluation.judged)
        return cls(name=name, evaluation=study.evaluation, difference=difference)


def write_report(
    evaluation: Evaluation,
    folder: Path | str,
    *,
    before: Evaluation | None = None,
    recalibrated: Evaluation | None = None,
    against: Opponent | None = None,
    why_no_thresholds: str = "",
    definitions: Sequence[str] = (),
) -> list[str]:
    """Write report.md, report.json and the plots that report.md shows into `folder`, which is made.

    Returns the names of these plots. Those of an earlier report there are removed, so that none outlives its
    numbers.

    Args:
        before: the same judge on the same groups, uncalibrated, if `evaluation` is not.
        recalibrated: the same judge under the calibration that was fitted to a validation split.
        against: another judge on the same groups.
        why_no_thresholds: a clause, if `evaluation` has no tie thresholds.
        definitions: names of published ones that `evaluation` has, shown beside published judges.

    Raises: ConfigError if `folder` cannot be written.
    """
    target = Path(folder)
    require_writable_folder(target, "the report's folder")
    target.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = evaluation.to_dict()
    for key, other in (("before", before), ("recalibrated", recalibrated)):
        if other is not None:
            numbers[key] = other.to_dict()
    if against is not None:
        numbers["against"] = {
            "judge": against.name,
            **to_json(asdict(against.difference)),
            "evaluation": against.evaluation.to_dict(),
        }
    if definitions:
        numbers["columns"] = {name: _column(evaluation, name) for name in definitions}
    write_json(target / "report.json", numbers)
    remove_stale(target)
    opponent = None if against is None else against.evaluation
    pictures = draw(evaluation, target, other=before or recalibrated, opponent=opponent)
    columns = [entry for entry in (before, evaluation, recalibrated) if entry is not None]
    text = _markdown(evaluation, columns, against, pictures, why_no_thresholds, definitions)
    (target / "report.md").write_text(text, encoding="utf-8")
    return list(pictures)


def _markdown(
    evaluation: Evaluation,
    columns: list[Evaluation],
    against: Opponent | None,
    pictures: Mapping[str, str],
    why: str,
    definitions: Sequence[str],
) -> str:
    heads = ["", *map(name, columns)]
    parts = ["# Evaluation", markdown_table(heads, turned([headline(column) for column in columns]))]
    if against is not None:
        parts += [f"## Against `{against.name}`"]
        parts += against_tables(evaluation, against.evaluation, against.difference)
    parts += ["## Accuracy, by each definition", definition_table(evaluation), _fitted(evaluation, why)]
    for entry in definitions:
        parts += [f"## Published: `{entry}`", _published_on(entry), column_table(evaluation.metrics, entry)]
    parts += ["## Published definitions", *published_tables(evaluation.metrics)]
    if evaluation.criteria is not None:
        asked = f"The judge was asked by {evaluation.criteria.describe()}, in the place of the groups' own."
        parts += ["## By each criterion that was asked", asked, criterion_table(evaluation)]
    for tag in evaluation.metrics.by_tag:
        parts += [f"## By {tag}", tag_table(evaluation.metrics, tag)]
    if evaluation.metrics.length_bias is not None:
        parts += ["## Length of texts", *length_tables(evaluation.metrics.length_bias)]
    parts += ["## Illusory advantage", illusory_table(evaluation.metrics)]
    for column in columns:
        parts += [f"## Reliability, {name(column)}", reliability_table(column.calibration)]
    for file, caption in pictures.items():
        parts += [f"![{caption}]({file})", caption]
    if evaluation.unreadable:
        parts += ["## Left out", "\n".join(left_out(evaluation))]
    parts += ["## What the words mean", DEFINITIONS]
    return "\n\n".join(parts) + "\n"


def _column(evaluation: Evaluation, name: str) -> dict[str, Any]:
    definition = PUBLISHED[name]
    own: dict[str, Any] = to_json(asdict(evaluation.metrics.published[name]))
    return {
        "definition": definition.summary,
        "split": definition.split,
        "source": definition.source,
        "judges": dict(definition.judges),
        "this_judge": own,
    }


def _published_on(name: str) -> str:
    definition = PUBLISHED[name]
    return (
        f"The other judges' numbers are of {definition.split} ({definition.source}); this judge's is of what "
        f"was measured here. The definition: {definition.summary}."
    )


def _fitted(evaluation: Evaluation, why: str) -> str:
    if (fitted := evaluation.thresholds) is not None:
        return f"Tie thresholds are those that {fitted.pairs} pairs of the split `{fitted.split}` ask for."
    reason = f": {why}" if why else ""
    return (
        "Half tie and tie calibrated accuracy are left out. They need a tie threshold, which is fitted on a "
        f"validation split and never on the one that is measured, and there is none{reason}."
    )


def summary(study: Study, against: Opponent | None = None, definitions: Sequence[str] = ()) -> list[str]:
    """What a terminal shows: a few lines, the most telling numbers first."""
    metrics, calibration = study.evaluation.metrics, study.evaluation.calibration
    lines = [
        f"pair accuracy {accuracy_text(metrics.accuracy)}, chance {number(metrics.accuracy.chance)}, "
        f"always first {number(metrics.accuracy.always_first)}"
    ]
    others = (key for key in metrics.accuracies if key != "pair_accuracy")
    lines += [", ".join(f"{words(key)} {number(metrics.accuracies[key].overall.value)}" for key in others)]
    after = ""
    if (other := study.recalibrated) is not None:
        after = f" ({number(other.calibration.ece)} {name(other)})"
    lines += [
        f"order gap {number(metrics.mean_order_gap)}, calibration error {number(calibration.ece)}{after}, "
        f"intransitive triples {number(metrics.intransitive_share)}"
    ]
    if (criteria := study.evaluation.criteria) is not None:
        own = (
            f"{criterion_name(name)} {number(entry.value)}"
            for name, entry in study.evaluation.by_criterion.items()
        )
        lines += [f"asked by {criteria.describe()}; pair accuracy by each: {', '.join(own)}"]
    if (bias := metrics.length_bias) is not None:
        by = (f"{number(bias.accuracy[which].value)} where it is {which}" for which in ("longer", "shorter"))
        lines += [
            f"preferred text: pair accuracy {', '.join(by)}; the longer one preferred: by the judge "
            f"{number(bias.judge)}, by the labels {number(bias.labels)}"
        ]
    lines += [_beside(study.evaluation, entry) for entry in definitions]
    if against is not None:
        lines += [
            f"against {against.name}: pair accuracy {difference_text(against.difference.pair_accuracy)}, "
            f"verdicts differ on {against.difference.differ} of {against.difference.pairs} pairs"
        ]
    if study.splits.validation is None:
        lines += [f"nothing was fitted: {study.splits.why}"]
    return lines


def _beside(evaluation: Evaluation, entry: str) -> str:
    judges = sorted(PUBLISHED[entry].judges.items(), key=lambda item: -item[1])
    return (
        f"{entry} {accuracy_text(evaluation.metrics.published[entry])}; published on "
        f"{PUBLISHED[entry].split}: {', '.join(f'{judge} {number(value)}' for judge, value in judges)}"
    )
