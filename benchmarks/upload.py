"""How well `transport: tcp` foretells uploads over real TCP: raw, and in gRPC calls as devices make them.

Over the TUN network (splitexit.live.shaper): IP packets between network namespaces take the time that a link of the
given rate and delay would take for them; TCP is the kernel's (cubic). Every case is a connection that carries
messages of one size: on a fresh window, then on a warm one, after 0.3 s and after 1 s without traffic; and, as `mixed`,
small messages before a large one. Time counts from handing a message over to its last byte at the far side; of a gRPC
call, to the start of its handler, less what a call of 1 KiB takes on an unshaped network after as long a pause. The
least of some rounds, because other work on the machine only ever adds.

Right means: within 5 % or 0.5 ms, whichever is more. `--explain` sends the same uploads through the TCP proxy as well,
where both ends see a loopback TCP, and accounts for the difference. Needs Linux, root, iproute2 and /dev/net/tun:

    sudo python benchmarks/upload.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.endpoints import (
    DATA_BYTES,
    FIRST,
    FRAME_BYTES,
    KB,
    LONGEST_S,
    LOOPBACK,
    PREFIX_BYTES,
    Bench,
    Message,
    Plan,
    header_bytes,
    send,
    serve,
    started,
)
from splitexit.errors import ProcessError, UsageError
from splitexit.links import PACKET_BYTES, Fifo
from splitexit.links._tcp import wire_bytes
from splitexit.links.constant import Constant
from splitexit.live.link import LinkProxy
from splitexit.live.tun import TunNetwork

SIZES = (KB, 4 * KB, 16 * KB, 64 * KB, 256 * KB, 1024 * KB)
RATES_MBPS = (1.0, 5.0, 10.0, 50.0, 100.0)
DELAYS_MS = (0.0, 5.0, 20.0, 50.0)
EXPLAINED_SIZES, EXPLAINED_LINKS = (8 * KB, 64 * KB, 1024 * KB), ((10.0, 5.0), (10.0, 50.0), (100.0, 20.0))
QUICK = ((KB, 64 * KB, 256 * KB), (10.0, 100.0), (5.0, 20.0))

STATES = (("fresh", 0.0), ("warm", 0.0), ("idle 0.3 s", 0.3), ("idle 1 s", 1.0))
"""Before each message, and how long nothing was sent since the answer to the one before."""

SHARE, LEAST_S = 0.05, 0.0005
"""How much a foretold time may be off: the larger of that share and that time."""

TICK_S = 0.004
"""Of Linux's clock, by default (CONFIG_HZ_250)."""

TOGETHER_MBPS = 20.0
"""Slow links are measured several at a time, each with a device of its own, up to this rate together."""


def near(model_ms: float, real_ms: float) -> bool:
    """Whether a time is foretold well enough."""
    return abs(model_ms - real_ms) <= max(SHARE * real_ms, 1e3 * LEAST_S)


@dataclass(frozen=True)
class Case:
    """One message: over what link, how, how large, in what state of the connection, and how long it takes."""

    mbps: float
    delay_ms: float
    way: str
    state: str
    size_bytes: int
    real_ms: float
    model_ms: float
    why: str = ""

    @property
    def error(self) -> float:
        """Relative."""
        return self.model_ms / self.real_ms - 1.0

    @property
    def right(self) -> bool:
        """Whether it is foretold well enough."""
        return near(self.model_ms, self.real_ms)


def plans(sizes: Sequence[int]) -> list[Plan]:
    """One connection each."""
    same = [[Message(state, gap_s, size) for state, gap_s in STATES] for size in sizes]
    mixed = [Message("mixed", 0.0, size) for size in sizes if size <= 256 * KB for _ in (1, 2)]
    return [*same, mixed]


def modelled_s(mbps: float, delay_ms: float, plan: Plan, way: str, first_bytes: int, later_bytes: int) -> list[float]:
    """What the model says; `first_bytes` and `later_bytes` are the headers of a connection's calls."""
    fifo, now_s, found = Fifo(Constant(mbps=mbps, delay_ms=delay_ms, transport="tcp")), 0.0, []
    for number, message in enumerate(plan):
        now_s += message.gap_s
        size_bytes = message.size_bytes
        if way == "grpc":
            size_bytes += PREFIX_BYTES
            size_bytes += FRAME_BYTES * ceil(size_bytes / DATA_BYTES) + (later_bytes if number else first_bytes)
        arrive_s = fifo.send(now_s, size_bytes)[2]
        found.append(arrive_s - now_s)
        now_s = arrive_s + delay_ms / 1000.0
    return found


