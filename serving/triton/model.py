"""What Triton's Python backend runs: its requests onto `prefrm.protocol` and the engine.

Triton checks names, datatypes, shapes and the batch size itself, gathers requests of any group sizes, and
hands them over together; they are scored in one call. Triton's own module can be imported nowhere else.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrm.engine import Engine
from prefrm.errors import OutOfMemoryError, PrefrmError, ProtocolError, ScoringError
from prefrm.protocol import INPUTS, Tensors, decode_groups, encode_matrices
from prefrm.winmatrix import Group, Scorer, WinMatrix
from serving.errors import InvalidRequestError
from serving.limits import Limits
from serving.queueing.guard import GuardedScorer
from serving.queueing.worker import Outcome, score_each

__all__ = ["BUNDLE_FOLDER", "TritonPythonModel", "answer"]

BUNDLE_FOLDER = "bundle"

logger = logging.getLogger(__name__)


class TritonPythonModel:
    """One instance of the model, as Triton makes it. Its methods are the Python backend's."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle that lies beside this model, on the device of this instance."""
        import triton_python_backend_utils

        self._triton: Any = triton_python_backend_utils
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE_FOLDER
        on_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu"
        self._limits = Limits(request_groups=json.loads(args["model_config"])["max_batch_size"])
        self._scorer = GuardedScorer(Engine.from_bundle(folder, device=device), self._limits.image)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, in order; a request that cannot be answered fails alone."""
        answers = answer(self._scorer, [self._tensors(request) for request in requests], self._limits)
        return [self._response(*pair) for pair in zip(requests, answers, strict=True)]

    def _tensors(self, request: Any) -> Tensors:
        find = self._triton.get_input_tensor_by_name
        return {spec.name: find(request, spec.name).as_numpy() for spec in INPUTS}

    def _response(self, request: Any, answer: Tensors | PrefrmError) -> Any:
        triton = self._triton
        if isinstance(answer, PrefrmError):
            refused = isinstance(answer, ProtocolError)
            code = triton.TritonError.INVALID_ARG if refused else triton.TritonError.INTERNAL
            return triton.InferenceResponse(error=triton.TritonError(str(answer), code))
        wanted = request.requested_output_names()
        return triton.InferenceResponse(
            [triton.Tensor(name, array) for name, array in answer.items() if name in wanted]
        )


def answer(scorer: Scorer, requests: Sequence[Tensors], limits: Limits) -> list[Tensors | PrefrmError]:
    """The output tensors of each request, or why it has none; all groups are scored together.

    A batch that is too large for the device's memory is halved, as behind prefrm's own server.
    """
    read = [_groups(tensors, limits) for tensors in requests]
    good = [group for groups in read if not isinstance(groups, PrefrmError) for group in groups]
    try:
        outcomes = iter(score_each(scorer, good) if good else [])
    # Whatever a scorer raises concerns this batch; the next one may be well.
    except Exception as error:
        logger.exception("scoring a batch of %d groups failed", len(good))
        failed = ScoringError(f"scoring failed: {type(error).__name__}: {error}")
        return [groups if isinstance(groups, PrefrmError) else failed for groups in read]
    return [
        groups if isinstance(groups, PrefrmError) else _encoded([next(outcomes) for _ in groups])
        for groups in read
    ]


def _encoded(outcomes: Sequence[Outcome]) -> Tensors | PrefrmError:
    matrices = [outcome for outcome in outcomes if isinstance(outcome, WinMatrix)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, OutOfMemoryError)]
    return ScoringError(f"scoring failed: {failed[0]}") if failed else encode_matrices(matrices)


def _groups(tensors: Tensors, limits: Limits) -> list[Group] | PrefrmError:
    try:
        groups = decode_groups(tensors)
        limits.check(groups)
    except (ProtocolError, InvalidRequestError) as error:
        return ProtocolError(str(error))
    return groups
