"""A scorer as a reward function of TRL's `GRPOTrainer`, right however its groups lie over processes.

A candidate without a reward gets None, which TRL leaves out of the group's mean and standard deviation and
gives no advantage. That holds for a single reward function: of several, TRL adds up those that are there,
so a None counts as 0 in the sum. `CombinedReward` adds them up without that.

Knows nothing of models: a scorer is the local engine, a remote client or a fake.
"""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar, Unpack

from PIL import Image

from prefrm.errors import ConfigError, DataError
from prefrm.grpo.conversations import completion_text, last_user_text, prompt_images
from prefrm.grpo.groups import GroupRule, RewardOptions, Rewards
from prefrm.grpo.layout import Candidate, Layout, pack, unpack
from prefrm.grpo.ranks import Ranks, attempt
from prefrm.grpo.scorer import AsyncScorer
from prefrm.pixels import encode_image
from prefrm.winmatrix import Group, Scorer, WinMatrix, matrix_metrics, score_all

__all__ = ["AsyncPreferenceReward", "PreferenceReward"]

LogMetric = Callable[[str, float], None]
S = TypeVar("S")

# It brought `is_async_callable`; before, TRL took an object whose call is asynchronous for a synchronous one.
ASYNC_SINCE = (1, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One call: where everything lies, and the groups that this process scores."""

    layout: Layout
    groups: list[list[Candidate]]
    log_metric: LogMetric | None
    step: int | None
    evaluation: bool


class _GroupReward(Generic[S]):
    """What the two reward functions share: everything but the call of the scorer."""

    def __init__(
        self,
        scorer: S,
        to_image: Callable[..., Any] | None = None,
        *,
        to_text: Callable[..., str | None] | None = None,
        num_generations: int | None = None,
        to_prompt: Callable[..., str] = last_user_text,
        to_context: Callable[..., Sequence[Any]] | None = None,
        name: str = "preference",
        **options: Unpack[RewardOptions],
    ) -> None:
        if inspect.iscoroutinefunction(type(self).__call__):
            _require_async_rewards()
        rule = GroupRule.of(alone="set num_generations_eval", name=name, **options)
        if num_generations is not None and num_generations < 2:
            raise ConfigError(
                f"a group needs at least 2 candidates; received num_generations={num_generations}"
            )
        if to_image is not None and to_text is not None:
            raise ConfigError("candidates are images or texts: pass to_image or to_text, not both")
        self.__name__ = name
        self._scorer = scorer
        # Of candidates that are drawn, an image column may be anything; of texts, it is what they are about.
        self._is_text = to_image is None
        self._to_context = to_context or (prompt_images if self._is_text else _no_context)
        self._to_content = to_image or to_text or completion_text
        self._num_generations = num_generations
        self._rule = rule
        self._to_prompt = to_prompt
        self._ranks = Ranks()

    def _open(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        log_metric: LogMetric | None,
        trainer_state: Any,
    ) -> _Turn:
        """Bring each group together on one process."""
        local: list[Candidate] = []
        lone: list[list[Candidate]] = []

        def counted() -> bytes:
            size = self._group_size(log_metric)
            rows = [{name: values[n] for name, values in columns.items()} for n in range(len(prompts))]
            local.extend(self._candidates(prompts, completions, rows))
            if size == 1:
                lone.extend(self._rule.completed([one], row) for one, row in zip(local, rows, strict=True))
            return json.dumps([len(local), size]).encode()

        counts, sizes = zip(*map(json.loads, self._ranks.share(attempt(counted))), strict=True)
        layout = Layout(counts=counts, size=sizes[0], rank=self._ranks.join())
        heads = [unpack(head) for head in self._ranks.share(pack(local[: layout.head]))]
        # The steps that are done; the metrics of training have the number of the one that is under way.
        done, evaluation = getattr(trainer_state, "global_step", None), not _trains(log_metric)
        return _Turn(
            layout=layout,
            groups=lone or layout.collect(local, heads),
            log_metric=log_metric,
            step=done if done is None or evaluation else done + 1,
            evaluation=evaluation,
        )

    def _close(self, turn: _Turn, rewards: bytes | Exception) -> Rewards:
        """Bring each candidate's reward back to the process that holds it."""
        shared = self._ranks.share(rewards)
        return turn.layout.own([reward for part in shared for reward in json.loads(part)])

    def _group_size(self, log_metric: LogMetric | None) -> int:
        # TRL tells a reward function neither the group size nor whether it evaluates; the trainer that owns
        # `log_metric` knows both, and asks `model.training` as it does here.
        trainer: Any = getattr(log_metric, "__self__", None)
        if not hasattr(trainer, "num_generations_eval"):
            if self._num_generations is None:
                raise ConfigError("the trainer does not say how large its groups are; pass num_generations")
            return self._num_generations
        training = _trains(log_metric)
        size = int(trainer.num_generations if training else trainer.num_generations_eval)
        if self._num_generations not in (None, size):
            raise ConfigError(
                f"num_generations is {self._num_generations}, but the trainer's groups have {size} "
                f"{'in training' if training else 'in evaluation'}; leave it out and the trainer is asked"
            )
        return size

    def _candidates(
        self, prompts: Sequence[Any], completions: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> list[Candidate]:
        candidates = []
        shown: list[tuple[Any, bytes]] = []
        for prompt, completion, row in zip(prompts, completions, rows, strict=True):
            text = self._to_prompt(prompt, **row)
            if not isinstance(text, str):
                raise ConfigError(f"to_prompt must return a string; it returned {type(text).__name__}")
            # The completions of a prompt follow each other, and share its images.
            shown = [(image, _encoded(image, shown)) for image in self._to_context(prompt, **row)]
            context = [data for _, data in shown]
            content = self._content(completion, row)
            candidates.append(self._rule.candidate(text, content, context, is_text=self._is_text))
        return candidates

    def _content(self, completion: Any, row: Mapping[str, Any]) -> Any:
        try:
            return self._to_content(completion, **row)
        except DataError:
            return None

    def _scorable(self, turn: _Turn) -> list[Group]:
        """The groups to score: those with two readable candidates at least."""
        try:
            return self._rule.to_score(turn.groups)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; num_generations must be the trainer's own, and to_prompt must give one text for "
                "all completions of a prompt"
            ) from error

    def _settle(self, turn: _Turn, groups: Sequence[Group], matrices: Sequence[WinMatrix]) -> bytes:
        """The rewards of all candidates of the groups scored here, in order, as JSON."""
        rewards = self._rule.settle(
            turn.groups,
            groups,
            matrices,
            each=lambda matrix: self._log(matrix, turn.log_metric),
            step=turn.step,
            evaluation=turn.evaluation,
        )
        return json.dumps([reward for group in rewards for reward in group]).encode()

    def _log(self, matrix: WinMatrix, log_metric: LogMetric | None) -> None:
        # Called once for each group, on the one process that scored it: TRL's mean over calls and processes
        # is then the mean over groups.
        if log_metric is None or matrix.size < 2:
            return
        for name, value in matrix_metrics(matrix).items():
            log_metric(f"{self.__name__}/{name}", value)


class PreferenceReward(_GroupReward[Scorer]):
    """A reward function for `GRPOTrainer`: each completion's standing among those of its own group.

    Every process of the run calls it with its own completions; groups that are split over processes are
    brought together, each is scored once, and a failure on one process is raised on all. Repeated prompts
    are told apart by their place, as the trainer does.

    Args:
        scorer: what judges the groups.
        to_image: `to_image(completion, **columns)` gives the image that a completion stands for, in a form
            that `prefrm.pixels.encode_image` takes, or an encoded video; None, or a `DataError` that it
            raises, if there is none. `completion` is what the trainer passes: a string, or messages if the
            prompts are conversations. `columns` are the dataset's other columns of that row. Without it,
            candidates are texts.
        to_text: without `to_image`, `to_text(completion, **columns)` gives the text to be judged; by default
            the completion's own. None, an empty text or a `DataError` is a missing candidate.
        num_generations: the group size, K. Leave it out under `GRPOTrainer`, which is asked, in evaluation
            too; TRL's experimental `AsyncGRPOTrainer` and others do not say, so it must be given there.
        to_prompt: `to_prompt(prompt, **columns)` gives the text that the candidates are judged by.
        to_context: `to_context(prompt, **columns)` gives images that belong to the prompt. By default, with
            `to_image` there are none; without it they are those of a vision-language prompt: the column
            `images` or `image`, or the images in its messages.
        name: names the reward and its metrics in the logs: `name/win_rate_std` (the spread of a group's win
            rates), `name/invalid_pairs` (the share of a group's pairs that were neither judged nor inferred),
            `name/inferred_pairs` and `name/order_gap`, each the mean over groups.
        options: `RewardOptions`. A candidate that is missing, or with `on_missing="drop"` cannot be encoded,
            gets None, and the others are compared without it. Evaluation with `num_generations_eval=1` has
            groups of one. `reference` is called with the prompt and the row's columns.

    Raises:
        ConfigError: a setting is wrong, the completions are not whole groups of one prompt each, or what
            `to_image` gives is not an image, or what `to_text` gives is not a text.
        MediaError: an image cannot be encoded and `on_missing` is "raise".
        ScoringError: the scorer could not answer, here or on another process.
        IncompleteMatrixError: a pair was neither judged nor inferred and `on_missing` is "raise".
    """

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: object = None,
        trainer_state: object = None,
        log_extra: object = None,
        log_metric: LogMetric | None = None,
        **columns: Sequence[Any],
    ) -> Rewards:
        """One reward for each completion; None where its candidate is missing or has no judged opponent."""
        turn = self._open(prompts, completions, columns, log_metric, trainer_state)

        def scored() -> bytes:
            groups = self._scorable(turn)
            return self._settle(turn, groups, score_all(self._scorer, groups))

        return self._close(turn, attempt(scored))


