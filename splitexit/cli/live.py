"""serve, device, link: real processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from splitexit.links import Fifo
    from splitexit.results import Completion
    from splitexit.scenario import Spec
    from splitexit.scenario.spec import Use


ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario YAML (see `splitexit init`).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. uplink.mbps=5; repeatable.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow an address that other machines can reach.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(help="Serve a bundle: the edge.")(serve)
    app.command(help="Run a scenario's device against an edge.")(device)
    app.command(help="Emulate a link: a TCP proxy; rates count TCP's bytes.")(link)


def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder with the model (see `splitexit train`).")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = "127.0.0.1:50051",
    workers: Annotated[int, typer.Option(min=1, help="Requests computed at once, each on one thread.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are shed.")] = 64,
    hardware: Annotated[str, typer.Option(help="Machine to stand for (paced); host: as fast as this one is.")] = "host",
    grace_s: Annotated[float, typer.Option(min=0, help="Time for requests under way, when asked to end.")] = 5.0,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Until SIGTERM or Ctrl-C; then what is under way is finished."""
    from splitexit.live.address import Address, check_exposure
    from splitexit.live.tuning import tune_process

    address = Address.parse(listen, "--listen")
    check_exposure(address, insecure)
    address.listener("--listen").close()  # a port in use is said before a model is loaded
    tune_process()
    from splitexit.live.edge import EdgeRuntime
    from splitexit.live.server import EdgeServer

    with _until_signalled() as ended:
        runtime = EdgeRuntime.open(bundle, workers=workers, queue=queue, hardware=hardware)
        server = EdgeServer(runtime, address)
        server.start()
        _announce("edge", server.address, json, bundle=str(bundle), hardware=hardware, workers=workers)
        ended.wait()
        server.stop(grace_s)


@contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """Inside, SIGTERM and Ctrl-C set the event instead of ending the process."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(what: str, address: object, json: bool, **more: object) -> None:
    """The one line that says that something listens, and where."""
    import os
    from json import dumps

    content = {"address": str(address), **more, "pid": os.getpid()}
    facts = ", ".join(f"{key} {value}" for key, value in content.items() if key != "address")
    print(dumps(content) if json else f"{what} ready on {address} ({facts})", flush=True)


def device(
    scenario: ScenarioFile,
    edge: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where `splitexit serve` or `link` listens.")],
    policy: Annotated[str | None, typer.Option(help="Policy label [default: the scenario's devices.policy].")] = None,
    overrides: Overrides = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests, instead of the scenario's number.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed [default: the scenario's].", show_default=False)] = None,
    number: Annotated[int, typer.Option("--device", min=0, help="Which of the scenario's devices this is.")] = 0,
    data: Annotated[str | None, typer.Option(help="The recorded test set [default: the bundle's samples].")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder [default: runs/<time>-<name>].", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Classifies images for real; without an edge it answers locally."""
    from splitexit.live.tuning import tune_process

    tune_process()
    from rich.console import Console

    from splitexit.cli import live_output
    from splitexit.errors import UsageError
    from splitexit.fleet import require_single
    from splitexit.live.address import Address
    from splitexit.live.run import Station
    from splitexit.report.folder import new_folder
    from splitexit.scenario import load

    address, console = Address.parse(edge, "--edge"), Console(stderr=True, highlight=False, soft_wrap=True)
    extra = [] if requests is None else [f"requests={requests}"]
    settings = load(scenario, [*(overrides or []), *extra])
    require_single(settings)
    label, chosen = policy or settings.policy_label, settings.seed if seed is None else seed
    settings.policy(label)
    if number >= settings.devices.count:
        raise UsageError(f"--device {number}: the scenario has devices 0..{settings.devices.count - 1}")
    folder = new_folder(out, settings.name)
    console.print(f"device {number}: {settings.requests} requests with policy {label}, edge {address}")
    rows: list[Completion] = []
    station = Station.open(settings, data)
    with station.connect(address, console.print) as client:
        late = 0
        try:
            with live_output.progress(console, settings.requests, rows) as sink:
                late = station.run(label, chosen, client, sink, number)
        except KeyboardInterrupt:
            console.print(f"interrupted: {len(rows)} of {settings.requests} requests were answered, and are kept")
    live_output.write(station.experiment, label, chosen, rows, late, folder, json)
    if len(rows) < settings.requests:
        raise typer.Exit(INTERRUPTED)


def link(
    to: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to pass everything on.", show_default=False)
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = "127.0.0.1:0",
    up: Annotated[
        str, typer.Option(help="Link towards --to, written as in a scenario.")
    ] = "{name: constant, mbps: 5.85, delay_ms: 10}",
    down: Annotated[str, typer.Option(help="Link back.")] = "{name: constant, mbps: 13, delay_ms: 10}",
    scenario: Annotated[
        Path | None, typer.Option(help="Take both links from this scenario instead.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For links that vary by chance.")] = 0,
    number: Annotated[int, typer.Option("--device", min=0, help="Whose links these are, for their chance.")] = 0,
    self_test: Annotated[bool, typer.Option("--self-test", help="Measure the errors over loopback, and end.")] = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Rates count the bytes that TCP carries; a trace begins with the first byte.

    Until SIGTERM or Ctrl-C; then it says how exact it was.
    """
    from splitexit.cli.live_output import show_link
    from splitexit.errors import UsageError
    from splitexit.live.address import Address, check_exposure
    from splitexit.live.link import LinkProxy
    from splitexit.live.linkcheck import measure

    links = _links(up, down, scenario, seed, number)
    if self_test:
        show_link(measure(*links), json)
        return
    if to is None:
        raise UsageError("--to: expected HOST:PORT of the edge, or --self-test")
    address, target = Address.parse(listen, "--listen"), Address.parse(to, "--to")
    check_exposure(address, insecure)
    with _until_signalled() as ended, LinkProxy(address, target, *links) as proxy:
        _announce("link", proxy.address, json, to=to)
        ended.wait()
        show_link(proxy.summary(), json)


def _links(up: str, down: str, scenario: Path | None, seed: int, number: int) -> tuple[Fifo, Fifo]:
    """Both directions, with their chance drawn as in the simulator."""
    from splitexit.fleet import require_single
    from splitexit.links import Fifo
    from splitexit.scenario import load
    from splitexit.scenario.spec import DOWNWARD, UPWARD
    from splitexit.streams import DOWNLINK, UPLINK, stream

    if scenario is None:
        specs = (_link_spec(up, "--up", UPWARD), _link_spec(down, "--down", DOWNWARD))
    else:
        read = load(scenario)
        require_single(read)
        specs = read.links(read.devices)
    links = [spec.create() for spec in specs]
    for one, kind in zip(links, (UPLINK, DOWNLINK), strict=True):
        one.reseed(stream(seed, kind, number))
    return Fifo(links[0]), Fifo(links[1])


def _link_spec(text: str, option: str, use: Use) -> Spec:
    """A link as a scenario would name it; raises InputError with all that is wrong."""
    from splitexit.errors import ScenarioError, UsageError
    from splitexit.scenario import Folders, strict_yaml
    from splitexit.scenario.spec import parse

    document = strict_yaml.parse(text, option)
    if document.problems:
        raise ScenarioError(option, document.problems)
    try:
        return parse("link", document.value, Folders(Path.cwd(), Path.cwd()), use)
    except ValueError as error:
        wrong: Any = error  # pydantic's ValidationError: its messages are finished sentences
        found = "; ".join(one["msg"] for one in wrong.errors())
        raise UsageError(f"{option} {text!r}: {found}") from None
