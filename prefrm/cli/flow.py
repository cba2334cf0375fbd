"""`prefrm flow`."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from prefrm.cli.remote import Remote
from prefrm.cli.training import Overrides, Resume, resumable
from prefrm.errors import ConfigError, missing_extra
from prefrm.options import AsJson

__all__ = ["flow"]


def flow(
    config: Annotated[
        Path | None, typer.Argument(help="a YAML file, such as configs/flow/shapes_nft.yaml")
    ] = None,
    set_: Overrides = None,
    resume: Resume = False,
    list_: Annotated[bool, typer.Option("--list", help="list the methods and exit")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a flow-matching image model with the win rates of a judge as reward.

    On several devices: `accelerate launch -m prefrm flow CONFIG`.
    """
    if list_:
        _print_methods(as_json)
        return
    if config is None:
        raise ConfigError("name a configuration, such as configs/flow/shapes_nft.yaml; --list lists methods")
    from prefrm.config import load_config
    from prefrm.flow.config import FlowConfig

    settings = load_config(FlowConfig, config, set_ or [])
    try:
        from prefrm.flow.run import run
    except ImportError as error:
        raise missing_extra(str(error.name), "flow") from error
    from prefrm.scorers import open_scorer
    from prefrm.scorers.gradients import open_gradient

    # With the token of the environment.
    remote = Remote()
    with resumable():
        facts = run(
            settings,
            partial(open_scorer, connect=remote.connect),
            open_gradient=partial(open_gradient, connect=remote.gradient),
            resume=resume,
        )
    if not facts:
        return
    if as_json:
        print(json.dumps(facts))
        return
    shown = {**facts["reward_before"], "oracle": facts["oracle_before"]}
    after = {**facts["reward_after"], "oracle": facts["oracle_after"]}
    for name, before in shown.items():
        if before is not None:
            print(f"{name}: {before:.3f} before, {after[name]:.3f} after")
    print(f"adapter: {settings.output / 'lora'}")
    print(f"report: {settings.output / 'report.md'}")


def _print_methods(as_json: bool) -> None:
    from prefrm.config import to_mapping
    from prefrm.flow.methods import METHODS

    rows = [
        {
            "name": row.name,
            "title": row.title,
            "paper": row.paper,
            "kernel": row.rollout.kernel,
            "stochastic": row.rollout.stochastic.rule,
            "likelihood": row.likelihood.kind,
            "objective": row.objective.kind,
            "regularizer": f"{row.regularizer.form} {row.regularizer.reference:g}"
            if row.regularizer.reference
            else "",
            "note": row.note,
            "settings": to_mapping(row),
        }
        for row in METHODS.values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    names = ("name", "paper", "kernel", "stochastic", "objective", "regularizer")
    table = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(names))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