class AsyncPreferenceReward(_GroupReward[AsyncScorer]):
    """`PreferenceReward` over an asynchronous scorer; TRL awaits it together with its other async rewards.

    Raises:
        ConfigError: as `PreferenceReward`, or the installed TRL, older than 1.14, would not await it.
    """

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: object = None,
        trainer_state: object = None,
        log_extra: object = None,
        log_metric: LogMetric | None = None,
        **columns: Sequence[Any],
    ) -> Rewards:
        """One reward for each completion; None where its candidate is missing or has no judged opponent."""
        # Before the first await, where all processes still agree on the order of their async rewards.
        self._ranks.join()
        async with self._ranks.turn():
            # On threads: a process that waits for the others must not hold up the loop they may wait for.
            turn = await asyncio.to_thread(
                self._open, prompts, completions, columns, log_metric, trainer_state
            )
            rewards: bytes | Exception
            try:
                groups = self._scorable(turn)
                rewards = self._settle(turn, groups, await self._scorer.score(groups) if groups else [])
            except Exception as error:
                rewards = error
            return await asyncio.to_thread(self._close, turn, rewards)


def _trains(log_metric: LogMetric | None) -> bool:
    """Whether the trainer that owns `log_metric` trains or evaluates; True of one that does not say."""
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return bool(getattr(model, "training", True))


def _encoded(image: Any, known: Sequence[tuple[Any, bytes]]) -> bytes:
    """The image, encoded unless it is among the known ones."""
    return next((data for other, data in known if _same_image(image, other)), None) or encode_image(image)


def _same_image(one: Any, other: Any) -> bool:
    """Whether both are one image; `datasets` decodes that of a row again for each of its completions."""
    try:
        return one is other or (isinstance(one, Image.Image) and bool(one == other))
    except OSError:
        # One of them cannot be read, which encoding it reports.
        return False


def _no_context(prompt: Any, **columns: Any) -> Sequence[Any]:
    return ()


def _require_async_rewards() -> None:
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        return
    if tuple(int(part) for part in found.split(".")[:2]) < ASYNC_SINCE:
        raise ConfigError(
            f"AsyncPreferenceReward needs trl {'.'.join(map(str, ASYNC_SINCE))} or newer, which awaits it; "
            f"found {found}: install a newer one, or use PreferenceReward"
        )
