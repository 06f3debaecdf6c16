"""`splitexit link --self-test`: what it measures, against links whose errors are known, and what it refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from splitexit.errors import UnknownNameError, UsageError
from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.live import linkcheck
from splitexit.live.linkcheck import kept, opened
from tests.live_process import here, run
from tests.tun_machine import needs_tbf, needs_tun, own_spaces, why_not

LOOSE_MS = 30.0
"""A shared machine; how exact links are on an idle one, `splitexit link --self-test --grid` says."""


def pair(mbps: float = 8.0, delay_ms: float = 10.0) -> tuple[Fifo, Fifo]:
    """The same up and down."""
    return Fifo(Constant(mbps=mbps, delay_ms=delay_ms)), Fifo(Constant(mbps=mbps, delay_ms=delay_ms))


def check(found: dict[str, Any], layer: str) -> None:
    """Both directions were measured, and nothing arrived before its time."""
    assert found["layer"] == layer
    for direction in ("up", "down"):
        of = found[direction]
        assert of["lost"] == 0
        assert abs(of["rate_error_percent"]) < 10.0
        assert 0.0 < of["added_delay_ms_p50"] < LOOSE_MS
        assert of["added_delay_ms_p50"] <= of["added_delay_ms_p99"]


@pytest.mark.serial
def test_a_proxy() -> None:
    """Its rates count what TCP carries. Several links, one after the other, by the same processes."""
    with opened("proxy") as measured:
        check(measured(*pair()), "TCP payload")
        check(measured(*pair(80.0, 0.0)), "TCP payload")


@pytest.mark.serial
@needs_tun
def test_packets() -> None:
    """The rate counts headers; nothing is left behind. A link by TCP is one of bare packets here."""
    before = own_spaces()
    with opened("tun") as measured:
        check(measured(*pair()), "IP")
        tcp = Constant(mbps=8.0, delay_ms=10.0, transport="tcp")
        check(measured(Fifo(tcp), Fifo(tcp)), "IP")
    assert own_spaces() == before


@pytest.mark.serial
@needs_tun
def test_a_wrong_link_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is told 5 % less rate and 3 ms more delay than the paper says."""
    begin = linkcheck._Tunnelled.begin

    def slower(ends: Any, up: Fifo, down: Fifo, origin_s: float) -> None:
        worse = Fifo(Constant(mbps=8.0 * 0.95, delay_ms=13.0))
        begin(ends, worse, down, origin_s)

    monkeypatch.setattr(linkcheck._Tunnelled, "begin", slower)
    with opened("tun") as measured:
        found = measured(*pair())
    assert found["up"]["rate_error_percent"] == pytest.approx(-5.0, abs=3.0)
    assert found["up"]["added_delay_ms_p50"] >= 3.0
    assert not kept(found)


@pytest.mark.serial
@needs_tbf
def test_the_kernel_s_bucket() -> None:
    """A lone packet finds the bucket full and goes at once: the added delay may be negative."""
    with opened("tbf") as measured:
        found = measured(*pair(8.0, 0.0))
        assert abs(found["up"]["rate_error_percent"]) < 10.0
        with pytest.raises(UsageError, match="^--network tbf: its delay varies; take --network tun$"):
            jittery = Fifo(Constant(mbps=8.0, jitter_ms=1.0))
            measured(jittery, jittery)


def test_a_network_that_nobody_knows() -> None:
    with pytest.raises(UnknownNameError, match="unknown network 'tunn'; did you mean 'tun'"), opened("tunn"):
        pass


@pytest.mark.parametrize(
    ("change", "well"),
    [
        ({}, True),
        ({"rate_error_percent": -0.9}, True),
        ({"rate_error_percent": 1.1}, False),
        ({"rate_error_percent": math.nan}, False),
        ({"added_delay_ms_p50": 1.1}, False),
        ({"added_delay_ms_p99": 90.0}, True),
        ({"lost": 1}, False),
    ],
)
def test_what_is_expected_of_a_link(change: dict[str, float], well: bool) -> None:
    """1 % of the rate, 1 ms of delay in the median, in both directions."""
    good = {"rate_error_percent": 0.2, "added_delay_ms_p50": 0.1, "added_delay_ms_p99": 0.3, "lost": 0}
    assert kept({"up": good, "down": good | change}) is well


def test_arithmetic_by_hand() -> None:
    """1500 bytes take 1.5 ms; numbers tell which of them came."""
    fifo = Fifo(Constant(mbps=8.0))
    left, came = {0: 0.0, 1: 0.0, 2: 0.0}, {0: 0.0015, 2: 0.0046}
    assert linkcheck._late_s(fifo.fork(), left, came, 1500, 0.0) == pytest.approx([0.0, 0.0001])
    error = linkcheck._rate_error_percent(fifo.fork(), left, came, 0.0)
    assert error == pytest.approx(100 * (0.003 / 0.0031 - 1))


def test_the_rate_by_those_that_were_least_late() -> None:
    """A link of 1 % less rate; that some were late, the first of all among them, does not count."""
    left = dict.fromkeys(range(100), 0.0)
    came = {number: 10.0 + 0.0015 * (number + 1) / 0.99 for number in left}
    came |= {number: came[number] + 0.020 for number in (0, 1, 50, 97, 99)}
    error = linkcheck._rate_error_percent(Fifo(Constant(mbps=8.0)), left, came, 10.0)
    assert error == pytest.approx(-1.0, abs=1e-6)


def test_the_command() -> None:
    """One line for each direction, or a document."""
    links = ("--up", "{name: constant, mbps: 50}", "--down", "{name: constant, mbps: 50, delay_ms: 5}")
    done = run("link", "--self-test", *links)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "rates count TCP payload"
    assert [line.split()[0] for line in lines[1:3]] == ["up:", "down:"]
    document = json.loads(run("link", "--self-test", *links, "--json").stdout)
    assert document["network"] == "proxy"
    (found,) = document["tests"]
    assert {"rate_error_percent", "added_delay_ms_p50", "added_delay_ms_p99", "lost"} == set(found["up"])


def test_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rate with and without delay; without where the kernel has none to offer."""
    from splitexit.cli import link

    assert len(list(link._grid("tun"))) == len(link.GRID_MBPS) * len(link.GRID_DELAYS_MS)
    monkeypatch.setattr("splitexit.live.tbf.has", lambda discipline: False)
    names = [name for name, _ in link._grid("tbf")]
    assert names == [f"{mbps:g} Mbit/s, 0 ms" for mbps in link.GRID_MBPS]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--self-test", "--network", "tunn"), "unknown network 'tunn'; did you mean 'tun'?"),
        (("--to", "127.0.0.1:9", "--network", "tun"), "--network: only for --self-test"),
    ],
)
def test_refusals_of_the_command(arguments: tuple[str, ...], what: str) -> None:
    done = here("link", *arguments)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("network", ["tun", "tbf"])
def test_a_machine_that_cannot_says_so(network: str) -> None:
    """Where it can, `require` says nothing; where not, the command repeats it in one line."""
    if what := why_not(network):
        done = here("link", "--self-test", "--network", network)
        assert (done.returncode, done.stderr) == (2, f"error: {what}\n")
