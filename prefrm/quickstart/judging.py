"""Stages 1 to 4: build the data, train the judge, measure it before and after, export and load it again."""

from dataclasses import asdict, dataclass
from pathlib import Path

from data_recipes.shapes.recipe import RECIPE, ShapesOptions
from prefrm.engine import Engine
from prefrm.eval import Evaluation, evaluate
from prefrm.judge import Judge, JudgeSpec
from prefrm.progress import track
from prefrm.records import SPLITS, Comparison, read_groups
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig

__all__ = ["DataSummary", "make_data", "training_settings", "untrained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What was built: groups and distinct prompts by split, comparisons and ties of the training split."""

    groups: dict[str, int]
    prompts: dict[str, int]
    comparisons: int
    ties: int


def make_data(folder: Path, sizes: ShapesOptions, *, seed: int) -> DataSummary:
    """Build the shapes dataset, which proves that no prompt is in two splits, and count what was written."""
    done = dict.fromkeys(SPLITS, 0)
    with track("rendering", sizes.train + sizes.validation + sizes.test) as advance:

        def progress(split: str, groups: int, total: int | None) -> None:
            done[split] = groups
            advance(sum(done.values()))

        built = RECIPE.build(folder, seed=seed, overwrite=True, progress=progress, **asdict(sizes))
    prompts: dict[str, set[str]] = {split: set() for split in SPLITS}
    comparisons: list[Comparison] = []
    for split in SPLITS:
        for group in read_groups(folder, split):
            prompts[split].add(group.prompt)
            if split == "train":
                comparisons.extend(group.comparisons)
    return DataSummary(
        groups=dict(built.groups),
        prompts={split: len(texts) for split, texts in prompts.items()},
        comparisons=len(comparisons),
        ties=sum(not c.is_strict for c in comparisons),
    )


def training_settings(data: Path, output: Path, optim: OptimConfig, *, seed: int) -> TrainConfig:
    """What the quickstart trains; `configs/train/shapes.yaml` says the same."""
    return TrainConfig(
        output=output,
        judge=JudgeSpec(base_model="shipped:shapes-captioner"),
        data=DataConfig(path=data),
        adapter=AdapterConfig(rank=16, alpha=32),
        optim=optim,
        export="merged",
        device="cpu",
        seed=seed,
    )


def untrained(settings: TrainConfig) -> Evaluation:
    """The base model as a judge, before it learned to compare, on the test split."""
    groups = list(read_groups(settings.data.path, "test"))
    judge = Judge.from_base(settings.judge, device=settings.device)
    with track("scoring with the untrained judge", len(groups)) as advance:
        return evaluate(Engine(judge), groups, progress=advance)
