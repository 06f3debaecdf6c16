"""Commands that make a bundle: train, train-codec, record; calibrate stands in a file of its own.

This file must import on a machine that has torch, typer and rich but neither pydantic nor grpc, so that a bare
GPU machine can train: `python -c "from splitexit.cli.models import app_main; app_main()" train …`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from splitexit.cli.progress import bar, command_line, goes_on, in_percent, interruptible, watching
from splitexit.errors import SplitexitError, UsageError

if TYPE_CHECKING:
    from splitexit.bundle import Bundle
    from splitexit.models.train_codec import CodecRecipe, CodecReport


BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")]


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(train)
    app.command()(train_codec)
    app.command()(record)


def app_main() -> None:
    """These commands alone, for machines that lack what the other commands need."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    register(app)
    app.callback()(lambda: None)
    try:
        app()
    except SplitexitError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)


def train(
    data: Annotated[str, typer.Option(help="Parquet file, folder of images, or Hugging Face data set.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to make.")],
    test: Annotated[str | None, typer.Option(help="Test images, looked at once at the end.")] = None,
    backbone: Annotated[str, typer.Option(help="name or name:key=value,key=value")] = "resnet",
    depth: Annotated[int | None, typer.Option(help="Short for the backbone's depth.")] = None,
    exits: Annotated[
        str,
        typer.Option(
            help="Where exits go, in percent of the exit-free network's cost; or fine:N, linear:N, golden:N, pareto:N; "
            "or none."
        ),
    ] = "15,30,45,60,75,90",
    head: Annotated[
        str,
        typer.Option(help="Exit head: pooled, conv, bof, sdn, eenet, exclusion, sidenet, msdnet; or name:key=value"),
    ] = "pooled",
    objective: Annotated[
        str,
        typer.Option(
            help="joint:weights=cost (uniform, sdn, linear, 0.3/0.6/1), block-dependent:reach=2,final=true, eenet or "
            "exclusion"
        ),
    ] = "joint",
    coupling: Annotated[
        float, typer.Option(help="Share of the early exits' gradient that reaches the backbone.")
    ] = 1.0,
    cuts: Annotated[str, typer.Option(help="A stage ends behind all exits or behind all blocks.")] = "exits",
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch: Annotated[int, typer.Option(min=1)] = 128,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the one-cycle schedule.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    augment: Annotated[str, typer.Option(help="crop-flip, crop or none")] = "crop-flip",
    validation: Annotated[float, typer.Option(help="Share of the training images kept apart.")] = 0.1,
    resize: Annotated[int | None, typer.Option(min=8, help="Scale images to this height and width.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    init: Annotated[
        str | None, typer.Option(help="Bundle whose backbone and final head to start from, e.g. the exit-free twin.")
    ] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Train the early heads alone; the rest stays as --init gave it.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs; the same command goes on.")
    ] = None,
) -> None:
    """Train a multi-exit network and write its bundle; the same command goes on where it was stopped."""
    from splitexit.models.placement import parse_exits
    from splitexit.models.recipe import Recipe
    from splitexit.models.spec import parse_spec
    from splitexit.models.train import train as run

    spec = parse_spec(backbone) | ({} if depth is None else {"depth": depth})
    recipe = Recipe(
        backbone=spec,
        shares=parse_exits(exits),
        head=parse_spec(head),
        objective=parse_spec(objective),
        coupling=coupling,
        cuts=cuts,
        epochs=epochs,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        augment=augment,  # type: ignore[arg-type]  # Batches checks it
        validation=validation,
        resize=resize,
        limit=limit,
        precision=precision,
        seed=seed,
        init=init,
        freeze=freeze,
    )
    console = Console(stderr=True)
    with interruptible(console, goes_on(out)), watching(console) as watcher:
        bundle = run(
            recipe,
            source=data,
            test=test,
            out=out,
            device=device,
            command=command_line(),
            watcher=watcher,
            stop_after=stop_after,
        )
    if bundle is None:
        console.print(f"stopped after epoch {stop_after} of {epochs}; the same command goes on from there")
    else:
        print(bundle.path)


