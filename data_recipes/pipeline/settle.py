"""The second pass, in the spool: which judgements are left out, and in which split each of the others is.

No prompt, whatever its letter case and spacing, and no image, by its digest, is in two splits:

- what the source itself calls test or validation stays there. Judgements of other splits about the same
  prompts or images are left out; test goes before validation, and validation before train;
- the rest is split by the hash of the prompt, so that the split of a prompt does not change as rows are
  added. Prompts that share an image or are of one family, directly or through others, stay together: in the
  split of the first in the alphabet.
"""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_recipes.pipeline.spool import Spool
from prefrm import media
from prefrm.data import dataset_folder
from prefrm.errors import DatasetError
from prefrm.records import SPLITS, prompt_key, read_groups, read_info

__all__ = ["BROKEN_IMAGE", "IDENTICAL", "Settled", "settle", "split_of", "was_removed"]

BROKEN_IMAGE = "broken image"
IDENTICAL = "identical images"
PRIORITY = ("test", "validation", "train")
# Of judgements that are still in.
KEPT = "reason = ''"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the second pass decided.

    Attributes:
        apart_from: dataset -> fingerprint.
        drawn: the splits that the source does not have itself.
    """

    apart_from: Mapping[str, str]
    drawn: frozenset[str]


def settle(spool: Spool, shares: Mapping[str, float], seed: int, apart_from: Sequence[str]) -> Settled:
    """Leave out what cannot be used and give every other judgement its place.

    Args:
        spool: every image in it was read.
        shares: of the prompts that validation and test get, where the source has no such split itself.
        seed: another one gives other splits.
        apart_from: datasets, folders or on the Hub, with which this one must share no prompt and no image.

    Raises:
        DatasetError: a split with a share gets nothing, or one of `apart_from` is not a dataset.
    """
    spool.index()
    db = spool.db
    with spool.transaction():
        # A build that was killed here starts this pass again.
        db.execute(
            f"UPDATE statement SET reason = '', detail = ''"
            f" WHERE reason IN ({_MARKS}) OR reason LIKE '{ALSO_IN}%'",
            MARKS,
        )
        db.execute("UPDATE prompt SET split = NULL")
        _leave_out_broken(spool)
        prints = {other: _leave_out_shared(spool, other) for other in apart_from}
        own = {
            split for (split,) in db.execute("SELECT DISTINCT split FROM statement WHERE split IS NOT NULL")
        }
        for held in PRIORITY[:-1]:
            if held in own:
                _leave_out_leaks(spool, held)
        drawn = {split: shares[split] for split in PRIORITY[:-1] if split not in own and _has_train(spool)}
        if any(drawn.values()):
            _split_prompts(spool, drawn, seed)
        db.execute(
            "UPDATE statement SET place = CASE WHEN split IN ('test', 'validation') THEN split"
            " ELSE COALESCE((SELECT split FROM prompt WHERE id = statement.prompt), 'train') END"
        )
    _require_all(spool, drawn)
    return Settled(apart_from=prints, drawn=frozenset(drawn))


ALSO_IN = "also in "
OTHER_SPLIT = "in the {} split"
MARKS = (BROKEN_IMAGE, IDENTICAL, *(OTHER_SPLIT.format(split) for split in SPLITS))
_MARKS = ", ".join("?" for _ in MARKS)


def was_removed(reason: str) -> bool:
    """Whether judgements are left out for this reason by `settle` and not by the recipe."""
    return reason in MARKS or reason.startswith(ALSO_IN)


def split_of(prompt: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a prompt, by the hash of its `prompt_key`."""
    raw = hashlib.sha256(f"{seed}\n{prompt_key(prompt)}".encode()).digest()
    place = int.from_bytes(raw[:8], "big") / 2**64
    for split in PRIORITY[:-1]:
        if place < (share := shares.get(split, 0.0)):
            return split
        place -= share
    return "train"


def _leave_out_broken(spool: Spool) -> None:
    for end in ("first", "second"):
        spool.db.execute(
            f"UPDATE statement SET reason = ?, detail = (SELECT problem FROM image WHERE id = {end})"
            f" WHERE {end} IN (SELECT id FROM image WHERE problem IS NOT NULL) AND {KEPT}",
            (BROKEN_IMAGE,),
        )
    spool.db.execute(
        f"UPDATE statement SET reason = ? WHERE {KEPT} AND second IS NOT NULL AND"
        " (SELECT digest FROM image WHERE id = first) = (SELECT digest FROM image WHERE id = second)",
        (IDENTICAL,),
    )


def _leave_out_shared(spool: Spool, other: str) -> str:
    """Leave out what is in another dataset, too; returns its fingerprint."""
    folder = dataset_folder(other)
    db, info = spool.db, read_info(folder)
    db.execute("CREATE TEMP TABLE IF NOT EXISTS other (value TEXT PRIMARY KEY)")
    db.execute("DELETE FROM other")
    for split in info.fingerprints:
        for group in read_groups(folder, split):
            values = [prompt_key(group.prompt), *(media.digest(image) for image in group.candidates if image)]
            db.executemany("INSERT OR IGNORE INTO other VALUES (?)", [(value,) for value in values])
    prompts = "SELECT id FROM prompt WHERE key IN (SELECT value FROM other)"
    images = "SELECT id FROM image WHERE digest IN (SELECT value FROM other)"
    _leave_out_among(spool, f"{ALSO_IN}{other}", "1", prompts, images)
    return hashlib.sha256("\n".join(sorted(info.fingerprints.values())).encode()).hexdigest()


