"""What Triton's Python backend runs: its requests onto `prefrm.protocol` and the engine.

Triton checks names, datatypes, shapes and the batch size itself, gathers requests of any group sizes, and
hands them over together; they are scored in one call. Triton's own module can be imported nowhere else.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefrm.engine import open_engine
from prefrm.errors import PrefrmError, ProtocolError, ScoringError
from prefrm.protocol import INPUTS, Tensors, decode_groups, encode_matrices
from prefrm.winmatrix import Group, Scorer, WinMatrix, inputs_of, score_all, score_readable
from serving.errors import ServingError
from serving.limits import Limits
from serving.queueing.guard import GuardedScorer

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
        self._scorer = GuardedScorer(open_engine(folder, device=device), self._limits)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, in order; a request that cannot be answered fails alone."""
        answers = answer(self._scorer, [self._tensors(request) for request in requests], self._limits)
        return [self._response(*pair) for pair in zip(requests, answers, strict=True)]

    def _tensors(self, request: Any) -> Tensors:
        find = self._triton.get_input_tensor_by_name
        found = {spec.name: find(request, spec.name) for spec in INPUTS}
        return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}

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

    A batch that is too large for the device's memory is halved, and a group beyond the limits or the memory,
    or that the judge does not read, is answered as not judged, as by prefrm's own server.
    """
    read = [_groups(tensors, limits) for tensors in requests]
    groups = [group for found in read if not isinstance(found, PrefrmError) for group in found]
    try:
        matrices = iter(_score(scorer, groups, limits))
    # Whatever a scorer raises concerns this batch; the next one may be well.
    except Exception as error:
        logger.exception("scoring a batch of %d groups failed", len(groups))
        failed = ScoringError(f"scoring failed: {type(error).__name__}: {error}")
        return [found if isinstance(found, PrefrmError) else failed for found in read]
    return [
        found if isinstance(found, PrefrmError) else encode_matrices([next(matrices) for _ in found])
        for found in read
    ]


def _score(scorer: Scorer, groups: Sequence[Group], limits: Limits) -> list[WinMatrix]:
    inputs = inputs_of(scorer)
    refusals = [limits.refusal(group) or inputs.refusal(group) for group in groups]
    return score_readable(groups, refusals, partial(score_all, scorer))


def _groups(tensors: Tensors, limits: Limits) -> list[Group] | PrefrmError:
    try:
        groups = decode_groups(tensors)
        limits.check_sizes([group.size for group in groups])
    except (ProtocolError, ServingError) as error:
        return ProtocolError(str(error))
    return groups
