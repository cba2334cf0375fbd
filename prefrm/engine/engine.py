"""The local scorer: a judge, and groups in, win matrices out.

A judge that looks at two candidates reads both orders of every pair; one that looks at one reads each once.
Each distinct image or video goes through the vision tower once, and what is read of a candidate serves all
its pairs, and all criteria where the template names these after it. Groups may share passes, and yet on a
CPU, and on an accelerator with `deterministic`, what else is in a call changes no bit of a group's matrix.
"""

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Unpack
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from prefrm.bundle import load_bundle
from prefrm.chunks import runs_within
from prefrm.differentiable import DifferentiableScorer
from prefrm.engine.cache import DEFAULT_CACHE_BYTES, EncodedContent, FeatureCache
from prefrm.engine.comparer import Comparer, Outcome, Scored, SharedBlocks
from prefrm.engine.compilation import PassGraphs, compile_layers, cuda_recorder
from prefrm.engine.cost import PIXELS_PER_TOKEN, CostEstimate
from prefrm.engine.encoder import Encoder, JudgeTower, PreparedContent
from prefrm.engine.gradient import LockedGradient
from prefrm.engine.options import JudgeOptions
from prefrm.engine.pass_sizes import PassSizes, is_out_of_memory
from prefrm.engine.passes import Passes
from prefrm.engine.plan import GroupPlan, Key, Pair, plan_group
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import ConfigError, OutOfMemoryError, RecordError
from prefrm.judge import Content, DifferentiableJudge, ImageInput, Judge
from prefrm.media import DEFAULT_LIMITS, ImageLimits
from prefrm.protocol import judge_identity
from prefrm.rewards.budget import choose_and_fit
from prefrm.winmatrix import CalibrationMap, Group, Inputs, WinMatrix, check_groups, score_readable

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

NO_NUMBERS = (("tokens", None), ("patches", None), ("pairs", "all"))
# A pass replaces modules of the model's last layer, which two threads cannot do at once, with one engine or
# two. The thread that has it may score other groups between two passes of its own.
_locks: "WeakKeyDictionary[Any, RLock]" = WeakKeyDictionary()

TOGETHER = 64
"""Contents whose blocks are kept at once where groups share passes: as many as one large group has."""
SHARED_PASSES = 4
"""Passes that a call is worth where groups share them: its last one is not full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What there is to do for a group.

    Attributes:
        plan: of the group.
        scored: None if the prompt cannot be read, or there are no pairs.
        pairs: of the candidates that can be read, in both orders.
        reasons: why other candidates cannot be read.
    """

    plan: GroupPlan
    scored: Scored | None
    pairs: list[Pair]
    reasons: dict[Key, str]