def _leave_out_leaks(spool: Spool, held: str) -> None:
    lower = PRIORITY[PRIORITY.index(held) + 1 :]
    among = f"COALESCE(split, 'train') IN ({', '.join(repr(split) for split in lower)})"
    kept = f"FROM statement WHERE split = '{held}' AND {KEPT}"
    images = (
        "SELECT id FROM image WHERE digest IN (SELECT digest FROM image WHERE"
        f" id IN (SELECT first {kept}) OR id IN (SELECT second {kept}))"
    )
    _leave_out_among(spool, OTHER_SPLIT.format(held), among, f"SELECT prompt {kept}", images)


def _leave_out_among(spool: Spool, reason: str, among: str, prompts: str, images: str) -> None:
    spool.db.execute("CREATE TEMP TABLE IF NOT EXISTS shared_prompt (id INTEGER PRIMARY KEY)")
    spool.db.execute("CREATE TEMP TABLE IF NOT EXISTS shared_image (id INTEGER PRIMARY KEY)")
    spool.db.execute("DELETE FROM shared_prompt")
    spool.db.execute("DELETE FROM shared_image")
    spool.db.execute(f"INSERT OR IGNORE INTO shared_prompt {prompts}")
    spool.db.execute(f"INSERT OR IGNORE INTO shared_image {images}")
    spool.db.execute(
        f"UPDATE statement SET reason = ? WHERE {among} AND {KEPT}"
        " AND (prompt IN (SELECT id FROM shared_prompt)"
        " OR first IN (SELECT id FROM shared_image) OR second IN (SELECT id FROM shared_image))",
        (reason,),
    )


def _split_prompts(spool: Spool, shares: Mapping[str, float], seed: int) -> None:
    """Split the prompts that the source does not; holds 9 bytes for each prompt and each image in memory."""
    db = spool.db
    prompts = (db.execute("SELECT MAX(id) FROM prompt").fetchone()[0] or 0) + 1
    images = (db.execute("SELECT MAX(id) FROM image").fetchone()[0] or 0) + 1
    above = array("q", range(prompts + images))

    def top(node: int) -> int:
        while above[node] != node:
            above[node] = node = above[above[node]]
        return node

    pool = f"COALESCE(statement.split, 'train') = 'train' AND {KEPT}"
    for end in ("first", "second"):
        edges = db.execute(
            f"SELECT DISTINCT prompt, same.id FROM statement JOIN image ON image.id = statement.{end}"
            " JOIN (SELECT digest, MIN(id) AS id FROM image GROUP BY digest) AS same USING (digest)"
            f" WHERE {pool}"
        )
        for prompt, image in edges:
            above[top(prompt)] = top(prompts + image)
    families = db.execute(
        f"SELECT DISTINCT family, prompt FROM statement WHERE family != '' AND {pool} ORDER BY family"
    )
    for (family, one), (other, two) in pairwise(families):
        if family == other:
            above[top(one)] = top(two)
    # By component, named by its topmost node: 1 + the index of its split, 0 before its first prompt.
    chosen = bytearray(prompts + images)
    for number, key in db.execute("SELECT id, key FROM prompt ORDER BY key"):
        if not chosen[component := top(number)]:
            chosen[component] = 1 + SPLITS.index(split_of(key, shares, seed))
    db.create_function("split_of_prompt", 1, lambda number: SPLITS[chosen[top(number)] - 1])
    db.execute("UPDATE prompt SET split = split_of_prompt(id)")
    db.create_function("split_of_prompt", 1, None)


def _has_train(spool: Spool) -> bool:
    found = f"SELECT 1 FROM statement WHERE COALESCE(split, 'train') = 'train' AND {KEPT}"
    return spool.db.execute(found).fetchone() is not None


def _require_all(spool: Spool, shares: Mapping[str, float]) -> None:
    """Raise `DatasetError` if nothing is left, or if a split with a share gets nothing."""
    placed = {split for (split,) in spool.db.execute(f"SELECT DISTINCT place FROM statement WHERE {KEPT}")}
    if not placed:
        reasons = spool.db.execute(
            "SELECT COUNT(*), reason, MIN(name || ' ' || detail) FROM statement GROUP BY reason"
        ).fetchall()
        found = "; ".join(f"{count} {reason}, such as {example}" for count, reason, example in reasons)
        broken = any(reason == BROKEN_IMAGE for _, reason, _ in reasons)
        advice = "; give images= if paths are relative to another folder" if broken else ""
        raise DatasetError(f"the source has no usable judgement; left out: {found or 'nothing'}{advice}")
    wanted = ("train", *(split for split, share in shares.items() if share)) if shares else ()
    if missing := [split for split in wanted if split not in placed]:
        raise DatasetError(
            f"too few prompts: none falls into the {missing[0]} split; give {missing[0]}=0 to do without it, "
            "a larger share or another seed (prompts that share an image stay together)"
        )
