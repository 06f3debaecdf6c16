"""train-policy: teaches a network, in the simulator, which exit, split and codec to choose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.simulate import Overrides, ScenarioFile
from splitexit.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from splitexit.rl.env import OffloadEnv
    from splitexit.rl.train import Progress, Training


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(train_policy)


def train_policy(
    scenario: ScenarioFile,
    steps: Annotated[int, typer.Option(min=1, help="Decisions to learn from.")] = 50_000,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors", help="Weights [default: runs/sac_d-<name>.safetensors].", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, runs and chance in the training.")] = 0,
    gamma: Annotated[
        float, typer.Option(min=0, max=1, help="Discount; 0 where no decision has a bearing on later ones.")
    ] = 0.9,
    codec: Annotated[
        list[str] | None, typer.Option(help="Codec to choose from; repeatable [default: all on offer].")
    ] = None,
    accuracy: Annotated[
        str, typer.Option(help="What counts as right: expected (share of the exit that answered) or realised.")
    ] = "expected",
    overrides: Overrides = None,
) -> None:
    """Train the policy sac_d in the simulator, on the calibration split of the scenario's bundle.

    What was learned is kept every now and then: after Ctrl-C the same command goes on. Needs torch and gymnasium (the
    extra rl); the policy itself runs without them.
    """
    _check(out, accuracy)
    from rich.console import Console

    from splitexit.rl.sac_d import Recipe
    from splitexit.rl.train import Training

    env = _environment(scenario, overrides, accuracy, codec)
    out = out or Path("runs") / f"sac_d-{env.experiment.scenario.name}.safetensors"
    training = Training(
        env, Recipe(steps=steps, seed=seed, gamma=gamma), out.with_suffix(".checkpoint"), _about(env, accuracy)
    )
    console = Console(stderr=True, highlight=False)
    try:
        with _watching(console, steps) as progress:
            training.run(progress)
    except KeyboardInterrupt:
        console.print(_interrupted(training, env, out, scenario), markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    _save(training, env, out)
    out.with_suffix(".checkpoint").unlink(missing_ok=True)
    print(_usage(out, scenario))


def _check(out: Path | None, accuracy: str) -> None:
    if accuracy not in ("expected", "realised"):
        raise UsageError(f"--accuracy {accuracy!r}: expected 'expected' or 'realised'")
    if out is not None and out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a file that ends in .safetensors")


def _environment(scenario: Path, overrides: list[str] | None, accuracy: Any, codecs: list[str] | None) -> OffloadEnv:
    from splitexit.experiment import Experiment
    from splitexit.rl.env import OffloadEnv
    from splitexit.scenario import load

    return OffloadEnv(Experiment.open(load(scenario, overrides or [])), accuracy=accuracy, codecs=codecs)


def _about(env: OffloadEnv, accuracy: str) -> dict[str, Any]:
    """What a checkpoint must agree with. The scenario's own policies have no part in it; the weights may be theirs."""
    from splitexit.scenario import Spec

    local, scenario = {"policy": Spec("policy", "local", {})}, env.experiment.scenario
    bare = scenario.model_copy(
        update={
            "policies": {},
            "devices": scenario.devices.model_copy(update=local),
            "groups": {label: group.model_copy(update=local) for label, group in scenario.groups.items()},
        }
    )
    return {
        "scenario": bare.digest(),
        "weights": env.experiment.spec.weights_sha256,
        "actions": [list(action) for action in env.actions],
        "accuracy": accuracy,
    }


@contextmanager
def _watching(console: Console, steps: int) -> Iterator[Callable[[Progress], None]]:
    """A bar with the mean of the last rewards; a line for every tenth where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text = TextColumn("{task.fields[said]}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task, tenth = bar.add_task("train", said="first runs", total=steps), 0

        def show(now: Progress) -> None:
            nonlocal tenth
            said = f"reward {now.reward:.3f}  temperature {now.alpha:.3f}"
            bar.update(task, completed=now.done, said=said)
            if not console.is_terminal and 10 * now.done // steps > tenth:
                tenth = 10 * now.done // steps
                console.print(f"{now.done} of {steps} decisions  {said}", soft_wrap=True)

        yield show


def _save(training: Training, env: OffloadEnv, out: Path) -> None:
    from splitexit.actor import actor_for
    from splitexit.cli.progress import command_line

    setting = env.experiment.setting(env.experiment.groups[0])
    made = {"command": command_line(), "decisions": training.done, "recipe": training.recipe.to_json()}
    actor_for(setting, env.actions, training.learner.layers(), made).save(out)


def _interrupted(training: Training, env: OffloadEnv, out: Path, scenario: Path) -> str:
    """Saves what was learned, and says so."""
    again = "the same command goes on" if out.with_suffix(".checkpoint").exists() else "the same command begins again"
    if not training.updates:
        return f"interrupted after {training.done} decisions, before anything was learned; {again}"
    _save(training, env, out)
    return f"interrupted after {training.done} decisions; {again}; so far: {_usage(out, scenario)}"


def _usage(out: Path, scenario: Path) -> str:
    """Where the weights are, and how a scenario names them: by a path that starts at its own folder."""
    path = Path(os.path.relpath(out, scenario.parent)).as_posix()
    return f"{out}: in {scenario.name}, under `policies:`, write  sac_d: {{name: sac_d, weights: {path}}}"
