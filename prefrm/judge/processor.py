"""From a prompt and candidates to the tensors that a backbone reads. Runs on the CPU, holds no weights.

A candidate is prepared once and may then stand in any number of trees.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge.backbones import Family, family_of
from prefrm.judge.backbones.family import most_positions, plain_positions
from prefrm.judge.backbones.vocabulary import add_tokens
from prefrm.judge.batch import JudgeBatch, pack
from prefrm.judge.images import ImageInput
from prefrm.judge.layout import TREES, Content, Pair, Tree
from prefrm.judge.tokens import TokenLayout, render
from prefrm.manifest.contents import without_references
from prefrm.manifest.spec import FRAMES, JudgeSpec
from prefrm.media import DEFAULT_LIMITS
from prefrm.prompts import RenderedTemplate, Template
from prefrm.video import Frames
from prefrm.winmatrix import Inputs, TrainingCheck

__all__ = ["JudgeProcessor"]

# A text of more characters for each token that the model reads is not even tokenized: no text is so sparse.
MOST_CHARACTERS_A_TOKEN = 16
TRIAL_RATE, TRIAL_CRITERION = 1.0, "overall"
"""Frames a second of a video that is made to try out a judge, and what candidates are compared by."""


class JudgeProcessor:
    """Prepares images and pairs for one base model and one template.

    Composed of the checkpoint's own image processor (its Pillow variant) and tokenizer; it needs
    neither torchvision nor a video processor.

    Args:
        tokenizer: of `transformers`.
        image_processor: of `transformers`.
        config: the backbone's configuration.
        spec: of the judge.
        template: the wording.
        rendered: that wording as the base model's chat template renders it; None runs the chat template.
        check: is given the context images and the criterion of each group; None where it is not known with
            which ones the judge was trained.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        config: Any,
        spec: JudgeSpec,
        template: Template,
        rendered: RenderedTemplate | None = None,
        check: TrainingCheck | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.spec = spec
        self._check = check
        self._config = config
        self._family = family_of(config)
        image_token_id: int = config.image_token_id
        self.rendered = rendered or render(
            tokenizer,
            template,
            image_token_id,
            images=spec.kind == "image",
            images_in_text=self._family.images_in_text,
        )
        self.layout = TokenLayout(tokenizer, template, self.rendered, image_token_id, spec.readouts)
        self.max_length = most_positions(config)
        count = plain_positions if spec.positions == "sequential" else self._family.positions
        self.positions = partial(count, config)

    @classmethod
    def load(
        cls,
        folder: Path,
        config: Any,
        spec: JudgeSpec,
        template: Template,
        rendered: RenderedTemplate | None = None,
        check: TrainingCheck | None = None,
    ) -> "JudgeProcessor":
        """From the tokenizer and image-processor files in `folder`, with the pixel budget of `spec`.

        Raises:
            ConfigError: the files are absent or unusable, the image processor is another model's or enlarges
                images beyond all bounds, or the pixel budget is empty.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # Older checkpoints keep the chat template that knows images apart from the tokenizer's own.
            if (older := folder / "chat_template.json").is_file():
                tokenizer.chat_template = json.loads(older.read_text(encoding="utf-8"))["chat_template"]
            load: Any = AutoImageProcessor.from_pretrained
            image_processor = load(folder, backend="pil", config=config, trust_remote_code=False)
        # The tokenizers library raises bare exceptions, and malformed JSON gives errors of many kinds.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{folder} holds no usable tokenizer and image processor: {reason}") from error
        add_tokens(tokenizer, spec.readouts)
        family = family_of(config)
        family.pixel_budget(image_processor, spec.min_pixels, spec.max_pixels)
        _check_images(family, image_processor, config)
        return cls(tokenizer, image_processor, config, spec, template, rendered, check)

    def save(self, folder: Path) -> None:
        """Write the tokenizer and image-processor files, chat template included."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        # A published checkpoint may name code beside it, which prefrm never runs and a bundle may not name.
        for path in folder.glob("*_config.json"):
            settings = without_references(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def inputs(self) -> Inputs:
        """What the judge reads of a group."""
        return self.spec.inputs(self.template)

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """Resize into the pixel budget, normalize and cut as the vision tower takes it.

        Raises:
            MediaError: the image cannot be resized into the budget, such as an extreme aspect ratio.
        """
        with _naming_images():
            return self._input(*self._family.prepare(self.image_processor, image))

    @property
    def reads_frames_as_images(self) -> bool:
        """Whether `prepare_frames` prepares each frame by itself."""
        return self._family.prepare_frames is None

    def prepare_frames(self, frames: Frames) -> Content:
        """Frames of a video as the family reads them: as one grid, as grids after their times, or as images.

        Raises:
            MediaError: as `prepare_image`, or the frames differ in size.
        """
        if self._family.prepare_frames is None:
            return tuple(map(self.prepare_image, frames.images))
        with _naming_images():
            return self._family.prepare_frames(self.image_processor, self.tokenizer, self._config, frames)

    def prepare_pixels(self, image_3HW: torch.Tensor) -> ImageInput:
        """As `prepare_image`, of floats [3, H, W] in [0, 1] on any device, with a gradient in them.

        The two agree but for the rounding to 8 bits after each resize.

        Raises:
            ConfigError: the image processor resizes with a filter that has no gradient here.
            MediaError: as `prepare_image`.
        """
        with _naming_images():
            return self._input(*self._family.prepare_pixels(self.image_processor, image_3HW))

    def _input(self, pixels: torch.Tensor, grid: tuple[int, ...]) -> ImageInput:
        return ImageInput(
            pixels=pixels, grid=grid, ids=self._family.spell(self.tokenizer, self._config, grid)
        )

    def shrink(self, image: Image.Image) -> Image.Image | None:
        """The image in its final size, of which `prepare_image` makes the same, bit for bit.

        None if the family shows an image in several sizes. Raises as `prepare_image`.
        """
        with _naming_images():
            return self._family.shrink(self.image_processor, image)

    def prepare_text(self, text: str) -> Content:
        """The tokens of a text, none of which is a control token, whatever it spells.

        Raises:
            RecordError: the text is empty, not valid Unicode, or longer than the model can read.
        """
        if not text:
            raise RecordError("the text is empty")
        self._check_length("text", text)
        ids = self.layout.text(text)
        if len(ids) > self.max_length:
            raise RecordError(
                f"the text has {len(ids)} tokens and the model reads {self.max_length}; shorten the text"
            )
        return (ids,)

    def tree(
        self,
        prompt: str,
        candidates: Mapping[Hashable, Content | ImageInput],
        context: Sequence[ImageInput] = (),
        criterion: str = "",
    ) -> Tree:
        """The segments of one group.

        Args:
            prompt: of the group.
            candidates: by the keys that name them in comparisons, as the methods here prepare them.
            context: images that belong to the prompt.
            criterion: what the candidates are compared by; "" is overall preference.

        Raises:
            RecordError: a text is not valid, or is longer than the model can read, or the template has no
                place for the context or the criterion, or needs one.
        """
        self._check_places(context, criterion)
        if self._check is not None:
            self._check(len(context), criterion)
        return self._tree(prompt, candidates, context, criterion)

    def _tree(
        self,
        prompt: str,
        candidates: Mapping[Hashable, Content | ImageInput],
        context: Sequence[ImageInput],
        criterion: str,
    ) -> Tree:
        self._check_length("prompt", prompt)
        self._check_length("criterion", criterion)
        return TREES[self.spec.attention](
            self.layout.fill(prompt, criterion, context),
            candidates,
            kind=self.spec.kind,
            reads=self.layout.reads,
            criterion_level=self.layout.criterion_level,
            positions=self.positions,
            max_length=self.max_length,
        )

    def trial_tree(self, prompt: str, images: Sequence[Image.Image]) -> Tree:
        """A group of which nothing is known but the judge's kind, such as to try out a bundle.

        Its candidates are the images, or made of as many; where the template has a place for a context or a
        criterion, it has one.
        """
        candidates: dict[Hashable, Content] = {n: self._trial(n, x) for n, x in enumerate(images)}
        context = [self.prepare_image(images[0])] if self.layout.has_context else []
        return self._tree(prompt, candidates, context, TRIAL_CRITERION if self.layout.has_criterion else "")

    def _trial(self, place: int, image: Image.Image) -> Content:
        match self.spec.kind:
            case "text":
                return self.prepare_text(f"{place + 1} cubes")
            case "video":
                return self.prepare_frames(
                    Frames.of([image] * min(self.spec.frames or 1, FRAMES), TRIAL_RATE)
                )
            case _:
                return (self.prepare_image(image),)

    def _check_places(self, context: Sequence[ImageInput], criterion: str) -> None:
        name, layout = self.template.id, self.layout
        for what, given, has, needs in (
            ("context image", len(context), layout.has_context, layout.needs_context),
            ("criterion", int(bool(criterion)), layout.has_criterion, layout.needs_criterion),
        ):
            if given and not has:
                raise RecordError(
                    f"this judge reads no {what}; received {given}; its template {name!r} has no place for "
                    "it: take a judge that was trained with one that has, such as fit-late-v1"
                )
            if needs and not given:
                raise RecordError(f"template {name!r} of this judge needs a {what}; received none")

    def _check_length(self, name: str, text: str) -> None:
        if len(text) > MOST_CHARACTERS_A_TOKEN * self.max_length:
            raise RecordError(
                f"the {name} has {len(text)} characters and the model reads {self.max_length} tokens; "
                f"shorten the {name}"
            )

    def collate(self, groups: Sequence[tuple[Tree, Sequence[Pair]]]) -> JudgeBatch:
        """One batch of readable comparisons of all groups, in order."""
        return pack(groups)


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


@contextmanager
def _naming_images() -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise MediaError(f"the image cannot be prepared for this judge: {error}") from error