def measure(sizes: Sequence[int], rates: Sequence[float], delays: Sequence[float], rounds: int) -> Iterator[Case]:
    """Every case, as soon as it is measured."""
    links = [(mbps, delay_ms, way) for mbps in rates for delay_ms in delays for way in ("raw", "grpc")]
    most, what = max(int(min(TOGETHER_MBPS / min(rates), 2 * len(delays))), 1), plans(sizes)
    with Bench.open(most) as bench:
        headers, call_s = header_bytes(), bench.unshaped_s()
        calls = ", ".join(f"{1e3 * of_call:.2f} ms after {pause:g} s" for pause, of_call in call_s.items())
        print(f"a gRPC call: {calls} (inf: the first); headers {headers[0]}, then {headers[1]} bytes", file=sys.stderr)
        while links:
            count = max(1, min(most, int(TOGETHER_MBPS / links[0][0])))
            now = [link for link in links[:count] if link[0] == links[0][0]]
            links = links[len(now) :]
            for link, found in zip(now, bench.upload(now, what, rounds), strict=True):
                for plan, times_s in zip(what, found, strict=True):
                    model = modelled_s(link[0], link[1], plan, link[2], *headers)
                    for number, (message, real_s, model_s) in enumerate(zip(plan, times_s, model, strict=True)):
                        if link[2] == "grpc":  # the far side sleeps while the message is on its way
                            pause_s = message.gap_s + model_s if number else FIRST
                            real_s -= call_s[max(pause for pause in call_s if pause <= pause_s)]
                        case = Case(*link, message.state, message.size_bytes, 1e3 * real_s, 1e3 * model_s)
                        yield case if case.right else replace(case, why=reason(case, plan, headers))


def reason(case: Case, plan: Plan, headers: tuple[int, int]) -> str:
    """Why a case is off, as far as that can be told.

    The number of halvings after an idle time jumps where that is a multiple of the RTO, which Linux counts in ticks of
    its clock. A tail loss probe (RFC 8985, section 7) sends the last segment again where acknowledgements take longer
    than twice the smoothed round trip and two ticks, as they do for two segments on a slow link without delay.
    """
    number = next(n for n, one in enumerate(plan) if (one.state, one.size_bytes) == (case.state, case.size_bytes))
    for factor in (1.0 - SHARE, 1.0 + SHARE):
        other = [replace(message, gap_s=factor * message.gap_s) for message in plan]
        if near(1e3 * modelled_s(case.mbps, case.delay_ms, other, case.way, *headers)[number], case.real_ms):
            return "idle for about a multiple of the RTO"
    segments_ms = 2 * 8e-3 * PACKET_BYTES / case.mbps
    return "a tail loss probe" if segments_ms > 4.0 * case.delay_ms + 2e3 * TICK_S else "other work on the machine?"


def explain(rounds: int) -> Iterator[dict[str, float | str]]:
    """The same uploads over the proxy and over TUN, and what the model says of the difference, in ms.

    headers  of IP and TCP: 52 bytes for each segment of 1448
    window   waited for acknowledgements; `round_trips` of them
    rest_ms  what the model leaves unexplained
    """
    what = plans(EXPLAINED_SIZES)[:-1]
    with Bench.open(1) as bench, ExitStack() as stack:
        edge, device = started(stack, "edge", serve, None, LOOPBACK.host), started(stack, "device", send, None)
        device.expect("there")
        (to,) = edge.expect("listening")
        proxy = stack.enter_context(LinkProxy(LOOPBACK, to["raw"]))
        for mbps, delay_ms in EXPLAINED_LINKS:
            (real,) = bench.upload([(mbps, delay_ms, "raw")], what, rounds)
            made = Constant(mbps=mbps, delay_ms=delay_ms)
            proxy.begin(Fifo(made), Fifo(made), time.monotonic())
            device.tell("upload", what, "raw", rounds, proxy.address)
            proxied = device.expect("took", LONGEST_S)[0]
            proxy.end()
            for plan, over_tun_s, over_proxy_s in zip(what, real, proxied, strict=True):
                model = modelled_s(mbps, delay_ms, plan, "raw", 0, 0)
                for message, *times_s in zip(plan, over_proxy_s, over_tun_s, model, strict=True):
                    yield account(mbps, delay_ms, message, *times_s)


