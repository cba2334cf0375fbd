"""Who says which of two models answers a prompt better: scorers, the oracle of a world, and people.

A verdict on two images is the probability that the first is preferred; NaN where there is none.

Shapes: G places (`Answers.places`), M models, Q prompts, N images of a prompt by a model.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prefrm import media
from prefrm.arena.images import Answers
from prefrm.arena.stored import stored_rows
from prefrm.errors import DataError, DatasetError
from prefrm.eval.statistics import mean
from prefrm.files import write_whole
from prefrm.label import label, read_matrices
from prefrm.progress import Advance
from prefrm.rewards import Criteria
from prefrm.rows import read_rows
from prefrm.winmatrix import Doubles, Scorer, WinMatrix

__all__ = [
    "SHARD_SIZE",
    "Verdicts",
    "from_oracle",
    "from_people",
    "from_scorer",
    "from_scores",
    "image_key",
    "timed",
]


SHARD_SIZE = 16
"""Groups, or images, whose results are written together: at most as many are judged again after a kill."""
TIE = "tie"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """What one judge says.

    Attributes:
        name: by which reports call it.
        kind: "judge" of a scorer, "checklist" of a judge that answers questions about single images, "oracle"
            of a world, "people" of votes.
        identity: what tells its verdicts from those of others, such as the digest of a bundle.
        p_GMM: P(model i's image is preferred to model j's), NaN where unknown.
        pairs: number of pairs of images that it was asked for.
        reasons: why pairs of these have no verdict -> how often.
        scores_QNM: of each of N images of Q prompts by each model, in [0, 1], NaN where there is none, by a
            judge that scores single images; None of others.
        seconds: of judging, over all runs.
    """

    name: str
    kind: Literal["judge", "checklist", "oracle", "people"]
    identity: str
    p_GMM: Doubles
    pairs: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    scores_QNM: Doubles | None = None
    seconds: float = 0.0

    @property
    def judged(self) -> int:
        """Number of pairs of images with a verdict."""
        return int(np.isfinite(self.p_GMM[:, *np.triu_indices(self.p_GMM.shape[1], 1)]).sum())

    @property
    def scores(self) -> tuple[float, ...]:
        """Mean score of each model's images; () of a judge that does not score single images."""
        if self.scores_QNM is None:
            return ()
        return tuple(mean(column) for column in np.moveaxis(self.scores_QNM, 2, 0))


def from_scorer(
    scorer: Scorer,
    name: str,
    identity: str,
    answers: Answers,
    out: Path,
    *,
    criteria: Criteria | None = None,
    progress: Advance | None = None,
) -> Verdicts:
    """Judge the groups of all models' images of each place; win matrices are kept in `out`.

    A run that was stopped continues there, as `prefrm.label.label` does.

    Raises:
        DatasetError: `out` has the verdicts of another judge, or on other images.
        ScoringError: the scorer cannot answer at all.
    """
    with timed(out / "seconds.txt") as seconds:
        label(
            scorer,
            answers.groups(),
            out,
            judge=identity,
            criteria=criteria,
            shard_size=SHARD_SIZE,
            progress=progress,
        )
    matrices = [labelled.matrix for labelled in read_matrices(out)]
    asked = [_pairs(answers.readable[place.prompt, place.image]) for place in answers.places]
    return Verdicts(
        name=name,
        kind="judge",
        identity=identity,
        p_GMM=np.stack([matrix.p for matrix in matrices]).astype(np.float64),
        pairs=sum(map(len, asked)),
        reasons=Counter(
            reason for m, pairs in zip(matrices, asked, strict=True) for reason in _why(m, pairs)
        ),
        seconds=seconds(),
    )


def from_oracle(
    oracle: Callable[[str, bytes], float],
    world: str,
    answers: Answers,
    out: Path,
    progress: Advance | None = None,
) -> Verdicts:
    """The oracle's score of every image, of which the higher one is preferred; scores are kept in `out`.

    Raises:
        DataError: a prompt is not one of the world.
    """
    scores = np.full(answers.readable.shape, np.nan)
    with (
        timed(out / "seconds.txt") as seconds,
        stored_rows(out / "scores.jsonl", {"judge": world}, image_key) as (known, add),
    ):
        for done, one in enumerate(answers.each(), 1):
            text = one.prompt.text
            key = {"prompt": one.prompt.id, "sha256": media.digest(one.data)}
            if image_key(key) not in known:
                add([{**key, "score": oracle(text, one.data)}])
            scores[one.place] = known[image_key(key)]["score"]
            if progress is not None:
                progress(done)
    return from_scores(f"oracle of {world}", "oracle", world, scores, answers, seconds())


