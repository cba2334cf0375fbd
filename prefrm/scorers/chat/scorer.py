"""The scorer: groups to questions in both presentation orders, and their readings to win matrices."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from prefrm import media
from prefrm.client import _portal
from prefrm.client._credentials import TLS, Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import DEFAULT_DEADLINE_S, DEFAULT_UNAVAILABLE_TIMEOUT_S, RetryPolicy
from prefrm.client._transport import Unfit
from prefrm.errors import ConfigError, MediaError, RequestError
from prefrm.questions import ImageQuestion, Probability
from prefrm.rewards.budget import choose_and_fit
from prefrm.scorers.chat.asking import Answer, Answers, Asker, Askers, Question
from prefrm.scorers.chat.connecting import parse_connection
from prefrm.scorers.chat.dialects import Dialect, get_dialect
from prefrm.scorers.chat.parsing import label
from prefrm.scorers.chat.reading import Bounds, Reading, read_answers
from prefrm.scorers.chat.report import ChatReport, merged_log_odds, report_of_pairs, report_of_singles
from prefrm.scorers.chat.settings import ChatSettings
from prefrm.scorers.chat.showing import Key, Order, ShownGroup, read_context
from prefrm.scorers.chat.wording import Wording, read_wording
from prefrm.winmatrix import Group, Inputs, WinMatrix, check_groups
from prefrm.winmatrix.probabilities import sigmoid

__all__ = ["ChatScorer"]

CALLS = 2
"""Calls at once that keep an endpoint busy: the last questions of one overlap the first of the next."""
SHOWN = 400
"""Characters of a reason."""
OF_NO_MATTER = ("template", "context", "concurrency", "server")
"""Settings that change no answer, or that an identity states otherwise."""


class ChatScorer:
    """A generative judge behind an OpenAI-compatible endpoint; satisfies `prefrm.winmatrix.IdentifiedScorer`.

    Both presentation orders of every pair are asked, and each answer is read as its dialect says: off the
    log-probabilities of its label where the endpoint returns them, otherwise from its words. A pair with an
    answer that cannot be read is not judged, and the matrix says why. Made by `ChatScorer.connect`. Threads
    may share it; it survives a fork, and can be pickled.

    Args:
        endpoints: replicas of one judge; the path of the API stands for a model's name.
        settings: what is asked and how answers count.
        policy: of each question.
        credentials: of each request.

    Raises:
        ConfigError: there is no such dialect, or the wording does not fit it.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        settings: ChatSettings,
        policy: RetryPolicy | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._endpoints, self.settings = tuple(endpoints), settings
        self._policy, self._credentials = policy or RetryPolicy(), credentials or Credentials()
        self.dialect, self._wording = _worded(get_dialect(settings.dialect), settings)
        self._context = _context(settings.context, self._wording)
        self._show = partial(
            ShownGroup.of, inputs=self.inputs(), contexts=self._wording.context, context=self._context
        )
        self._bounds = Bounds(min_mass=settings.min_mass, min_read=settings.min_read)
        self._askers = Askers(
            lambda: Asker(
                self._endpoints, self._policy, self._credentials, settings, self.dialect, self._wording
            )
        )

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        deadline: float = DEFAULT_DEADLINE_S,
        unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S,
        allow_plaintext_token: bool = False,
    ) -> "ChatScorer":
        """A scorer that asks the endpoint at `url`, or the endpoints: replicas that serve the same model.

        Args:
            url: `chat+http://host:8000/v1?model=NAME&dialect=NAME`, with any field of `ChatSettings`;
                `chat+https://` is encrypted. Several replicas stand beside each other, `chat+http://a:8000,b:8000/v1`.
            token: sent with each request as `authorization: Bearer TOKEN`.
            tls: as of `prefrm.client.connect`.
            deadline: seconds that one question may take, its retries included.
            unavailable_timeout: seconds to retry while no replica is reachable or ready.
            allow_plaintext_token: send the token unencrypted to other machines, too.

        Raises:
            ConfigError: an argument is not as described, or the token would travel in plain text.
        """
        return cls(
            *parse_connection(
                url,
                token=token,
                tls=tls,
                deadline=deadline,
                unavailable_timeout=unavailable_timeout,
                allow_plaintext_token=allow_plaintext_token,
            )
        )

    @property
    def url(self) -> str:
        """The URL of the judge, with all its replicas and settings."""
        first, query = self._endpoints[0], self.settings.query()
        hosts = ",".join(one.address for one in self._endpoints)
        return f"chat+{first.scheme}://{hosts}/{first.model}{'?' + query if query else ''}"

    @property
    def concurrency(self) -> int:
        """How many calls at once keep the endpoint busy."""
        return CALLS

    def identity(self) -> str:
        """The model, its settings and the wording's digest, wherever the endpoint is. Raises as `score`."""
        served = _portal.run(lambda: self._askers.get().served())
        wording = media.digest(repr((self._wording, self._context)).encode())
        settings = replace(self.settings, model=served.model).query(OF_NO_MATTER)
        return f"chat {settings}, server {served.server.name}, wording {wording}"

    def inputs(self) -> Inputs:
        """Images or texts, and context images and a criterion if the question has places for them."""
        read = self._wording.inputs
        return replace(read, needs_context=read.needs_context and not self._context)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size.

        A candidate that cannot be decoded has an error, and each of a group that the judge does not read
        (`inputs`). A pair whose answers cannot be read, or whose
        question the endpoint refuses, is not judged; the matrix has the reason.

        Raises:
            RequestError: the endpoint refused every question of the call, or the request as such.
            ScoringError: as `prefrm.client.RemoteScorer.score`.
            ConfigError: the model is not named and not the only one, or the server cannot do what is asked.
        """
        return [report.matrix for report in self.reports(groups)]

    def reports(self, groups: Iterable[Group]) -> list[ChatReport]:
        """As `score`, with the mass of the labels, the agreement of samples and the judge's dimensions."""
        found = check_groups(groups)
        if self.settings.pairs is None or not self.dialect.compares:
            return [self._report(*one) for one in self._ask(found)]
        # The rounds of a budget follow one another within a group; groups do not wait for each other.
        answers: list[Answer | Unfit] = []
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            reports = list(pool.map(lambda one: self._within_budget(one, answers), map(self._show, found)))
        self._require_accepted(answers)
        return reports

    def require_yes_no(self) -> None:
        """Raise `ConfigError` if the dialect compares two candidates, rates them, or reads texts."""
        labels = () if self.dialect.values else self.dialect.labels
        if self.dialect.compares or len(labels) != 2 or self._wording.kind != "image":
            raise ConfigError(
                f"dialect {self.dialect.name} does not answer yes or no about one image; use dialect=vqascore"
            )

    def probabilities(self, questions: Sequence[ImageQuestion]) -> list[Probability]:
        """P(yes) for each question, by a dialect that answers yes or no about one image, such as "vqascore".

        Satisfies `prefrm.questions.YesNoJudge`. What cannot be decoded or read, or is refused, has a reason.

        Raises:
            ConfigError: the dialect compares two images, or rates them.
            ScoringError: as `prefrm.client.RemoteScorer.score`.
        """
        self.require_yes_no()
        answers = _portal.run(lambda: self._askers.get().ask_about(questions))
        readings = [self._reading(answer) for answer in answers]
        return [Probability(value=float(sigmoid(one.value)), reason=one.reason) for one in readings]

    def close(self) -> None:
        """Release the connections; scoring again opens new ones."""
        self._askers.close()

    def __enter__(self) -> "ChatScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._endpoints, self.settings, self._policy, self._credentials)

    def __repr__(self) -> str:
        return f"ChatScorer({self.url!r})"

    def _report(self, group: ShownGroup, readings: Mapping[Key, Reading]) -> ChatReport:
        if not self.dialect.compares:
            return report_of_singles(group, readings)
        return report_of_pairs(group, readings, ties=self.dialect.ties)

    def _within_budget(self, group: ShownGroup, answers: list[Answer | Unfit]) -> ChatReport:
        """The report of a group of which at most `pairs` pairs are asked, and the others inferred.

        Adds what was answered to `answers`.
        """
        assert self.settings.pairs is not None
        shown, readings = group.shown, dict[Key, Reading]()
        if len(shown) < 2:
            return self._report(group, readings)

        def judge(pairs: Sequence[Order]) -> list[float]:
            places = [(shown[i], shown[j]) for i, j in pairs]
            asked = group.pairs(order for i, j in places for order in ((i, j), (j, i)))
            keys = [key for key in asked if key not in readings]
            found = _portal.run(lambda: self._askers.get().ask_all(self._questions(group, keys)))
            answers.extend(found)
            readings.update(self._readings(keys, found))
            return [merged_log_odds(group, readings, i, j) for i, j in places]

        # Whatever the budget, candidates that nothing connects cannot be compared.
        chosen = choose_and_fit(len(shown), max(self.settings.pairs, len(shown) - 1), judge)
        report = self._report(group, readings)
        inferred = np.full(report.matrix.p.shape, np.nan)
        inferred[np.ix_(shown, shown)] = chosen.inferred
        return replace(report, matrix=report.matrix.with_inferred(inferred))

    def _ask(self, groups: Sequence[Group]) -> list[tuple[ShownGroup, dict[Key, Reading]]]:
        """Every group with the readings of all its questions."""

        async def ask() -> list[tuple[ShownGroup, Sequence[Key], Answers]]:
            asker = self._askers.get()
            asked: list[tuple[ShownGroup, Sequence[Key], asyncio.Task[Answers]]] = []
            try:
                for group in groups:
                    # Images are decoded while questions about the groups before are in flight.
                    shown = await asyncio.to_thread(self._show, group)
                    keys = shown.pairs() if self.dialect.compares else shown.singles()
                    task = asyncio.ensure_future(asker.ask_all(self._questions(shown, keys)))
                    asked.append((shown, keys, task))
                return [(shown, keys, await task) for shown, keys, task in asked]
            finally:
                for _, _, task in asked:
                    task.cancel()
                await asyncio.gather(*(task for _, _, task in asked), return_exceptions=True)

        found = _portal.run(ask)
        self._require_accepted([one for _, _, answers in found for one in answers])
        return [(shown, self._readings(keys, answers)) for shown, keys, answers in found]

    def _questions(self, group: ShownGroup, keys: Sequence[Key]) -> list[Question]:
        shown = [tuple(group.contents[one] for one in key) for key in keys]
        return [
            Question(prompt=group.prompt, candidates=some, context=group.context, criterion=group.criterion)
            for some in shown
        ]

    def _require_accepted(self, answers: Answers) -> None:
        """Raise `RequestError` if there are answers and all are refusals."""
        refusals = [one for one in answers if isinstance(one, Unfit)]
        if refusals and len(refusals) == len(answers):
            raise RequestError(f"{self._endpoints[0].url} refused every question: {refusals[0]}")

    def _readings(self, keys: Sequence[Key], answers: Answers) -> dict[Key, Reading]:
        return {key: self._reading(answer) for key, answer in zip(keys, answers, strict=True)}

    def _reading(self, answer: Answer | Unfit | MediaError) -> Reading:
        if isinstance(answer, MediaError):
            return Reading(value=np.nan, reason=str(answer))
        if isinstance(answer, Unfit):
            return Reading(value=np.nan, unread=1.0, reason=f"the endpoint refused the question: {answer}")
        reading = read_answers(self.dialect, answer.choices, self._bounds, answer.untied)
        return replace(reading, reason=reading.reason and self._credentials.quoted(reading.reason, SHOWN))