def account(
    mbps: float, delay_ms: float, message: Message, proxy_s: float, tun_s: float, model_s: float
) -> dict[str, float | str]:
    """A line of `explain`."""
    size_bytes = message.size_bytes
    bare_s = Fifo(Constant(mbps=mbps, delay_ms=delay_ms)).send(0.0, size_bytes)[2]
    headers_s = 8e-6 * (wire_bytes(size_bytes) - size_bytes) / mbps
    window_s = round(max(0.0, model_s - bare_s - headers_s), 9)
    return {
        "mbps": mbps,
        "delay_ms": delay_ms,
        "state": message.state,
        "bytes": size_bytes,
        "proxy_ms": 1e3 * proxy_s,
        "tun_ms": 1e3 * tun_s,
        "headers_ms": 1e3 * headers_s,
        "window_ms": 1e3 * window_s,
        "round_trips": window_s / (2e-3 * delay_ms) if delay_ms else 0.0,
        "rest_ms": 1e3 * (tun_s - proxy_s - headers_s - window_s),
    }


def show(case: Case) -> str:
    """A line of the table."""
    link = f"{case.mbps:7g} {case.delay_ms:4g} {case.way:5} {case.state:10} {case.size_bytes:8d}"
    return (
        f"{link} {case.model_ms:9.2f} {case.real_ms:9.2f} {case.error:+7.1%} {'' if case.right else f'off: {case.why}'}"
    )


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """How many are right, and how wrong they are."""
    if not cases:
        return {"cases": 0}
    errors = sorted(abs(case.error) for case in cases)
    return {
        "cases": len(cases),
        "right_percent": 100.0 * sum(case.right for case in cases) / len(cases),
        "median_error_percent": 100.0 * median(errors),
        "p90_error_percent": 100.0 * errors[len(errors) * 9 // 10],
        "worst_error_percent": 100.0 * errors[-1],
    }


def show_account(rounds: int, as_json: bool) -> None:
    """What the proxy leaves out, as a table or a document."""
    rows = list[dict[str, float | str]]()
    for row in explain(rounds):
        if not as_json:
            if not rows:
                print(" ".join(f"{key:>11}" for key in row))
            print(
                " ".join(f"{one:>11}" if isinstance(one, str) else f"{one:11.6g}" for one in row.values()), flush=True
            )
        rows.append(row)
    if as_json:
        print(json.dumps(rows))


def main() -> None:
    """Measures and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few sizes, rates and delays")
    parser.add_argument("--explain", action="store_true", help="the same uploads over the proxy, and the difference")
    parser.add_argument("--json", action="store_true", help="one document instead of the table")
    options = parser.parse_args()
    try:
        TunNetwork.require()
    except UsageError as error:
        raise SystemExit(str(error)) from None
    if options.explain:
        show_account(options.rounds, options.json)
    else:
        show_cases(QUICK if options.quick else (SIZES, RATES_MBPS, DELAYS_MS), options.rounds, options.json)


def show_cases(grid: tuple[Sequence[int], Sequence[float], Sequence[float]], rounds: int, as_json: bool) -> None:
    """How well the model foretells the grid, as a table or a document; what there is if a process fails on the way."""
    cases, failed = list[Case](), ""
    if not as_json:
        print(
            f"{'Mbit/s':>7} {'ms':>4} {'way':5} {'state':10} {'bytes':>8} {'model ms':>9} {'real ms':>9} {'error':>7}"
        )
    try:
        for case in measure(*grid, rounds):
            cases.append(case)
            if not as_json:
                print(show(case), flush=True)
    except ProcessError as error:
        failed = str(error)
    if as_json:
        print(json.dumps({"summary": summary(cases), "cases": [asdict(case) for case in cases], "failed": failed}))
    elif cases:
        print(", ".join(f"{key} {value:.3g}" for key, value in summary(cases).items()))
        for way in ("raw", "grpc"):
            wrong = sorted((c for c in cases if c.way == way), key=lambda c: (c.right, -abs(c.error)))[:8]
            print(f"worst, {way}:", *map(show, wrong), sep="\n")
    if failed:
        raise SystemExit(f"stopped after {len(cases)} cases: {failed}")


if __name__ == "__main__":
    main()
