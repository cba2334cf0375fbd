"""From a prompt and images to the tensors that a backbone reads. Runs on the CPU, holds no weights.

An image is prepared once and may then stand in any number of sequences, in either slot.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge.backbones import Family, family_of
from prefrm.judge.batch import GroupInput, JudgeBatch, batch_of
from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Segment, SequenceInput, arrange
from prefrm.judge.tokens import TokenLayout, render
from prefrm.manifest.contents import without_references
from prefrm.manifest.spec import JudgeSpec
from prefrm.media import DEFAULT_LIMITS
from prefrm.prompts import RenderedTemplate, Template

__all__ = ["JudgeProcessor"]

# A prompt of more characters for each token that the model reads is not even tokenized: no text is so sparse.
MOST_CHARACTERS_A_TOKEN = 16


class JudgeProcessor:
    """Prepares images and pairs for one base model and one template.

    Composed of the checkpoint's own image processor (its Pillow variant) and tokenizer; it needs
    neither torchvision nor a video processor.

    Args:
        tokenizer: of `transformers`.
        image_processor: of `transformers`.
        config: the backbone's configuration.
        spec: what the judge is.
        template: the wording.
        rendered: that wording as the base model's chat template renders it; None runs the chat template.
        stride: the positions that a slot of the isolated attention takes; None computes it from the
            pixel budget.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        config: Any,
        spec: JudgeSpec,
        template: Template,
        rendered: RenderedTemplate | None = None,
        stride: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.spec = spec
        self._config = config
        self._family = family_of(config)
        image_token_id: int = config.image_token_id
        self.rendered = rendered or render(
            tokenizer, template, image_token_id, images_in_text=self._family.images_in_text
        )
        self.layout = TokenLayout(tokenizer, template, self.rendered, image_token_id)
        self.max_length = self._family.max_length(config)
        self.positions = partial(self._family.positions, config)
        self.stride = self._longest_slot() if stride is None else stride

    @classmethod
    def load(
        cls,
        folder: Path,
        config: Any,
        spec: JudgeSpec,
        template: Template,
        rendered: RenderedTemplate | None = None,
        stride: int | None = None,
    ) -> "JudgeProcessor":
        """From the tokenizer and image-processor files in `folder`, with the pixel budget of `spec`.

        Raises:
            ConfigError: the files are absent or unusable, the image processor is another model's or enlarges
                images beyond all bounds, or the pixel budget is empty.
        """
        try:
            tokenizer = _tokenizer(folder)
            image_processor = _pillow_image_processor(folder, config)
        # The tokenizers library raises bare exceptions, and malformed JSON gives errors of many kinds.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{folder} holds no usable tokenizer and image processor: {reason}") from error
        family = family_of(config)
        family.pixel_budget(image_processor, spec.min_pixels, spec.max_pixels)
        _check_images(family, image_processor, config)
        return cls(tokenizer, image_processor, config, spec, template, rendered, stride)

    def save(self, folder: Path) -> None:
        """Write the tokenizer and image-processor files, chat template included."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        # A published checkpoint may name code beside it, which prefrm never runs and a bundle may not name.
        for path in folder.glob("*_config.json"):
            settings = without_references(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """Resize into the pixel budget, normalize and cut as the vision tower takes it.

        Raises:
            MediaError: the image cannot be resized into the budget, such as an extreme aspect ratio.
        """
        try:
            pixels, grid = self._family.prepare(self.image_processor, image)
        except ValueError as error:
            raise _unusable(error) from error
        return ImageInput(
            pixels=pixels, grid=grid, ids=self._family.spell(self.tokenizer, self._config, grid)
        )

    def shrink(self, image: Image.Image) -> Image.Image | None:
        """The image in its final size, of which `prepare_image` makes the same, bit for bit.

        None if the family shows an image in several sizes. Raises as `prepare_image`.
        """
        try:
            return self._family.shrink(self.image_processor, image)
        except ValueError as error:
            raise _unusable(error) from error

    def prepare_pair(self, prompt: str, first: ImageInput, second: ImageInput) -> SequenceInput:
        """One comparison by a pairwise head, `first` shown before `second`. Raises as `prepare_group`."""
        return self.prepare_group(prompt, (first, second), ((0, 1),)).sequences[0]

    def prepare_single(self, prompt: str, image: ImageInput) -> SequenceInput:
        """One image, for a head that reads them one at a time.

        Raises:
            RecordError: the prompt is no valid text, or the sequence is longer than the model can read.
        """
        opening, readout = self.frame(prompt)
        return self._checked(
            [Segment(parts=(opening + self.layout.first, image, readout), read=True)], prompt
        )

    def prepare_group(
        self,
        prompt: str,
        images: Sequence[ImageInput],
        pairs: Sequence[tuple[int, int]],
        most: int | None = None,
    ) -> GroupInput:
        """Comparisons of one prompt's images.

        Joint: a sequence for each pair. Isolated: a sequence for as many pairs as `most` allows, in which
        each image stands once in each slot that it is shown in. Other heads: a sequence for each image that
        is compared.

        Args:
            prompt: what the images answer.
            images: the candidates.
            pairs: the places of each comparison's images, the one shown first before the other.
            most: how many tokens a sequence of several isolated pairs may have; None for any number. The
                outcomes are the same.

        Raises:
            RecordError: the prompt is no valid text, or a sequence is longer than the model can read.
        """
        if not self.spec.is_pairwise:
            shown = sorted({n for pair in pairs for n in pair})
            return GroupInput(
                sequences=tuple(self.prepare_single(prompt, images[n]) for n in shown),
                pairs=tuple((shown.index(i), shown.index(j)) for i, j in pairs),
            )
        if self.spec.attention == "isolated":
            runs = [pairs] if most is None else self._runs(prompt, images, pairs, most)
            sequences = tuple(self._isolated(prompt, images, run) for run in runs)
        else:
            sequences = tuple(self._joint(prompt, images[i], images[j]) for i, j in pairs)
        return GroupInput(sequences=sequences, pairs=tuple((n, n) for n in range(len(pairs))))

    def collate(self, sequences: Sequence[SequenceInput], length: int = 0) -> JudgeBatch:
        """One batch of sequences, whose comparisons are their readouts (of a pairwise head), in order.

        Padded to the longest of them, and to `length` at least.
        """
        count = sum(len(sequence.reads) for sequence in sequences)
        return self.collate_groups(
            [GroupInput(sequences=tuple(sequences), pairs=tuple((n, n) for n in range(count)))], length
        )

    def collate_groups(self, groups: Sequence[GroupInput], length: int = 0) -> JudgeBatch:
        """One batch of the groups' comparisons, in order, padded as `collate` does."""
        # Any id but the image placeholder will do: padding is masked and never read.
        return batch_of(groups, pad_id=self.layout.question[-1], length=length)

    def frame(self, prompt: str) -> tuple[list[int], list[int]]:
        """The ids of what stands before "Image 1" and after the last image.

        Raises:
            RecordError: the prompt is no valid text, or far longer than the model can read.
        """
        if len(prompt) > MOST_CHARACTERS_A_TOKEN * self.max_length:
            raise RecordError(
                f"the prompt has {len(prompt)} characters and the model reads {self.max_length} tokens; "
                "shorten the prompt"
            )
        asked = self.layout.prompt(prompt)
        return [*self.layout.instruction, *asked], self.layout.readout(asked)

    def _joint(self, prompt: str, first: ImageInput, second: ImageInput) -> SequenceInput:
        opening, readout = self.frame(prompt)
        parts = (opening + self.layout.first, first, self.layout.second, second, readout)
        return self._checked([Segment(parts=parts, read=True)], prompt)

    def _runs(
        self, prompt: str, images: Sequence[ImageInput], pairs: Sequence[tuple[int, int]], most: int
    ) -> list[list[tuple[int, int]]]:
        """Consecutive pairs whose sequence has at most `most` tokens; a single pair may have more."""
        opening, readout = self.frame(prompt)
        texts = (self.layout.first, self.layout.second)
        runs: list[list[tuple[int, int]]] = []
        placed: set[tuple[int, int]] = set()
        for pair in pairs:
            together = placed | set(enumerate(pair))
            length = sum(len(texts[slot]) + images[n].tokens for slot, n in together)
            if not runs or length + len(opening) + (len(runs[-1]) + 1) * len(readout) > most:
                runs.append([])
                together = set(enumerate(pair))
            runs[-1].append(pair)
            placed = together
        return runs

    def _isolated(
        self, prompt: str, images: Sequence[ImageInput], pairs: Sequence[tuple[int, int]]
    ) -> SequenceInput:
        opening, readout = self.frame(prompt)
        segments = [Segment(parts=(opening,))]
        start = len(opening)
        place: dict[tuple[int, int], int] = {}
        for slot, text in enumerate((self.layout.first, self.layout.second)):
            for n in dict.fromkeys(pair[slot] for pair in pairs):
                self.check_slot(text, images[n])
                place[n, slot] = len(segments)
                at = start + slot * self.stride
                segments.append(Segment(parts=(text, images[n]), start=at, sees=(0,)))
        for i, j in pairs:
            sees = (0, place[i, 0], place[j, 1])
            segments.append(Segment(parts=(readout,), start=start + 2 * self.stride, sees=sees, read=True))
        return self._checked(segments, prompt)

    def check_slot(self, text: list[int], image: ImageInput) -> None:
        """Raise `RecordError` if an image after `text` reaches into the next slot and would be misread."""
        reach = int(self.positions([len(text), image]).max()) + 1
        if reach > self.stride:
            raise RecordError(
                f"an image of {image.tokens} tokens takes {reach} positions and this judge keeps "
                f"{self.stride} for each; crop the image to a less extreme aspect ratio, or train the judge "
                f"with a larger one (max_aspect_ratio is {self.spec.max_aspect_ratio:g})"
            )

    def _checked(self, segments: Sequence[Segment], prompt: str) -> SequenceInput:
        """The sequence, if no position is beyond what the model reads."""
        sequence = arrange(segments, self.positions)
        reach = int(sequence.positions_AL.max()) + 1 if len(segments) > 1 else len(sequence)
        self.check_reach(reach, prompt, sequence.images)
        return sequence

    def check_reach(self, reach: int, prompt: str, images: Sequence[ImageInput]) -> None:
        """Raise `RecordError` if so many tokens or positions are more than the model reads."""
        if reach <= self.max_length:
            return
        sizes = " and ".join(str(image.tokens) for image in images)
        shown = f" and the images {sizes} tokens" if images else ""
        raise RecordError(
            f"the comparison has {reach} tokens and the model reads {self.max_length}: the prompt has "
            f"{len(prompt)} characters{shown}; shorten the prompt or lower max_pixels"
        )

    def _longest_slot(self) -> int:
        """The text before an image and the longest image under the pixel budget, in positions."""
        text = max(len(self.layout.first), len(self.layout.second))
        ratio = self.spec.max_aspect_ratio
        return text + self._family.extent(self.tokenizer, self._config, self.image_processor, ratio)


def _unusable(error: ValueError) -> MediaError:
    return MediaError(f"the image cannot be prepared for this judge: {error}")


def _check_images(family: Family, image_processor: Any, config: Any) -> None:
    for name, (found, expected) in family.same(image_processor, config).items():
        if found != expected:
            raise ConfigError(
                f"the image processor has {name}={found} and the model {expected}; "
                "take both of one checkpoint"
            )
    if (largest := family.largest(image_processor)) > DEFAULT_LIMITS.max_pixels:
        raise ConfigError(
            f"the image processor would resize images to {largest} pixels; set max_pixels to at most "
            f"{DEFAULT_LIMITS.max_pixels}"
        )


def _tokenizer(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # Older checkpoints keep the chat template that knows images apart from the tokenizer's own.
    older = folder / "chat_template.json"
    if older.is_file():
        tokenizer.chat_template = json.loads(older.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer


def _pillow_image_processor(folder: Path, config: Any) -> Any:
    load: Any = AutoImageProcessor.from_pretrained
    return load(folder, backend="pil", config=config, trust_remote_code=False)
