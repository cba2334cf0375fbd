"""`prefrm check-trainer`."""

from typing import Annotated, Literal

import typer

from prefrm.cli.remote import Remote
from prefrm.cli.shared import open_scorer
from prefrm.errors import ConfigError
from prefrm.options import with_options

__all__ = ["check_trainer"]

# What the command exits with if something does not fit.
UNFIT = 1


@with_options
def check_trainer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="flow_factory, flow_grpo, slime, trl or verl")],
    url: Annotated[str, typer.Argument(metavar="URL", help="of the judge: grpc://host:port/model")],
    group_size: Annotated[int, typer.Option(min=2, help="images of a prompt")] = 8,
    groups: Annotated[int, typer.Option(min=1, help="prompts of a step")] = 4,
    side: Annotated[int, typer.Option(min=8, help="width and height of the images, in pixels")] = 256,
    within: Annotated[
        float | None, typer.Option(min=0.0, help="seconds that a step may wait for its rewards")
    ] = None,
    on_missing: Annotated[Literal["raise", "drop"], typer.Option(help="as your reward has it")] = "raise",
    on_single: Annotated[
        Literal["nan", "reference", "raise"], typer.Option(help="as your reward has it")
    ] = "nan",
    *,
    remote: Remote,
) -> None:
    """Replay a trainer's calls against your judge, and time one of its steps, without the trainer.

    The calls are those of the versions in docs/grpo.md, and their images are made here. Each line says "ok",
    "stops" (an error, as these settings ask for), or "wrong".

    The exit status is 1 if a reward was wrong, or if a step took longer than --within.
    """
    from prefrm.grpo.replays import load
    from prefrm.grpo.replays.check import check_replays, time_step

    if "://" not in url:
        raise ConfigError(f"check-trainer needs the URL of a served judge, as a trainer does; received {url}")
    print(f"{name}: {load(name)[0].read_from}")
    wrong = 0
    with open_scorer(url, remote=remote) as scorer:
        for outcome in check_replays(name, scorer, on_missing=on_missing, on_single=on_single):
            print(f"{outcome.verdict:<6} {outcome.seconds:5.1f} s  {outcome.replay.name}")
            for remark in outcome.remarks:
                print(f"               {remark}")
            wrong += outcome.verdict == "wrong"
        step = time_step(scorer, group_size=group_size, groups=groups, side=side)
    slow = within is not None and step.seconds > within
    needed = f", where {step.images / within:.1f} are needed" if within else ""
    print(
        f"{'slow' if slow else 'ok':<6} {step.seconds:5.1f} s  a step of {groups} groups of {group_size} "
        f"images of {side} x {side} pixels: {step.images / step.seconds:.1f} images a second{needed}"
    )
    print(f"{wrong} replays gave wrong rewards" if wrong else "all rewards are correct")
    if wrong or slow:
        raise typer.Exit(UNFIT)
