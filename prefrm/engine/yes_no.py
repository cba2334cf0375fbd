"""A generative judge of one image as a `prefrm.questions.YesNoJudge`.

Shapes: H height, W width of an image.
"""

from collections.abc import Sequence

import numpy as np
import torch

from prefrm import media
from prefrm.engine.dual import DualEngine
from prefrm.engine.engine import Engine
from prefrm.errors import ConfigError, MediaError, OutOfMemoryError, RecordError, ScoringError
from prefrm.judge.heads import AnswerHead
from prefrm.questions import ImageQuestion, Probability

__all__ = ["YesNoEngine"]


class YesNoEngine:
    """P(yes) by a judge whose utility is the log-odds of yes against no (VQAScore, arXiv 2404.01291).

    Args:
        engine: of a bundle that `prefrm import vqascore` has made, or another one with such a template. Its
            calibration is one of comparisons, and best left out.

    Raises:
        ConfigError: its judge does not answer yes or no about one image.
    """

    def __init__(self, engine: Engine | DualEngine) -> None:
        if isinstance(engine, DualEngine) or not isinstance(engine.judge.head, AnswerHead):
            raise ConfigError(
                "this judge does not answer yes or no about one image; use one that `prefrm import vqascore` "
                "has made, or a chat endpoint"
            )
        self._engine, self._judge = engine, engine.differentiable(batch=1)

    def identity(self) -> str:
        """The engine's."""
        return self._engine.identity()

    @torch.no_grad()
    def probabilities(self, questions: Sequence[ImageQuestion]) -> list[Probability]:
        """As in the protocol; an image that cannot be decoded or a text that is too long has a reason.

        Raises:
            OutOfMemoryError: the device has too little memory for one image.
        """
        return [self._probability(one) for one in questions]

    def _probability(self, question: ImageQuestion) -> Probability:
        try:
            image = np.array(media.decode(question.image))
            pixels_1HW3 = torch.from_numpy(image)[None].to(self._engine.judge.device)
            utility = self._judge.utilities(question.text, pixels_1HW3.permute(0, 3, 1, 2).float() / 255)
        except OutOfMemoryError:
            raise
        except (MediaError, RecordError, ScoringError) as error:
            return Probability(value=float("nan"), reason=str(error))
        return Probability(value=float(torch.sigmoid(utility.double())))
