"""calibrate: what the parts of a bundle cost, on this machine or on one that serves it.

What needs grpc is imported when it is asked for: calls need not be measured.
"""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from splitexit.cli.models import BundleFolder
from splitexit.cli.progress import bar, command_line
from splitexit.errors import UsageError

if TYPE_CHECKING:
    from splitexit.bundle import Bundle
    from splitexit.calibration import Calibration, Rpc

LOCAL_REPETITIONS, REMOTE_REPETITIONS = 300, 60


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(calibrate)


def calibrate(
    bundle: BundleFolder,
    pair: Annotated[
        list[str] | None, typer.Option(help="codec@split or codec@all; repeatable [default: what is recorded].")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Images to time with [default: the bundle's samples].")] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(min=10, help="Samples timed [default: 300; with --edge, 60 for every split and codec]."),
    ] = None,
    gap_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Pause before every sample, as between live requests.")
    ] = 15.0,
    rpc: Annotated[bool, typer.Option(help="Measure what a call costs too, or keep what is known of it.")] = True,
    corun: Annotated[bool, typer.Option(help="Measure what other busy processes cost too, or keep that.")] = True,
    only_batch: Annotated[bool, typer.Option("--only-batch", help="Only what batches cost; keep the rest.")] = False,
    layers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Only what regressions per type of layer say of the stages; keep the rest. Layers are read from the "
            "file, or measured into it.",
        ),
    ] = None,
    edge: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Measure the machine that serves the bundle there.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to [default: the bundle's calibration.json].")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what every stage, exit, codec and batch of a bundle costs, in seconds.

    On this machine; or, with --edge, on one that runs `splitexit serve`. A scenario may name the file as `hardware:`.
    """
    from splitexit.bundle import Bundle

    opened = Bundle.open(bundle)
    if edge is not None:
        if out is None:
            raise UsageError("--edge: say with --out FILE where the calibration of that machine is to go")
        if pair or only_batch or layers:
            raise UsageError("--edge measures what is served there; leave --pair, --only-batch and --layers out")
        measured = _remote(opened, edge, data, repetitions or REMOTE_REPETITIONS, gap_ms / 1e3)
    elif layers is not None:
        measured = _regressed(opened, layers)
    elif only_batch:
        measured = _batches_alone(opened, data)
    else:
        measured = _local(opened, pair or [], data, repetitions or LOCAL_REPETITIONS, gap_ms / 1e3, rpc, corun)
    file = out or opened.calibration
    measured.save(file)
    if json:
        print(json_.dumps(_document(measured, file), indent=1))
    else:
        _print(measured)
        print(file)


def _local(
    bundle: Bundle, pairs: list[str], data: str | None, repetitions: int, gap_s: float, rpc: bool, corun: bool
) -> Calibration:
    """Of this machine: call, parts, batches, co-running."""
    from splitexit.models import calibrate as calibration
    from splitexit.models.corun import measure_corun
    from splitexit.models.record import default_pairs, parse_pair

    console = Console(stderr=True)
    parsed = [p for text in pairs for p in parse_pair(text, bundle)]
    wanted = parsed or calibration.recorded_pairs(bundle) or default_pairs(bundle)
    images = calibration.read_images(bundle, data)
    a_call = _measured_rpc(bundle) if rpc else calibration.present_rpc(bundle)
    others = calibration.present_corun(bundle)
    if corun:
        with bar(console, "rounds of co-running processes") as progress:
            others = measure_corun(bundle, progress=progress)
    with bar(console, "samples") as progress:
        return calibration.calibrate(
            bundle,
            wanted,
            images,
            repetitions=repetitions,
            gap_s=gap_s,
            rpc=a_call,
            corun=others,
            command=command_line(),
            progress=progress,
        )


def _measured_rpc(bundle: Bundle) -> Rpc:
    """What a call costs, by the live layer, whose memory settings then hold for the rest of the calibration too."""
    try:
        from splitexit.live.rpc import measure_rpc
        from splitexit.live.tuning import tune_process
    except ModuleNotFoundError as error:
        raise UsageError(f"measuring a call needs {error.name!r}: pip install 'splitexit[live]', or --no-rpc") from None
    tune_process()
    return measure_rpc(bundle.path)


def _batches_alone(bundle: Bundle, data: str | None) -> Calibration:
    from splitexit.live.tuning import keep_memory
    from splitexit.models import calibrate as calibration

    images = calibration.read_images(bundle, data)
    keep_memory()  # as in the rest of a calibration, and in a process that serves
    return calibration.calibrate_batch(bundle, images, command=command_line())


def _regressed(bundle: Bundle, file: Path) -> Calibration:
    """The present calibration with what regressions say; prints how good they are."""
    from dataclasses import replace

    from splitexit.calibration import Calibration
    from splitexit.models.layers import Profile, regressed

    present, console = Calibration.load(bundle.calibration, bundle.spec), Console(stderr=True)
    if file.exists():
        profile = Profile.load(file)
    else:
        with bar(console, "networks") as progress:
            profile = Profile.measure(bundle.spec.input_shape, progress=progress)
        profile.save(file)
    factors, laws = regressed(bundle, profile)
    for kind, law in laws.laws.items():
        error = "too few to say how far it is off" if isnan(law.mape) else f"{law.mape:.0%} off on layers held out"
        console.print(f"{kind:<8}{law.layers:>4} layers  {law.form:<9}{error}", highlight=False)
    for part, of in factors.items():
        shown = "  ".join(f"{factor:.2f}" for factor in of)
        console.print(f"{part}, regressed relative to measured: {shown}", highlight=False, soft_wrap=True)
    found = replace(present, regressed=factors)
    regrets = _argmin_regrets(bundle, found)
    console.print(
        f"splits chosen by these times take {sum(regrets) / len(regrets):.2%} longer on average than the best, at most "
        f"{max(regrets):.1%} ({len(regrets)} links of 0.1 to 100 Mbit/s, an edge ten times as fast)",
        highlight=False,
        soft_wrap=True,
    )
    return found


def _argmin_regrets(bundle: Bundle, calibration: Calibration) -> list[float]:
    """Of Neurosurgeon on this machine with an edge ten times as fast."""
    from dataclasses import replace

    from splitexit.decision import LinkEstimate, Setting, Utility
    from splitexit.recording import Recording
    from splitexit.regression import argmin_regret

    says, edge = Recording.load(bundle.recording, bundle.spec), calibration.slowed(0.1)
    codecs = {s: tuple(c for c in there if (s, c) in calibration.encode) for s, there in says.codecs().items()}
    links = [LinkEstimate(10 ** (5 + step / 10), rtt_s) for step in range(31) for rtt_s in (0.002, 0.01, 0.05)]
    true = Setting(bundle.spec, calibration, edge, codecs, says.calibration, links[0], Utility(), 1.0)
    believed = replace(true, device=calibration.by_regression(), edge=edge.by_regression())
    return argmin_regret(true, believed, links)


def _remote(bundle: Bundle, edge: str, data: str | None, repetitions: int, gap_s: float) -> Calibration:
    """Of the machine that serves there."""
    from splitexit.live.address import Address
    from splitexit.live.tuning import tune_process

    address = Address.parse(edge, "--edge")
    tune_process()
    from splitexit.live.remote import calibrate_edge
    from splitexit.models.calibrate import read_images

    with bar(Console(stderr=True), "calls") as progress:
        return calibrate_edge(
            bundle,
            address,
            read_images(bundle, data),
            repetitions=repetitions,
            gap_s=gap_s,
            command=command_line(),
            progress=progress,
        )


def _document(measured: Calibration, file: Path) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "file": str(file),
        "machine": dict(measured.machine),
        "made": dict(measured.made),
        "dependence": {"within": measured.dependence.within, "lag1": measured.dependence.lag1},
        "batch": {str(size): factor for size, factor in measured.batch.items()},
        "corun": {str(number): factor for number, factor in measured.corun.items()},
        "regressed": {part: list(factors) for part, factors in measured.regressed.items()},
        "rpc_ms": {"mean": 1e3 * measured.rpc.seconds.mean, "p50": 1e3 * measured.rpc.seconds.median},
    }


def _print(measured: Calibration) -> None:
    """In a few lines, what is not only a number per part."""
    made, dependence = measured.made, measured.dependence
    lines = []
    if "gap_factor" in made:
        lines.append(f"after a pause of {made['gap_ms']:g} ms: {made['gap_factor']:.3f} x the time back to back")
    if "rtt_ms" in made:
        lines.append(f"round trip to {made['edge']}: {made['rtt_ms']:.3f} ms; encoding copied from this machine")
    lines += [
        f"parts of a request: correlation {dependence.within:.2f}, from one request to the next {dependence.lag1:.2f}",
        *_checked(made.get("check", {})),
        f"batches, relative to one sample: {_factors(measured.batch)}",
        f"with so many other busy processes, relative to none: {_factors(measured.corun)}",
    ]
    console = Console(stderr=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


_WORLDS = {"measured_ms": "measured", "dependent_ms": "modelled", "independent_ms": "modelled without dependence"}


def _checked(check: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All stages and heads together, as measured and as drawn."""
    if not check:
        return []
    columns = ("mean", "p50", "p95", "p99")
    head = f"{'all stages and heads, ms':<28}" + "".join(f"{name:>9}" for name in columns)
    return [
        head,
        *(f"  {title:<26}" + "".join(f"{check[key][c]:>9.3f}" for c in columns) for key, title in _WORLDS.items()),
    ]


def _factors(factors: Mapping[int, float]) -> str:
    return "  ".join(f"{number}: {factor:.2f}" for number, factor in factors.items())