def image_key(row: Mapping[str, object]) -> tuple[str, ...]:
    """Of a stored result: the id of the prompt and the digest of the image."""
    return str(row["prompt"]), str(row["sha256"])


def from_scores(
    name: str,
    kind: Literal["checklist", "oracle"],
    identity: str,
    scores_QNM: Doubles,
    answers: Answers,
    seconds: float,
    reasons: Mapping[str, int] | None = None,
) -> Verdicts:
    """Verdicts by scores in [0, 1] of single images, NaN where there is none: the higher one is preferred."""
    places = answers.places
    score_GM = scores_QNM[[place.prompt for place in places], [place.image for place in places]]
    return Verdicts(
        name=name,
        kind=kind,
        identity=identity,
        p_GMM=(np.sign(score_GM[:, :, None] - score_GM[:, None]) + 1) / 2,
        pairs=sum(len(_pairs(answers.readable[place.prompt, place.image])) for place in places),
        reasons=dict(reasons or {}),
        scores_QNM=scores_QNM,
        seconds=seconds,
    )


def from_people(path: Path, answers: Answers) -> Verdicts:
    """The votes in a .csv or .jsonl file; several on a pair of images are averaged.

    A vote has the columns `prompt`, the id of the prompt; `first` and `second`, two models; `preferred`, one
    of them or "tie"; and `image`, the number of the images, 0 without it.

    Raises:
        DatasetError: the file cannot be read, or a vote is about something else than these answers.
    """
    places = {(answers.prompts[one.prompt].id, one.image): g for g, one in enumerate(answers.places)}
    models = {model: m for m, model in enumerate(answers.models)}
    size = (len(places), len(models), len(models))
    won_GMM, votes_GMM = np.zeros(size), np.zeros(size)
    for line, vote in read_rows(path, ("prompt", "first", "second", "preferred")):
        if isinstance(vote, DataError):
            raise DatasetError(f"{path} line {line}: {vote}") from vote
        try:
            g = places[str(vote["prompt"]), int(vote.get("image") or 0)]
            i, j = models[vote["first"]], models[vote["second"]]
            p = {vote["first"]: 1.0, vote["second"]: 0.0, TIE: 0.5}[vote["preferred"]]
            if i == j:
                raise ValueError("a model against itself")
        except (KeyError, ValueError, TypeError) as error:
            raise DatasetError(
                f"{path} line {line} is not a vote on these answers ({error}): the models are "
                f"{', '.join(models)}, and preferred is one of the two or {TIE}; received {json.dumps(vote)}"
            ) from error
        won_GMM[g, i, j] += p
        won_GMM[g, j, i] += 1 - p
        votes_GMM[g, [i, j], [j, i]] += 1
    p_GMM = np.where(votes_GMM > 0, won_GMM / np.where(votes_GMM > 0, votes_GMM, 1), np.nan)
    digest = media.digest(path.read_bytes())
    pairs = int((votes_GMM > 0).sum()) // 2
    return Verdicts(name="people", kind="people", identity=digest, p_GMM=p_GMM, pairs=pairs)


def _pairs(readable: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of models with an image."""
    known = np.flatnonzero(readable).tolist()
    return [(i, j) for n, i in enumerate(known) for j in known[n + 1 :]]


def _why(matrix: WinMatrix, pairs: Sequence[tuple[int, int]]) -> list[str]:
    return [reason for i, j in pairs if (reason := matrix.reason(i, j))]


@contextmanager
def timed(path: Path) -> Iterator[Callable[[], float]]:
    """Add the seconds that the block takes to those in a file, also where it fails; yields their sum."""
    before = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    started = time.monotonic()

    def total() -> float:
        return before + time.monotonic() - started

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield total
    finally:
        write_whole(path, f"{total():.3f}\n")
