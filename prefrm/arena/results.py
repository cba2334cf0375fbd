"""The results of an arena: standings of the models by every judge, over all prompts and parts of them.

Shapes: G places (`Answers.places`), M models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.arena.checked import ByModel, CheckedImage, Share, check_agreement, image_agreement
from prefrm.arena.images import Answers
from prefrm.arena.rating import Standings, standings
from prefrm.arena.values import ArenaPrompt, PromptSet
from prefrm.arena.verdicts import Verdicts
from prefrm.eval import Accuracy, Pairs, kendall_tau, pair_accuracy
from prefrm.eval.evaluation import to_json

__all__ = [
    "Agreement",
    "CheckAgreement",
    "JudgeResults",
    "agreement",
    "agreements_on_checks",
    "measure",
    "parts",
]

DIMENSION, SUBDIMENSION = "dimension", "subdimension"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeResults:
    """What one judge says of the models.

    Attributes:
        verdicts: those behind the standings.
        overall: standings over all prompts.
        by: tag, "dimension" or "subdimension" -> value -> standings over the prompts with it.
    """

    verdicts: Verdicts
    overall: Standings
    by: Mapping[str, Mapping[str, Standings]]

    def to_json(self, models: Sequence[str]) -> dict[str, Any]:
        """Plain data; `models` are the names of the M models."""
        said = self.verdicts
        scores = {model: None if np.isnan(x) else x for model, x in zip(models, said.scores, strict=False)}
        return {
            "kind": said.kind,
            "identity": said.identity,
            **self.overall.to_json(models),
            "scores": scores or None,
            "by": {
                tag: {value: one.to_json(models) for value, one in values.items()}
                for tag, values in self.by.items()
            },
            "pairs": said.pairs,
            "not_judged": said.pairs - said.judged,
            "reasons": dict(said.reasons),
            "seconds": round(said.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a judge agrees with another one.

    Attributes:
        pairs: of the pairs of images of which the other one prefers one, the share of which the judge prefers
            the same; its interval is clustered by prompt.
        kendall_tau: of the two ratings of the models; NaN where one is not known.
    """

    pairs: Accuracy
    kendall_tau: float

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable data, with None for missing values."""
        kept = ("value", "low", "high", "pairs", "prompts")
        share = {name: value for name, value in asdict(self.pairs).items() if name in kept}
        found: dict[str, Any] = to_json({**share, "kendall_tau": self.kendall_tau})
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckAgreement:
    """How far a judge of checklists agrees with another judge of single images.

    Attributes:
        images: share of the images that both have judged on which they agree whether all is right: every
            check, or of an oracle all that the prompt asks for.
        checks: dimension -> share of checks on which they agree, "" over all dimensions; empty beside an
            oracle, which does not answer checks.
    """

    images: Share
    checks: Mapping[str, Share] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable data, with None for missing values."""
        dimensions = {name: share for name, share in asdict(self)["checks"].items() if name}
        found = {"images": asdict(self.images), "dimensions": dimensions}
        if "" in self.checks:
            found["checks"] = asdict(self.checks[""])
        plain: dict[str, Any] = to_json(found)
        return plain


def parts(prompts: Sequence[ArenaPrompt]) -> dict[str, dict[str, list[int]]]:
    """Tag, "dimension" or "subdimension" -> value -> the numbers of the prompts with it, where values differ.

    A prompt counts for every dimension that one of its checks is of.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for n, prompt in enumerate(prompts):
        of_checks = [{DIMENSION: one.dimension, SUBDIMENSION: one.subdimension} for one in prompt.checks]
        named = {(tag, value) for each in (prompt.tags, *of_checks) for tag, value in each.items() if value}
        for tag, value in named:
            found.setdefault(tag, {}).setdefault(value, []).append(n)
    order = [*dict.fromkeys(tag for prompt in prompts for tag in prompt.tags), DIMENSION, SUBDIMENSION]
    return {tag: dict(sorted(found[tag].items())) for tag in order if len(found.get(tag, ())) > 1}


def measure(verdicts: Verdicts, answers: Answers) -> JudgeResults:
    """The standings by one judge."""
    prompt_G = _prompt_of_places(answers)

    def over(prompts: Sequence[int]) -> Standings:
        kept = np.isin(prompt_G, prompts)
        return standings(verdicts.p_GMM[kept], prompt_G[kept])

    return JudgeResults(
        verdicts=verdicts,
        overall=standings(verdicts.p_GMM, prompt_G),
        by={
            tag: {value: over(prompts) for value, prompts in values.items()}
            for tag, values in parts(answers.prompts).items()
        },
    )


def agreement(judge: JudgeResults, other: JudgeResults, answers: Answers) -> Agreement:
    """How far a judge agrees with another one, on the pairs that both have judged."""
    pairs = np.triu_indices(len(answers.models), 1)
    p, target = (one.verdicts.p_GMM[:, *pairs] for one in (judge, other))
    both = np.isfinite(p) & np.isfinite(target)
    prompt = np.broadcast_to(_prompt_of_places(answers)[:, None], both.shape)[both]
    none = np.full(len(prompt), np.nan)
    accuracy = pair_accuracy(
        Pairs(
            p=p[both],
            order_gap=none,
            tie=none,
            target=target[both],
            weight=np.ones(len(prompt)),
            prompt=prompt,
            lower_first=np.ones(len(prompt), dtype=bool),
        )
    )
    ratings = np.array([[one.value for one in each.overall.rating] for each in (judge, other)])
    tau = kendall_tau(*ratings) if np.isfinite(ratings).all() else float("nan")
    return Agreement(pairs=accuracy, kendall_tau=tau)


def agreements_on_checks(
    prompts: PromptSet,
    answers: Answers,
    checks: Mapping[str, ByModel],
    results: Mapping[str, JudgeResults],
) -> dict[str, dict[str, CheckAgreement]]:
    """How far each judge of checklists agrees with each other one, and with oracles.

    Args:
        checks: judge of checklists -> model -> its images.
        results: of each judge, among them the oracles.
    """
    oracles = {name: one.verdicts for name, one in results.items() if one.verdicts.kind == "oracle"}
    return {
        judge: {
            other: CheckAgreement(
                images=image_agreement(own, theirs), checks=check_agreement(prompts, own, theirs)
            )
            for other, theirs in checks.items()
            if other != judge
        }
        | {
            name: CheckAgreement(images=image_agreement(own, _all_right(oracle, answers)))
            for name, oracle in oracles.items()
        }
        for judge, own in checks.items()
    }


def _all_right(oracle: Verdicts, answers: Answers) -> dict[str, list[CheckedImage]]:
    """An oracle's scores as verdicts on one check: that all that the prompt asks for is in the image."""
    assert oracle.scores_QNM is not None
    found: dict[str, list[CheckedImage]] = {model: [] for model in answers.models}
    for q, n, m in np.argwhere(np.isfinite(oracle.scores_QNM)).tolist():
        right = float(oracle.scores_QNM[q, n, m] == 1)
        found[answers.models[m]].append(
            CheckedImage(prompt=answers.prompts[q].id, image=n, verdicts=(right,))
        )
    return found


def _prompt_of_places(answers: Answers) -> npt.NDArray[np.int64]:
    return np.array([place.prompt for place in answers.places], np.int64)
