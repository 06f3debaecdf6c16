"""link: an emulated link between real processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.serving import Insecure, Json, announce, until_signalled

if TYPE_CHECKING:
    from splitexit.links import Fifo
    from splitexit.scenario import Spec
    from splitexit.scenario.spec import Use

GRID_MBPS, GRID_DELAYS_MS = (1.0, 10.0, 50.0, 100.0), (0.0, 20.0)


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Emulate a link: a TCP proxy; rates count TCP's bytes.")(link)


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
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Measure errors of rate and delay on this machine, and end.")
    ] = False,
    network: Annotated[
        str, typer.Option(help="For --self-test: proxy, tun or tbf; the last two on Linux as root.")
    ] = "proxy",
    grid: Annotated[
        bool, typer.Option("--grid", help="Self-test at 1 to 100 Mbit/s, without delay and with 20 ms.")
    ] = False,
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

    if grid or self_test:
        chosen = _grid(network) if grid else iter([("", _links(up, down, scenario, seed, number))])
        _self_test(network, chosen, json)
        return
    if network != "proxy":
        raise UsageError("--network: only for --self-test; processes get such links by `splitexit live --network`")
    links = _links(up, down, scenario, seed, number)
    if to is None:
        raise UsageError("--to: expected HOST:PORT of the edge, or --self-test")
    address, target = Address.parse(listen, "--listen"), Address.parse(to, "--to")
    check_exposure(address, insecure)
    with until_signalled() as wait, LinkProxy(address, target, *links) as proxy:
        announce("link", proxy.address, json, to=to)
        wait()
        show_link(proxy.summary(), json)


def _grid(network: str) -> Iterator[tuple[str, tuple[Fifo, Fifo]]]:
    """Links to test; without delay where the kernel has none to offer."""
    from splitexit.links import Fifo
    from splitexit.links.constant import Constant
    from splitexit.live.tbf import has

    delays_ms = GRID_DELAYS_MS if network != "tbf" or has("netem") else (0.0,)
    for mbps in GRID_MBPS:
        for delay_ms in delays_ms:
            made = Constant(mbps=mbps, delay_ms=delay_ms)
            yield f"{mbps:g} Mbit/s, {delay_ms:g} ms", (Fifo(made), Fifo(made))


def _self_test(network: str, chosen: Iterator[tuple[str, tuple[Fifo, Fifo]]], json: bool) -> None:
    """Measures links one after the other and prints how exact each is."""
    from splitexit.live.linkcheck import opened
    from splitexit.report.folder import to_json

    tests = []
    with opened(network) as measured:
        for name, links in chosen:
            found = measured(*links)
            tests.append({"link": name, **found} if name else found)
            if not json:
                _show(name, found)
    if json:
        print(to_json({"network": network, "tests": tests}))


def _show(name: str, found: Mapping[str, Any]) -> None:
    from splitexit.live.linkcheck import DELAY_MS, RATE_PERCENT, kept

    print(f"{name}{': ' if name else ''}rates count {found['layer']}")
    for direction in ("up", "down"):
        of = found[direction]
        rate = f"rate {of['rate_error_percent']:+.3f} %"
        delay = f"added delay {of['added_delay_ms_p50']:.3f} ms (median), {of['added_delay_ms_p99']:.3f} ms (p99)"
        print(f"  {direction}: {rate}, {delay}{', lost ' + str(of['lost']) if of['lost'] else ''}")
    if not kept(found):
        print(f"  more than {RATE_PERCENT:g} % or {DELAY_MS:g} ms off: is this machine busy?")


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
