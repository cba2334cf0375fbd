"""The seven stages in order, and the line that says what each showed."""

from contextlib import ExitStack
from pathlib import Path

import torch

from data_recipes.shapes.prompts import split_prompts
from prefrm.bundle import read_manifest
from prefrm.client import connect
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.eval import tables
from prefrm.progress import track
from prefrm.quickstart import judging, policy, serving
from prefrm.quickstart.folder import make_room
from prefrm.quickstart.narrator import Narrator
from prefrm.quickstart.report import Judged, Used, draw, magnitude, numbers, write_report
from prefrm.quickstart.settings import THREADS, PolicySettings, Settings
from prefrm.quiet import quiet
from prefrm.records import read_groups
from prefrm.resources import Resources
from prefrm.train import TrainConfig, run

__all__ = ["tell"]

STAGES = 7
DEFAULTS = Settings()


@quiet()
def tell(out: Path, *, seed: int, settings: Settings = DEFAULTS, started: float | None = None) -> None:
    """Run every stage and write `report.md` and `report.json` into `out`; an earlier run there is replaced.

    What no quickstart writes into `out` stays. Equal seeds give equal numbers on one machine, seconds and
    memory aside. The total counts from `started`, a `time.monotonic()`, or else from now.

    Raises:
        ConfigError: `seed` is not in [0, 2**32), `out` holds something that no quickstart wrote, or another
            quickstart is writing there.
    """
    resources = Resources(started)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be in [0, 2**32); received {seed}")
    config = judging.training_settings(out / "data", out / "judge", settings.judge, seed=seed)
    torch.set_num_threads(THREADS)
    # Last, when nothing else can be refused, so that a mistake does not cost an earlier run.
    with make_room(out), resources:
        narrator = Narrator(STAGES, resources)
        judged = _make_judge(narrator, out, config, settings, seed)
        used = _use_judge(narrator, out, judged, settings.policy, seed)
        with narrator.stage("Report", "tables, heat maps, pictures"):
            pictures = draw(out / "pictures", judged, used.policy)
        # After the stage, so that its seconds are among them.
        facts = numbers(judged, used, resources, seed=seed)
        write_report(out, facts, pictures)
        narrator.say(f"{facts['seconds']['total']:.0f} s in all, {facts['peak_rss_mb']:.0f} MB at the peak")
    for name, path in (
        ("report", out / "report.md"),
        ("numbers", out / "report.json"),
        ("bundle", judged.bundle),
        ("policy", out / "policy"),
        ("data", out / "data"),
    ):
        narrator.say(f"{name + ':':<9}{path}")


def _make_judge(narrator: Narrator, out: Path, config: TrainConfig, settings: Settings, seed: int) -> Judged:
    """Stages 1 to 4: the data, the judge, what it is worth, its bundle."""
    with narrator.stage("Data", "preference groups of the shapes world, labelled by its oracle"):
        data = judging.make_data(out / "data", settings.data, seed=seed)
        narrator.say(
            f"{data.groups['train']} groups, {data.comparisons} comparisons to learn from, {data.ties} ties; "
            f"none of the {data.prompts['test']} held-out prompts is among them"
        )
    with narrator.stage("Judge", "a LoRA adapter on a small Qwen2.5-VL learns from noisy comparisons"):
        trained = run(config)
        narrator.say(
            f"{trained.trainable:,} weights trained in {config.optim.steps} steps of "
            f"{config.optim.batch_size} groups with all their comparisons, both presentation orders"
        )
    with narrator.stage("Evaluation", "held-out prompts and clean labels, before and after"):
        before, after = judging.untrained(config), trained.held_out
        accuracy = (before.metrics.accuracy.value, after.metrics.accuracy.value)
        narrator.say(f"pair accuracy {accuracy[0]:.3f} before, {accuracy[1]:.3f} after")
        narrator.say(
            f"calibration error {after.calibration.ece:.3f} {tables.name(after)}, "
            f"order gap {after.metrics.mean_order_gap:.3f}"
        )
    with narrator.stage("Bundle", "exported, hashed, loaded again"):
        groups = list(read_groups(out / "data", "test"))[: settings.parity_groups]
        matrices = Engine.from_bundle(trained.bundle, device="cpu").score([g.group() for g in groups])
        digest = read_manifest(trained.bundle).digest
        narrator.say(f"{digest[:12]}, within {magnitude(trained.export_difference)} of the judge in memory")
    return Judged(
        data=data,
        before=before,
        after=after,
        bundle=trained.bundle,
        digest=digest,
        export_difference=trained.export_difference,
        groups=groups,
        matrices=matrices,
    )


def _use_judge(narrator: Narrator, out: Path, judged: Judged, settings: PolicySettings, seed: int) -> Used:
    """Stages 5 and 6: serve the bundle, hold the wires against the engine, train a policy over one."""
    asked = [group.group() for group in judged.groups]
    with ExitStack() as running:
        with narrator.stage("Server", "`prefrm serve` in another process, asked by the stock Triton clients"):
            server = running.enter_context(serving.served(judged.bundle, out / "server"))
            over_grpc = serving.over_grpc(server, asked, judged.matrices)
            over_http = serving.over_http(server, asked, judged.matrices)
            narrator.say(
                f"{len(asked)} groups differ from the local engine by {magnitude(over_grpc)} at most over "
                f"gRPC and {magnitude(over_http)} over HTTP"
            )
        with narrator.stage(
            "Policy", "a language model that draws learns by GRPO from the judge's win rates"
        ):
            judge = running.enter_context(connect(f"grpc://{server.grpc}/{server.model}"))
            painter, held_out = policy.Painter(), split_prompts("test")
            narrator.say(
                f"watched on all {len(held_out)} held-out prompts, {settings.samples * len(held_out)} "
                f"programs each time: before, every {settings.watch_every} steps, and after"
            )
            with track("training the policy", settings.steps) as tracker:
                result = policy.improve(
                    painter,
                    judge,
                    train=split_prompts("train"),
                    held_out=held_out,
                    folder=out / "policy",
                    settings=settings,
                    seed=seed,
                    tracker=tracker,
                )
            painter.save(out / "policy")
            narrator.say(
                f"oracle {policy.mean_oracle(result.before):.3f} before, "
                f"{policy.mean_oracle(result.after):.3f} after {settings.steps} steps of GRPO"
            )
    return Used(grpc_difference=over_grpc, http_difference=over_http, policy=result)