def train_codec(
    bundle: BundleFolder,
    codec: Annotated[
        str,
        typer.Option(
            help="Trained: bottleneck:channels=4, aecnn:channels=8, bottlenetpp:channels=4,stride=2, "
            "progressive:channels=8, entropic:channels=8 or crbq:channels=4. Fitted: range:bits=4,per=channel or "
            "channels:keep=8."
        ),
    ],
    split: Annotated[str, typer.Option(help="1,3,5 or 2-5 or all")] = "all",
    data: Annotated[str | None, typer.Option(help="Training images [default: as model.json says].")] = None,
    levels: Annotated[
        int | None, typer.Option(help="Bottleneck: levels in use; fewer make smaller payloads [default: 16].")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value for the codec's own training, repeatable. aecnn: order=random, sparsity=1; bottlenetpp: "
            "over=awgn or erasure, noise=0.1; entropic: rate=0.02, target=100 (bytes)."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Of every stage [default: 2].")] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Images to use: training images, or of the validation split to fit [20000; 1000]."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Of Adam, at the start [default: 0.005].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="[default: 0]")] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Then fine-tune codec and network together, which makes a new bundle.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of that bundle [default: BUNDLE-joint].")] = None,
    joint_option: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value for the joint training, repeatable: epochs=4, lr=0.001, images, distil=0.5, local=0.25."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
) -> None:
    """Train, or fit on the validation split, a codec for the features at each split of a bundle."""
    from splitexit.bundle import Bundle
    from splitexit.models import fit_codec, train_codec

    opened = Bundle.open(bundle)
    splits = parse_splits(split, opened.spec.num_stages)
    if not joint and (out or joint_option):
        raise UsageError("--out and --joint-option are for --joint")
    training = _given(levels=levels, option=option or None, epochs=epochs, lr=lr, seed=seed, joint=joint or None)
    fitted = fit_codec.is_fitted(codec)
    if fitted and training:
        raise UsageError(f"--{next(iter(training))}: {codec} is fitted, not trained")
    source = data or _source(opened, "train", "--data")
    console = Console(stderr=True)
    options = _given(levels=levels) | parse_options(option or [])
    recipe = train_codec.CodecRecipe(options, **_given(epochs=epochs, images=images, lr=lr, seed=seed))
    if joint:
        tuning = parse_options(joint_option or [])
        print(_train_joint(opened, codec, splits, recipe, tuning, source=source, out=out, device=device))
        return
    with interruptible(console, goes_on(opened.codec_weights)), bar(console, "steps") as progress:
        if fitted:
            reports = fit_codec.fit_codec(opened, codec, splits, source=source, device=device, **_given(images=images))
        else:
            reports = train_codec.train_codec(
                opened, codec, splits, recipe, source=source, device=device, progress=progress
            )
        for report in reports:
            console.print(_codec_line(report), highlight=False, soft_wrap=True)
    print(opened.codec_weights)


