"""The second pass, in the spool: which judgements are left out, and in which split each of the others is.

No prompt, whatever its letter case and spacing, and no image or video, by its digest, is in two splits:

- what the source itself calls test or validation stays there. Judgements of other splits about the same
  prompts, images or videos are left out; test goes before validation, and validation before train;
- the rest is split by the hash of the prompt, so that the split of a prompt does not change as rows are
  added. Prompts that share an image or a video or are of one family, directly or through others, stay
  together: in the split of the first in the alphabet.

A prompt with a context is the same as another only with the same context (`prompt_key`): thousands of
questions are "Describe the image." A context image counts as the images of candidates do. A text is in
several splits if it answers several prompts, as "Yes." does.
"""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import get_args

from data_recipes.pipeline.spool import Spool
from prefrm import media
from prefrm.data import dataset_folder
from prefrm.errors import DatasetError
from prefrm.records import SPLITS, prompt_key, read_groups, read_info
from prefrm.winmatrix import Kind

__all__ = ["BROKEN", "IDENTICAL", "Settled", "settle", "split_of", "was_removed"]

BROKEN = tuple(f"broken {kind}" for kind in get_args(Kind))
IDENTICAL = "identical candidates"
NOT_ONE_KIND = "candidates of different kinds"
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
        spool: every content in it was read.
        shares: of the prompts that validation and test get, where the source has no such split itself.
        seed: another one gives other splits.
        apart_from: datasets, folders or on the Hub, with which this one must share no prompt,
            no image and no video.

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
        _identify_prompts(spool)
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
            " ELSE COALESCE((SELECT split FROM prompt WHERE id = statement.prompt), 'train') END,"
            " asked = (SELECT MIN(same.id) FROM prompt JOIN prompt AS same USING (identity)"
            " WHERE prompt.id = statement.prompt)"
        )
    _require_all(spool, drawn)
    return Settled(apart_from=prints, drawn=frozenset(drawn))


ALSO_IN = "also in "
OTHER_SPLIT = "in the {} split"
MARKS = (*BROKEN, IDENTICAL, NOT_ONE_KIND, *(OTHER_SPLIT.format(split) for split in SPLITS))
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
    db = spool.db
    db.execute(
        f"UPDATE statement SET reason = 'broken image', detail = (SELECT {PROBLEM} FROM {UNUSABLE}"
        f" AND prompt = statement.prompt) WHERE {KEPT} AND prompt IN (SELECT prompt FROM {UNUSABLE})"
    )
    for end in ("first", "second"):
        db.execute(
            f"UPDATE statement SET (reason, detail) = (SELECT 'broken ' || kind, problem FROM content"
            f" WHERE id = {end}) WHERE {end} IN (SELECT id FROM content WHERE problem IS NOT NULL) AND {KEPT}"
        )
    for fact, reason in (("kind !=", NOT_ONE_KIND), ("digest =", IDENTICAL)):
        name, is_so = fact.split()
        db.execute(
            f"UPDATE statement SET reason = ? WHERE {KEPT} AND second IS NOT NULL AND"
            f" (SELECT {name} FROM content WHERE id = first) {is_so}"
            f" (SELECT {name} FROM content WHERE id = second)",
            (reason,),
        )


# Contents in a context that is not one of images, and why.
UNUSABLE = "context JOIN content ON content.id = content WHERE (problem IS NOT NULL OR kind != 'image')"
PROBLEM = "COALESCE(problem, content.name || ' is a ' || kind || '; the context of a prompt is images')"


def _identify_prompts(spool: Spool) -> None:
    """Fill in `prompt.identity`: `prompt_key` of the text and the context."""
    db = spool.db
    db.execute("UPDATE prompt SET identity = key WHERE context = ''")
    rows = db.execute(
        "SELECT prompt, COALESCE(digest, '') FROM context JOIN content ON content.id = content"
        " ORDER BY prompt, place"
    )
    db.executemany(
        "UPDATE prompt SET identity = key || ' ' || ? WHERE id = ?",
        (
            (" ".join(digest for _, digest in same), prompt)
            for prompt, same in groupby(rows, key=lambda row: row[0])
        ),
    )


