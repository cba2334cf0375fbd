"""Trials: a group that a person put together and the judges that are asked about it, kept under a short name.

The name is a digest of the trial, so a link with it shows the same trial as long as its folder exists.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefrm import media
from prefrm.app.judges import Judges
from prefrm.app.media import MediaStore
from prefrm.errors import DataError, MediaError, PrefrmError
from prefrm.files import write_whole
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import Candidate, Group, WinMatrix

__all__ = ["Answer", "Trial", "Trials"]

_NAME = re.compile(r"[0-9a-f]{20}")
# Trials whose answers are kept in memory.
MOST_ANSWERED = 64
SEPARATOR = re.compile(r"^\s*---+\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A group, the names of its candidates, and the judges to be asked."""

    group: Group
    labels: tuple[str, ...]
    judges: tuple[str, ...]

    @classmethod
    def of_files(
        cls,
        prompt: str,
        files: Sequence[str],
        *,
        context: Sequence[str] = (),
        criterion: str = "",
        judges: Sequence[str],
    ) -> "Trial":
        """Of image or video files, named as these are, without a suffix that all share.

        A file that is not a valid image or video is for the judge to refuse, with its reason.

        Raises:
            DataError: there are fewer than two, one is too large, or a context image is not valid.
        """
        group = Group(
            prompt=prompt.strip(),
            candidates=tuple(map(_read, files)),
            context=tuple(map(media.read, context)),
            criterion=criterion.strip(),
        )
        names = [Path(file).name for file in files]
        if len({Path(name).suffix for name in names}) == 1:
            names = [Path(name).stem for name in names]
        return cls(group=group, labels=_told_apart(names), judges=tuple(judges))

    @classmethod
    def of_texts(
        cls,
        prompt: str,
        texts: str,
        *,
        context: Sequence[str] = (),
        criterion: str = "",
        judges: Sequence[str],
    ) -> "Trial":
        """Of texts that lines of `---` separate. Raises `DataError` if there are fewer than two."""
        found = [text.strip() for text in SEPARATOR.split(texts) if text.strip()]
        group = Group(
            prompt=prompt.strip(),
            candidates=tuple(found),
            context=tuple(map(media.read, context)),
            criterion=criterion.strip(),
        )
        labels = tuple(f"text {n}" for n in range(len(found)))
        return cls(group=group, labels=labels, judges=tuple(judges))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a judge said of a trial.

    Attributes:
        judge: its name on the page.
        identity: which judge that is, such as the digest of a bundle; "" if it gave no answer.
        matrix: None if it gave no answer.
        error: why it gave none.
    """

    judge: str
    identity: str = ""
    matrix: WinMatrix | None = None
    error: str = ""


class Trials:
    """Trials in a folder, and the judges' answers to them. Safe to use from several threads.

    Args:
        folder: of a small JSON file for each; created if it does not exist.
        store: of the candidates.
        judges: those that can be asked.
    """

    def __init__(self, folder: Path, store: MediaStore, judges: Judges) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._store, self._judges = folder, store, judges
        # What fails is asked again.
        self._judged = lru_cache(MOST_ANSWERED)(self._judge)

    def save(self, trial: Trial) -> str:
        """Keep a trial; returns its name, the same for an equal trial."""
        text = json.dumps(
            {
                "prompt": trial.group.prompt,
                "criterion": trial.group.criterion,
                "kind": trial.group.kind,
                "candidates": [
                    one if trial.group.kind == "text" or not one else self._store.add(one)  # type: ignore[arg-type]
                    for one in trial.group.candidates
                ],
                "context": self._store.add_all(trial.group.context),
                "labels": trial.labels,
                "judges": trial.judges,
            },
            sort_keys=True,
        )
        name = media.digest(text)[:20]
        if not (path := self._folder / f"{name}.json").exists():
            write_whole(path, text)
        return name

    def load(self, name: str) -> Trial:
        """The trial of that name. Raises `DataError` if there is none, or what it needs is gone."""
        path = self._folder / f"{name}.json"
        if not _NAME.fullmatch(name) or not path.exists():
            raise DataError(
                f"there is no trial {name[:20]!r} here; it was made on another server, or removed"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
        group = Group(
            prompt=found["prompt"],
            candidates=tuple(self._candidate(one, found["kind"]) for one in found["candidates"]),
            context=tuple(map(self._store.read, found["context"])),
            criterion=found["criterion"],
        )
        return Trial(group=group, labels=tuple(found["labels"]), judges=tuple(found["judges"]))

    def files(self, name: str) -> tuple[list[str], list[str]]:
        """Files of the candidates, named as these are, and of the context. Raises `DataError` as `load`."""
        trial = self.load(name)
        candidates = zip(trial.group.encoded, trial.labels, strict=True)
        context = ((image, f"context {n}") for n, image in enumerate(trial.group.context))
        return self._files(candidates), self._files(context)

    def _files(self, named: Iterable[tuple[bytes | None, str]]) -> list[str]:
        return [str(self._store.file(self._store.add(data), label)) for data, label in named if data]

    def answers(self, name: str) -> list[Answer]:
        """What each of the trial's judges says, in their order. Raises `DataError` as `load`."""
        return [self._answer(name, judge) for judge in self.load(name).judges]

    def as_json(self, name: str) -> dict[str, Any]:
        """The trial and its answers as plain data: what `prefrm score --json` prints, for each judge.

        Raises:
            DataError: as `load`.
        """
        trial = self.load(name)
        answers = {
            answer.judge: {"identity": answer.identity}
            | ({"error": answer.error} if answer.matrix is None else matrix_to_json(answer.matrix))
            for answer in self.answers(name)
        }
        return {
            "prompt": trial.group.prompt,
            "criterion": trial.group.criterion,
            "candidates": list(trial.labels),
            "judges": answers,
        }

    def _candidate(self, kept: str | None, kind: str) -> Candidate:
        return kept if kind == "text" or not kept else self._store.read(kept)

    def _answer(self, name: str, judge: str) -> Answer:
        try:
            identity = self._judges.identity(judge)
            matrix = self._judged(name, judge, identity)
        except PrefrmError as error:
            return Answer(judge=judge, error=str(error))
        return Answer(judge=judge, identity=identity, matrix=matrix)

    def _judge(self, name: str, judge: str, identity: str) -> WinMatrix:
        """The matrix of the judge that has this identity now."""
        (matrix,) = self._judges.score(judge, [self.load(name).group])
        return matrix


def _read(file: str) -> bytes:
    try:
        return media.read(file)
    except MediaError:
        return media.read_bytes(file)


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names, numbered where two are the same, as those of pasted pictures are."""
    return tuple(f"{n} {name}" if names.count(name) > 1 else name for n, name in enumerate(names))
