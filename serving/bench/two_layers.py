"""A model so small that a server of it is all that is timed: two layers over bytes of the encoded images.

It runs in prefrm's server as a scorer, and in MLServer as a runtime.

Shapes: B groups, K candidates of each, N images, F features.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from prefrm.winmatrix import Group, WinMatrix

__all__ = ["TwoLayers", "TwoLayersScorer"]

FEATURES = 64
# Bytes at the end of an encoded image that all images share: a PNG's last chunk.
TAIL = 16


class TwoLayers:
    """A utility of each image. In double precision: who shares a batch must not show in float32."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self._layers = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, FEATURES), torch.nn.ReLU(), torch.nn.Linear(FEATURES, 1)
        ).double()

    @torch.inference_mode()
    def utilities(self, images: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """Of N encoded images, [N]; each has at least 80 bytes."""
        rows = b"".join(image[-FEATURES - TAIL : -TAIL] for image in images)
        x_NF = np.frombuffer(rows, np.uint8).reshape(-1, FEATURES) / 255
        values: npt.NDArray[np.float64] = self._layers(torch.from_numpy(x_NF)).numpy()[:, 0]
        return values


class TwoLayersScorer:
    """The model as `prefrm.winmatrix.Scorer`; groups are of one size, and every image must be there."""

    def __init__(self, model: TwoLayers) -> None:
        self._model = model

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, all from one pass."""
        groups = list(groups)
        u_N = self._model.utilities([image for group in groups for image in group.encoded if image])
        u_BK = u_N.reshape(len(groups), -1)
        return WinMatrix.all_from_order_logits(u_BK[:, :, None] - u_BK[:, None, :])
