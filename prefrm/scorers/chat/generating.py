"""A generative judge behind a chat endpoint that answers questions about an image in words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefrm.client import _portal
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import RetryPolicy
from prefrm.client._transport import Unfit
from prefrm.errors import ConfigError, MediaError
from prefrm.questions import Generated, ImageQuestion
from prefrm.scorers.chat.asking import Answer, Asker, Askers
from prefrm.scorers.chat.connecting import parse_connection
from prefrm.scorers.chat.dialects import REASONING_TOKENS, Dialect
from prefrm.scorers.chat.parsing import label
from prefrm.scorers.chat.reading import read_choice
from prefrm.scorers.chat.settings import ChatSettings
from prefrm.scorers.chat.wording import parse_wording

__all__ = ["ChatGenerator"]

WORDS = Dialect(
    name="words",
    title="answers in words",
    wording=parse_wording("{prompt}{image}", name="words"),
    parser=label(),
    labels=(),
    max_tokens=REASONING_TOKENS,
    reasons=True,
)
"""The text of a question, then its image; the answer is not read here."""
OF_NO_USE = ("dialect", "template", "context", "read", "n", "top_logprobs", "min_mass", "min_read", "pairs")
"""Settings of scorers."""
OF_NO_MATTER = ("concurrency", "server")
"""Settings that change no answer, or that an identity states otherwise."""


class ChatGenerator:
    """Asks an OpenAI-compatible endpoint about images; satisfies `prefrm.questions.Generator`.

    The first attempt at a question is greedy, unless the settings have a temperature; each further one has
    another seed, and a temperature. Made by `ChatGenerator.connect`. Threads may share it.

    Args:
        endpoints: replicas of one judge.
        settings: the model, and how it answers.
        policy: of each question.
        credentials: of each request.

    Raises:
        ConfigError: there are settings of a scorer.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        settings: ChatSettings,
        policy: RetryPolicy | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.settings, self._credentials = settings, credentials or Credentials()
        given = settings.query(without=[name for name in settings.__slots__ if name not in OF_NO_USE])
        if given:
            raise ConfigError(f"a judge that answers in words has no use for {given}; leave it out")
        self._askers = Askers(
            lambda: Asker(
                endpoints, policy or RetryPolicy(), self._credentials, settings, WORDS, WORDS.wording
            )
        )

    @classmethod
    def connect(cls, url: str, **options: Any) -> "ChatGenerator":
        """The judge at `url`, such as `chat+http://host:8000/v1?model=NAME`; options of `ChatScorer.connect`.

        Raises:
            ConfigError: as `ChatScorer.connect`, or there are settings of a scorer.
        """
        return cls(*parse_connection(url, **options))

    def identity(self) -> str:
        """The model and its settings, wherever the endpoint is. Raises as `generate`."""
        served = _portal.run(lambda: self._askers.get().served())
        settings = replace(self.settings, model=served.model).query(OF_NO_MATTER)
        return f"chat {settings}, server {served.server.name}"

    def generate(self, questions: Sequence[ImageQuestion], *, attempt: int = 0) -> list[Generated]:
        """As in the protocol; an image that cannot be decoded and a refused question have a reason.

        Raises:
            ScoringError: as `prefrm.client.RemoteScorer.score`.
        """
        answers = _portal.run(lambda: self._askers.get().ask_about(questions, attempt))
        return [self._generated(answer) for answer in answers]

    def close(self) -> None:
        """Release the connections; asking again opens new ones."""
        self._askers.close()

    def __enter__(self) -> "ChatGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generated(self, answer: Answer | Unfit | MediaError) -> Generated:
        if isinstance(answer, MediaError):
            return Generated(reason=str(answer))
        if isinstance(answer, Unfit):
            return Generated(reason=f"the endpoint refused the question: {answer}")
        text = read_choice(answer.choices[0])[0]
        return Generated(text=text and self._credentials.quoted(text, len(text)))