def _leave_out_shared(spool: Spool, other: str) -> str:
    """Leave out what is in another dataset, too; returns its fingerprint."""
    folder = dataset_folder(other)
    db, info = spool.db, read_info(folder)
    db.execute("CREATE TEMP TABLE IF NOT EXISTS other (value TEXT PRIMARY KEY)")
    db.execute("DELETE FROM other")
    for split in info.fingerprints:
        for group in read_groups(folder, split):
            files = [media.digest(data) for data in (*group.group().encoded, *group.context) if data]
            values = [(value,) for value in (group.prompt_key, *files)]
            db.executemany("INSERT OR IGNORE INTO other VALUES (?)", values)
    prompts = "SELECT id FROM prompt WHERE identity IN (SELECT value FROM other)"
    contents = f"SELECT id FROM content WHERE {LEAKS} AND digest IN (SELECT value FROM other)"
    _leave_out_among(spool, f"{ALSO_IN}{other}", "1", prompts, contents)
    return hashlib.sha256("\n".join(sorted(info.fingerprints.values())).encode()).hexdigest()


def _leave_out_leaks(spool: Spool, held: str) -> None:
    lower = PRIORITY[PRIORITY.index(held) + 1 :]
    among = f"COALESCE(split, 'train') IN ({', '.join(repr(split) for split in lower)})"
    kept = f"FROM statement WHERE split = '{held}' AND {KEPT}"
    contents = (
        f"SELECT id FROM content WHERE {LEAKS} AND digest IN (SELECT digest FROM content WHERE"
        f" id IN (SELECT first {kept}) OR id IN (SELECT second {kept})"
        f" OR id IN (SELECT content FROM context WHERE prompt IN (SELECT prompt {kept})))"
    )
    _leave_out_among(spool, OTHER_SPLIT.format(held), among, f"SELECT prompt {kept}", contents)


# A content that may be in one split only.
LEAKS = "kind != 'text'"


def _leave_out_among(spool: Spool, reason: str, among: str, prompts: str, contents: str) -> None:
    db = spool.db
    for table, found in (("shared_content", contents), ("shared_prompt", prompts)):
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY)")
        db.execute(f"DELETE FROM {table}")
        db.execute(f"INSERT OR IGNORE INTO {table} {found}")
    db.execute(
        "INSERT OR IGNORE INTO shared_prompt SELECT prompt FROM context"
        " WHERE content IN (SELECT id FROM shared_content)"
    )
    db.execute(
        f"UPDATE statement SET reason = ? WHERE {among} AND {KEPT}"
        " AND (prompt IN (SELECT id FROM shared_prompt)"
        " OR first IN (SELECT id FROM shared_content) OR second IN (SELECT id FROM shared_content))",
        (reason,),
    )


def _split_prompts(spool: Spool, shares: Mapping[str, float], seed: int) -> None:
    """Split the prompts that the source does not; holds 9 bytes for each prompt and content in memory."""
    db = spool.db
    prompts = (db.execute("SELECT MAX(id) FROM prompt").fetchone()[0] or 0) + 1
    contents = (db.execute("SELECT MAX(id) FROM content").fetchone()[0] or 0) + 1
    above = array("q", range(prompts + contents))

    def top(node: int) -> int:
        while above[node] != node:
            above[node] = node = above[above[node]]
        return node

    pool = f"COALESCE(statement.split, 'train') = 'train' AND {KEPT}"
    for end in ("first", "second", "context.content"):
        edges = db.execute(
            f"SELECT DISTINCT statement.prompt, same.id FROM statement"
            " LEFT JOIN context ON context.prompt = statement.prompt"
            f" JOIN content ON content.id = {end}"
            f" JOIN (SELECT digest, MIN(id) AS id FROM content WHERE {LEAKS} GROUP BY digest) AS same"
            f" USING (digest) WHERE {pool}"
        )
        for prompt, content in edges:
            above[top(prompt)] = top(prompts + content)
    families = db.execute(
        f"SELECT DISTINCT family, prompt FROM statement WHERE family != '' AND {pool} ORDER BY family"
    )
    for (family, one), (other, two) in pairwise(families):
        if family == other:
            above[top(one)] = top(two)
    # By component, named by its topmost node: 1 + the index of its split, 0 before its first prompt.
    chosen = bytearray(prompts + contents)
    for number, identity in db.execute("SELECT id, identity FROM prompt ORDER BY identity, id"):
        if not chosen[component := top(number)]:
            chosen[component] = 1 + SPLITS.index(split_of(identity, shares, seed))
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
        broken = any(reason in BROKEN for _, reason, _ in reasons)
        advice = "; give images= if paths are relative to another folder" if broken else ""
        raise DatasetError(f"the source has no usable judgement; left out: {found or 'nothing'}{advice}")
    wanted = ("train", *(split for split, share in shares.items() if share)) if shares else ()
    if missing := [split for split in wanted if split not in placed]:
        raise DatasetError(
            f"too few prompts: none falls into the {missing[0]} split; give {missing[0]}=0 to do without it, "
            "a larger share or another seed (prompts that share an image or a video stay together)"
        )