def _worded(dialect: Dialect, settings: ChatSettings) -> tuple[Dialect, Wording]:
    """The dialect as its wording has it, with the template's labels and prefix where that has them.

    Raises:
        ConfigError: the template shows another number of candidates, or does not fit its answers.
    """
    wording = dialect.wording if settings.template is None else read_wording(settings.template)
    if wording.candidates != dialect.wording.candidates:
        raise ConfigError(
            f"{settings.template} shows {wording.candidates} candidates, and dialect {dialect.name} "
            f"{dialect.wording.candidates}"
        )
    if wording.prefix is not None:
        dialect = dialect.answering(wording.prefix, wording.labels)
    if dialect.direct and dialect.prefix and settings.read != "prefix":
        raise ConfigError(f"{settings.template} starts the answer with {dialect.prefix!r}; add read=prefix")
    if settings.read == "prefix":
        if not dialect.prefix:
            raise ConfigError(
                f"read=prefix: dialect {dialect.name} has no start of an answer before its label"
            )
        # The answer goes on with the label alone.
        dialect = replace(
            dialect, max_tokens=1, parser=label(*dialect.labels), opening=None, tie=None, ties=False, stop=()
        )
    return dialect, wording


def _context(path: Path | None, wording: Wording) -> tuple[str, ...]:
    """The image of the context as a data URL. Raises `ConfigError` if the wording does not show one."""
    if path is None:
        return ()
    if wording.context not in (1, None):
        raise ConfigError(
            f"context={path}: the question shows {wording.context} images of the context, not 1"
        )
    return (read_context(path),)
