"""Images that a pipeline of diffusers draws for prompts, each from its own recorded seed.

    out/IDENTIFIER_NUMBER.png   an image
    out/images.jsonl            the settings, then a line for each image: its prompt, seed, file and digest

A run that was stopped continues: calls of the pipeline of which every image is there are not repeated.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from prefrm import media
from prefrm.arena.stored import stored_rows
from prefrm.arena.values import ArenaPrompt
from prefrm.chunks import chunks
from prefrm.config import Bounded, Count, Natural, load_config, to_mapping
from prefrm.errors import ConfigError
from prefrm.files import hash_file, write_file_whole
from prefrm.flow.config import PolicyConfig
from prefrm.flow.pipelines import call_arguments, load_pipeline
from prefrm.flow.rollout import seed_of
from prefrm.pixels import encode_image
from prefrm.progress import Advance

__all__ = ["PATTERN", "GeneratorConfig", "generate", "load_generator"]

PATTERN = "{id}_{n}"
"""Of the files, as `prefrm.arena.images` reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig(Bounded):
    """A model that draws, as `prefrm arena --generate NAME=FILE` reads it from YAML."""

    policy: PolicyConfig  # model, steps, guidance, arguments; its adapter's settings are of no matter here
    lora: Path | None = None  # folder of an adapter, such as OUTPUT/lora of `prefrm flow`
    seed: Natural = 0  # equal seeds of two models give an image of a prompt the same noise
    batch: Count = 16  # images in one call of the pipeline
    device: Literal["auto", "cpu"] = "auto"  # "auto": the first accelerator


def load_generator(path: Path) -> GeneratorConfig:
    """The settings in a YAML file. Raises `ConfigError`."""
    return load_config(GeneratorConfig, path)


def generate(
    config: GeneratorConfig,
    prompts: Sequence[ArenaPrompt],
    images: int,
    out: Path,
    progress: Advance | None = None,
) -> None:
    """Draw so many images of every prompt into a folder.

    Args:
        config: the model and its settings.
        prompts: each with an id that file names can be made of.
        images: of each prompt.
        out: the folder, which is made.
        progress: called with the number of images that are there.

    Raises:
        ConfigError: the pipeline or the adapter cannot be loaded, or an id is not a part of a file name.
        DatasetError: the folder has images by other settings.
    """
    for prompt in prompts:
        if Path(prompt.id).name != prompt.id or prompt.id.startswith("."):
            raise ConfigError(f"no file can be named after the prompt {prompt.id!r}; give it another id")
    with stored_rows(out / "images.jsonl", _claim(config), lambda row: (row["file"],)) as (known, add):
        wanted = [(prompt, n) for prompt in prompts for n in range(images)]
        pipe: Any = None
        done = 0
        for some in chunks(wanted, config.batch):
            if not all(
                (_file(prompt, n),) in known and (out / _file(prompt, n)).exists() for prompt, n in some
            ):
                pipe = _pipeline(config) if pipe is None else pipe
                add(_drawn(pipe, config, some, out))
            done += len(some)
            if progress is not None:
                progress(done)


def _claim(config: GeneratorConfig) -> dict[str, Any]:
    adapter = {} if config.lora is None else {path.name: hash_file(path) for path in _weights(config.lora)}
    return {**to_mapping(config), "lora_files": adapter}


def _weights(lora: Path) -> list[Path]:
    if not (found := sorted(lora.glob("*.safetensors"))):
        raise ConfigError(f"lora {lora} has no adapter (*.safetensors); give OUTPUT/lora of a finished run")
    return found


def _pipeline(config: GeneratorConfig) -> Any:
    policy = config.policy
    pipe = load_pipeline(policy.model, getattr(torch, policy.dtype), policy.options)
    if config.lora is not None:
        try:
            pipe.load_lora_weights(config.lora)
        except (AttributeError, ValueError, OSError) as error:
            raise ConfigError(f"lora {config.lora} is not an adapter of {policy.model}: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu")


def _drawn(
    pipe: Any, config: GeneratorConfig, some: Sequence[tuple[ArenaPrompt, int]], out: Path
) -> Iterable[Mapping[str, Any]]:
    """Draw and write images; returns their rows."""
    seeds = [_seed(config.seed, prompt, n) for prompt, n in some]
    arguments = call_arguments(pipe, config.policy)
    if isinstance(negative := arguments.get("negative_prompt"), str):
        arguments |= {"negative_prompt": [negative] * len(some)}
    with torch.no_grad():
        drawn = pipe(
            prompt=[prompt.text for prompt, _ in some],
            num_inference_steps=config.policy.steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pil",
            **arguments,
        ).images
    rows = []
    for (prompt, n), seed, image in zip(some, seeds, drawn, strict=True):
        file, encoded = _file(prompt, n), encode_image(image)
        with write_file_whole(out / file) as partial:
            partial.write_bytes(encoded)
        rows.append(
            {"prompt": prompt.id, "image": n, "seed": seed, "file": file, "sha256": media.digest(encoded)}
        )
    return rows


def _seed(seed: int, prompt: ArenaPrompt, n: int) -> int:
    text = hashlib.sha256(prompt.text.encode()).digest()
    return seed_of(seed, int.from_bytes(text[:8], "big"), n)


def _file(prompt: ArenaPrompt, n: int) -> str:
    return f"{PATTERN.format(id=prompt.id, n=n)}.png"
