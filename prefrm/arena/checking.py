"""Checklists on the images of all models, kept image by image, and the verdicts that follow from them."""

from collections import Counter
from pathlib import Path

import numpy as np

from prefrm import media
from prefrm.arena.checked import CheckedImage
from prefrm.arena.checklists import CheckJudge, ImageToCheck
from prefrm.arena.images import Answers
from prefrm.arena.stored import stored_rows
from prefrm.arena.verdicts import SHARD_SIZE, Verdicts, from_scores, image_key, timed
from prefrm.chunks import chunks
from prefrm.progress import Advance

__all__ = ["from_checks"]


def from_checks(
    judge: CheckJudge,
    name: str,
    answers: Answers,
    out: Path,
    progress: Advance | None = None,
) -> tuple[Verdicts, dict[str, list[CheckedImage]]]:
    """Check every image of a prompt with checks; the one of which more checks hold is preferred.

    Results are kept in `out`, and a run that was stopped continues there.

    Returns:
        The verdicts, and the results of each model's images.

    Raises:
        DatasetError: `out` has the results of another judge.
        ScoringError: the judge cannot be reached.
    """
    identity = judge.identity()
    scores = np.full(answers.readable.shape, np.nan)
    found: dict[str, list[CheckedImage]] = {model: [] for model in answers.models}
    done = 0
    with (
        timed(out / "seconds.txt") as seconds,
        stored_rows(out / "checks.jsonl", {"judge": identity}, image_key) as (known, add),
    ):
        checked = (one for one in answers.each() if one.prompt.checks)
        for some in chunks(checked, SHARD_SIZE):
            keys = [{"prompt": one.prompt.id, "sha256": media.digest(one.data)} for one in some]
            new = {
                image_key(key): (key, one)
                for key, one in zip(keys, some, strict=True)
                if image_key(key) not in known
            }
            asked = [
                ImageToCheck(prompt=one.prompt, image=one.place[1], data=one.data) for _, one in new.values()
            ]
            results = judge.check(asked) if asked else []
            add([result.to_row() | key for (key, _), result in zip(new.values(), results, strict=True)])
            for key, one in zip(keys, some, strict=True):
                row = {k: v for k, v in known[image_key(key)].items() if k != "sha256"}
                result = CheckedImage.from_row(row | {"image": one.place[1]})
                found[answers.models[one.place[2]]].append(result)
                if result.verdicts:
                    scores[one.place] = np.mean(result.verdicts)
            done += len(some)
            if progress is not None:
                progress(done)
    reasons = Counter(one.reason for results in found.values() for one in results if one.reason)
    return from_scores(name, "checklist", identity, scores, answers, seconds(), reasons), found