class Engine:
    """Scores groups with a judge on this machine; satisfies `prefrm.winmatrix.Scorer`.

    Args:
        judge: in evaluation mode, or it is put there.
        calibration: of the log-odds that the judge gives; None leaves them as they are.
        tokens: how many run through the language model at once; one row may have more. None is a number for
            the device (`prefrm.engine.pass_sizes`).
        cache_bytes: size of the LRU cache of image features, in bytes.
        pairs: "all", or how many unordered pairs of a group are judged; which these are is decided in rounds,
            and the others are inferred (`prefrm.rewards.budget`). At least as many as connect all candidates
            are. Heads that look at one candidate judge all.
        patches: how many patches run through the vision tower at once, of images of any shapes; one image may
            have more. None is a number for the device.
        share: whether groups share passes of the language model, which then have fixed shapes; None is not on
            a CPU, which few rows keep busy, and on every other device. The bits of a matrix depend on it.
        compile: whether the judge's layers are compiled by `torch.compile`, in place, and small passes that
            groups share are recorded as CUDA graphs: worth its minutes where many groups are scored.
        deterministic: whether passes that groups share are filled up to `tokens` and `patches`, so that what
            else is in one changes no bit of a matrix. On a CPU they always are. Without it a GPU computes
            less padding, and numbers differ by rounding with what else is in a call.
        limits: what an encoded image or video may be.
        digest: of the bundle that the judge comes from; "" if there is none.

    The judge must not change while an engine has it: image features are kept.

    Attributes:
        pass_sizes: how many tokens and patches run at once.
        on_pass: called before every pass, if not None. It may call `score` for other groups, which changes no
            bit of the groups that wait for it: so a server need not let small groups wait for a large one.
        pixels_per_token: how many pixels are decoded in the time of a token, by `cost`.
        prepared_bytes: what the largest image takes that `prepare` returns.
        call_cost: what groups of one call need to cost; more of them at once are not quicker.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        calibration: CalibrationMap | None = None,
        tokens: int | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        pairs: Literal["all"] | int = "all",
        patches: int | None = None,
        share: bool | None = None,
        compile: bool = False,
        deterministic: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        digest: str = "",
    ) -> None:
        numbers = {"tokens": tokens, "patches": patches, "pairs": pairs}
        for name, value in numbers.items():
            if (type(value) is not int or value < 1) and (name, value) not in NO_NUMBERS:
                raise ConfigError(f"{name} must be at least 1; received {value!r}")
        self.judge = judge.eval()
        self.calibration = calibration
        self.pairs = pairs
        self.digest = digest
        self.cache = FeatureCache(cache_bytes)
        self.pass_sizes = PassSizes.of(judge, tokens, patches)
        self.on_pass: Callable[[], None] | None = None
        device = judge.device.type
        fixed = deterministic or device == "cpu"
        self._passes = Passes(
            judge,
            self.pass_sizes.tokens,
            share=device != "cpu" if share is None else share,
            full=fixed,
            graphs=PassGraphs(cuda_recorder(judge.device)) if compile and device == "cuda" else None,
            before_each=self._before_pass,
        )
        tower = JudgeTower(judge, limits)
        self._encode = Encoder(tower, self.cache, self.pass_sizes.patches, fixed, self._before_pass)
        self._cost = CostEstimate(judge, None if pairs == "all" else pairs, limits)
        self.pixels_per_token = PIXELS_PER_TOKEN
        self.prepared_bytes = self._cost.prepared_bytes
        self.call_cost = self.pass_sizes.tokens * (SHARED_PASSES if self._passes.share else 1)
        self._lock = _locks.setdefault(judge.model, RLock())
        if compile:
            compile_layers(judge)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        calibrated: bool = True,
        **options: Unpack[JudgeOptions],
    ) -> "Engine":
        """The engine of a bundle, with the calibration that its manifest records, if any.

        Args:
            path: a folder, or `hf://org/name[@revision]`.
            device, dtype: as in `Judge.from_base`.
            calibrated: False leaves the log-odds as the judge gives them.
            options: of the class.

        Raises:
            BundleError, ConfigError: as `prefrm.bundle.load_bundle`.
        """
        bundle = load_bundle(path, device, dtype)
        recorded = bundle.manifest.calibration if calibrated else None
        calibration = None if recorded is None else recorded.map
        return cls(bundle.judge, calibration=calibration, digest=bundle.manifest.digest, **options)

    def identity(self) -> str:
        """The digest of the judge's bundle, and the budget of pairs if there is one."""
        return judge_identity(self.digest, None if self.pairs == "all" else self.pairs)

    def inputs(self) -> Inputs:
        """Those of the judge's kind, and a context and a criterion if its template has places for these."""
        return self.judge.processor.inputs

    def cost(self, group: Group) -> int:
        """Tokens that a group sends through the judge, at least 1: an estimate, from the headers of files.

        The time of decoding counts in the same unit.
        """
        return self._cost(group)

    def prepare(self, data: bytes) -> PreparedContent:
        """Decode an image or a video and resize it to the pixel budget, ahead of `score`, in any thread.

        `score` does not decode it while the result is kept, which changes no bit of a matrix. What is in the
        cache is not decoded. Unreadable content raises nothing here; `score` gives the reason.
        """
        return self._encode.prepare(data)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order.

        A candidate that is missing, unreadable or too large costs its own pairs (two candidates of a joint
        verdict that are too large together cost theirs), and a prompt, a context image or a criterion that
        cannot be read costs those of its group, as does what the judge does not read (`inputs`).
        `WinMatrix.errors` says why, for each candidate that is in no pair that could be read.

        Raises:
            OutOfMemoryError: the device ran out of memory; fewer groups may fit.
            RecordError: the argument is not a list of groups.
        """
        found = check_groups(groups)
        return score_readable(found, list(map(self.inputs().refusal, found)), self._score_readable)

    def _score_readable(self, groups: Sequence[Group]) -> list[WinMatrix]:
        plans = [plan_group(group, self.judge.spec.kind) for group in groups]
        contents: RefCounted[EncodedContent] = RefCounted(key for plan in plans for key, _ in plan.contents)
        shared: SharedBlocks = RefCounted(key for plan in plans for key in plan.shared)
        order = _neighbours(plans)
        matrices: dict[int, WinMatrix] = {}
        try:
            with self._lock, torch.inference_mode():
                sized = ((n, len(plans[n].contents)) for n in order)
                for run in runs_within(sized, TOGETHER if self._passes.share else 0):
                    scored = self._score([plans[n] for n in run], contents, shared)
                    matrices |= zip(run, scored, strict=True)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the device ran out of memory with tokens={self.pass_sizes.tokens} and "
                f"patches={self.pass_sizes.patches}; lower them, or train the judge with a lower max_pixels"
            ) from error
        return [matrices[n] for n in range(len(plans))]

    def differentiable(self, *, batch: int = 4) -> DifferentiableScorer:
        """The gradient of this judge's utilities in pixels, with its calibration; it shares the weights.

        Either waits while the other works. `batch` and the errors of a call are as in
        `prefrm.judge.DifferentiableJudge`, and `OutOfMemoryError` as in `score`.
        """
        judge = DifferentiableJudge(self.judge, calibration=self.calibration, batch=batch)
        return LockedGradient(judge, self._lock, batch)

    def _before_pass(self) -> None:
        if self.on_pass is not None:
            self.on_pass()

    def _score(
        self, plans: Sequence[GroupPlan], contents: RefCounted[EncodedContent], shared: SharedBlocks
    ) -> list[WinMatrix]:
        """Of groups that are scored together."""
        tasks = self._tasks(plans, contents)
        asked = {task.scored: task.pairs for task in tasks if task.scored is not None}
        for task in tasks:
            if task.scored is None:
                shared.skip(*task.plan.shared)
        comparer = Comparer(self.judge, self._passes, list(asked), shared)
        whole = {one: pairs for one, pairs in asked.items() if self._can_afford(len(one.candidates))}
        outcomes = dict(zip(whole, comparer.compare(list(whole.items())), strict=True))
        return [self._finished(task, comparer, outcomes) for task in tasks]

    def _tasks(self, plans: Sequence[GroupPlan], contents: RefCounted[EncodedContent]) -> list[_Task]:
        """What there is to do, with the contents encoded."""
        found, unread = self._encode({key: data for plan in plans for key, data in plan.contents}, contents)
        tasks = []
        for plan in plans:
            readable = {key: found[key] for key in plan.candidates if key in found}
            reasons = {key: unread[key] for key in plan.candidates if key in unread}
            for key in (key for key, _ in plan.contents if key in found):
                contents.use(key, found[key])
            pairs = plan.pairs(list(readable))
            scored = None
            try:
                for key in (key for key, _ in plan.context if key in unread):
                    raise RecordError(f"a context image cannot be read: {unread[key]}")
                asked = self._scored(plan, readable, tuple(found[key] for key, _ in plan.context))
                scored = asked if pairs else None
            except RecordError as error:
                reasons |= dict.fromkeys(readable, str(error))
            tasks.append(_Task(plan=plan, scored=scored, pairs=pairs, reasons=reasons))
        return tasks

    def _scored(
        self, plan: GroupPlan, readable: Mapping[Key, EncodedContent], context: tuple[EncodedContent, ...]
    ) -> Scored:
        """Raises `RecordError` if the prompt or the criterion cannot be read."""
        shown: dict[Hashable, Content | ImageInput] = {key: one.content for key, one in readable.items()}
        images = [image for one in context for image in one.features]
        tree = self.judge.processor.tree(plan.prompt, shown, images, plan.criterion)
        return Scored(plan=plan, candidates=readable, context=context, tree=tree)

    def _finished(
        self, task: _Task, comparer: Comparer, found: Mapping[Scored, dict[Pair, Outcome]]
    ) -> WinMatrix:
        """The matrix of a task, by the outcomes in `found` or, with a budget of pairs, in rounds."""
        outcomes: dict[Pair, Outcome] = {}
        implied: dict[Pair, float] = {}
        reasons = task.reasons
        refused: Mapping[Pair, str] = {}
        if task.scored is not None:
            if task.scored in found:
                outcomes = found[task.scored]
            else:
                outcomes, implied = self._within_budget(comparer, task.scored)
            refused = task.scored.tree.refused
            reasons = reasons | _left_alone(refused, outcomes)
        places = task.plan.places
        errors = ["the candidate is missing" if key is None else reasons.get(key, "") for key in places]
        matrix = self._matrix(task.plan, outcomes, errors, refused)
        if not implied:
            return matrix
        return matrix.with_inferred(task.plan.spread(implied), calibration=self.calibration)

    def _can_afford(self, size: int) -> bool:
        """Whether the budget covers all pairs of `size` candidates."""
        if self.pairs == "all" or not self.judge.spec.is_pairwise:
            return True
        return self.pairs >= size * (size - 1) // 2

    def _within_budget(
        self, comparer: Comparer, scored: Scored
    ) -> tuple[dict[Pair, Outcome], dict[Pair, float]]:
        """Outcomes of the pairs that the budget pays for, and the log-odds that they imply of the others."""
        keys = list(scored.candidates)
        outcomes: dict[Pair, Outcome] = {}

        def judge(pairs: Sequence[tuple[int, int]]) -> list[float]:
            both = [(keys[i], keys[j]) for i, j in pairs]
            orders = [order for a, b in both for order in ((a, b), (b, a))]
            outcomes.update(comparer.compare([(scored, orders)])[0])
            return [self._merged(outcomes, pair) for pair in both]

        # Whatever the budget, candidates that nothing connects cannot be compared.
        chosen = choose_and_fit(len(keys), max(int(self.pairs), len(keys) - 1), judge)
        implied = {
            (a, b): float(chosen.inferred[i, j]) for i, a in enumerate(keys) for j, b in enumerate(keys)
        }
        return outcomes, implied

    def _merged(self, outcomes: Mapping[Pair, Outcome], pair: Pair) -> float:
        """Log-odds of both presentation orders, before calibration; NaN if one could not be read."""
        orders = (outcomes.get(order) for order in (pair, pair[::-1]))
        there, back = (math.nan if outcome is None else outcome.log_odds for outcome in orders)
        return (there - back) / 2

    def _matrix(
        self,
        plan: GroupPlan,
        outcomes: Mapping[Pair, Outcome],
        errors: list[str],
        refused: Mapping[Pair, str],
    ) -> WinMatrix:
        log_odds = plan.spread({pair: outcome.log_odds for pair, outcome in outcomes.items()})
        ties = {pair: outcome.tie for pair, outcome in outcomes.items() if outcome.tie is not None}
        masses = {pair: x.label_mass for pair, x in outcomes.items() if x.label_mass is not None}
        mass = plan.spread(masses) if masses else None
        return WinMatrix.from_order_logits(
            log_odds,
            errors=errors,
            tie=_both_orders(plan.spread(ties)) if ties else None,
            order_free=not self.judge.spec.is_pairwise,
            calibration=self.calibration,
            pair_errors=plan.unordered(refused, errors) if refused else None,
            label_mass=None if mass is None else np.minimum(mass, mass.T),
        )


def _both_orders(tie: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P(tie) of both presentation orders together; a candidate ties with itself."""
    merged = (tie + tie.T) / 2
    np.fill_diagonal(merged, 1.0)
    return merged


def _neighbours(plans: Sequence[GroupPlan]) -> list[int]:
    """The places of groups, those with the same opening beside each other, and of these those with the same
    candidates: so blocks that they share are kept for a short time."""
    first: dict[Hashable, int] = {}
    return sorted(range(len(plans)), key=lambda n: [first.setdefault(key, n) for key in plans[n].shared])


def _left_alone(refused: Mapping[Pair, str], outcomes: Mapping[Pair, Outcome]) -> dict[Key, str]:
    """Why each candidate that is in no pair that could be read is in none."""
    if outcomes and refused:
        logger.warning("some pairs of a group are not judged: %s", next(iter(refused.values())))
    judged = {pair for pair, outcome in outcomes.items() if not math.isnan(outcome.log_odds)}
    paired = {key for pair in judged if pair[::-1] in judged for key in pair}
    return {key: reason for pair, reason in refused.items() for key in pair if key not in paired}