def _train_joint(
    bundle: Bundle,
    codec: str,
    splits: Sequence[int],
    recipe: CodecRecipe,
    tuning: Mapping[str, Any],
    *,
    source: str,
    out: Path | None,
    device: str,
) -> Path:
    """One codec at one split, with the network; returns the new bundle's folder."""
    from splitexit.models.train_joint import JointRecipe, train_joint

    if len(splits) != 1:
        raise UsageError(
            f"--joint: the network becomes another one for one split; give --split {splits[0]}, not several"
        )
    folder = out or bundle.path.resolve().with_name(f"{bundle.path.resolve().name}-joint")
    console = Console(stderr=True)
    with bar(console, "steps") as progress:
        report = train_joint(
            bundle,
            codec,
            splits[0],
            recipe,
            JointRecipe.of(tuning),
            source=source,
            out=folder,
            device=device,
            command=command_line(),
            progress=progress,
        )
    lines = [_codec_line(one) for one in report.codecs]
    lines.append(f"on the frozen network {report.frozen:.2%}")
    lines.append(
        f"without a codec, validation % by exit {in_percent(report.exits)}, before {in_percent(report.before)}"
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return folder


def _codec_line(report: CodecReport) -> str:
    return (
        f"split {report.split}  {'×'.join(map(str, report.shape)):>9}  {report.payload_bytes:7.1f} bytes  "
        f"validation {report.accuracy:.2%}, without the codec {report.plain_accuracy:.2%}  {report.codec_id}"
    )


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """`["order=random"]` -> `{"order": "random"}`; raises UsageError."""
    from splitexit.models.spec import parse_spec

    found = parse_spec(f"--option:{','.join(options)}")
    return {key: value for key, value in found.items() if key != "name"}


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; what is left out has its default where it is used."""
    return {name: value for name, value in options.items() if value is not None}


def record(
    bundle: BundleFolder,
    data: Annotated[str | None, typer.Option(help="Test images [default: as model.json says].")] = None,
    train: Annotated[str | None, typer.Option(help="Training images, for the calibration split.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="codec@split or codec@all; repeatable [default: a useful set].")
    ] = None,
    edge_exits: Annotated[str, typer.Option(help="Edge exits behind a lossy codec: final or all.")] = "final",
    logits: Annotated[bool, typer.Option(help="Store logits too: rules max_logit and exclusion.")] = False,
    distort: Annotated[
        list[str] | None,
        typer.Option(help="noise=SIGMA or blur=SIGMA; repeatable: every sample once more under it, as a context."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples of each part.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Test images to put into the bundle for live runs.")] = 300,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [default: all cores].")] = None,
    fresh: Annotated[bool, typer.Option(help="Replace a recording made with other options.")] = False,
) -> None:
    """Record what a bundle says of every test sample, at every exit and behind every codec."""
    from splitexit.bundle import Bundle
    from splitexit.models import record as recording

    if edge_exits not in ("final", "all"):
        raise UsageError(f"--edge-exits: expected final or all, found {edge_exits!r}")
    opened = Bundle.open(bundle)
    pairs = [p for text in pair or () for p in recording.parse_pair(text, opened)]
    parts = recording.read_parts(
        opened, train or _source(opened, "train", "--train"), data or _source(opened, "test", "--data"), limit
    )
    console = Console(stderr=True)
    with interruptible(console, goes_on(opened.path)), bar(console, "samples") as progress:
        recording.record(
            opened,
            recording.distorted(opened, parts, distort or ()),
            pairs or recording.default_pairs(opened),
            all_edge_exits=edge_exits == "all",
            keep_logits=logits,
            fresh=fresh,
            workers=workers or recording.all_cores(),
            command=command_line(),
            progress=progress,
        )
    if samples:
        recording.write_samples(opened, parts[1], samples)
    print(opened.recording)


def parse_splits(text: str, stages: int) -> list[int]:
    """`"1,3"`, `"2-5"` or `"all"`, each of 1..stages-1; raises UsageError."""
    if text == "all":
        return list(range(1, stages))
    try:
        bounds = [part.split("-") for part in text.split(",")]
        splits = [s for first, *last in bounds for s in range(int(first), int((last or [first])[0]) + 1)]
    except ValueError:
        splits = []
    if not splits or min(splits) < 1 or max(splits) >= stages:
        raise UsageError(f"--split {text!r}: expected 1,3 or 2-5 or all, each of 1..{stages - 1}")
    return splits


def _source(bundle: Bundle, kind: str, option: str) -> str:
    """Where the bundle's training took these images from; raises UsageError where it does not say."""
    source = bundle.spec.training.get("data", {}).get(kind)
    if source is None:
        raise UsageError(f"{bundle.path}: model.json does not say where its {kind} images are; give {option}")
    return str(source)
