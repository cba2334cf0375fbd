"""The two-layer model in MLServer, with the tensors of prefrm's protocol. Runs in MLServer's environment.

Shapes: B groups, K candidates of each.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from serving.bench.two_layers import TwoLayers

__all__ = ["TwoLayersRuntime"]


class TwoLayersRuntime(MLModel):  # type: ignore[misc]
    """Answers a whole batch with a few operations of numpy, and checks nothing."""

    async def load(self) -> bool:
        torch.set_num_threads(1)
        self._model = TwoLayers()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = next(tensor for tensor in payload.inputs if tensor.name == "images")
        u_BK = self._model.utilities(images.data.root).reshape(images.shape)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[_output(name, array) for name, array in _answer(u_BK).items()],
        )


def _answer(u_BK: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    size = u_BK.shape[1]
    p_BKK = (1 / (1 + np.exp(u_BK[:, None, :] - u_BK[:, :, None]))).astype(np.float32)
    unknown = np.full_like(p_BKK, np.nan)
    return {
        "win_matrix": p_BKK,
        "win_rate": (p_BKK.sum(axis=2) - np.float32(0.5)) / (size - 1),
        "order_gap": np.zeros_like(p_BKK),
        "tie": unknown,
        "valid": np.ones(p_BKK.shape, bool),
        "error": np.full(u_BK.shape, b"", object),
    }


def _output(name: str, array: npt.NDArray[Any]) -> ResponseOutput:
    datatype = {"float32": "FP32", "bool": "BOOL", "object": "BYTES"}[array.dtype.name]
    return ResponseOutput(name=name, shape=list(array.shape), datatype=datatype, data=array.ravel().tolist())
