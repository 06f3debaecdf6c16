"""benchmarks/upload.py: its arithmetic by hand, and one small case over real TCP where the machine can."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from benchmarks import upload
from benchmarks.endpoints import KB, Message, header_bytes
from benchmarks.upload import Case, account, modelled_s, plans, reason, show, summary
from splitexit.errors import ProcessError, UsageError
from splitexit.live.tun import TunNetwork
from tests.tun_machine import needs_tun, own_spaces


def case(real_ms: float, model_ms: float, way: str = "raw") -> Case:
    """At 10 Mbit/s and 5 ms."""
    return Case(10.0, 5.0, way, "warm", KB, real_ms, model_ms)


@pytest.mark.parametrize(
    ("real_ms", "model_ms", "right"),
    [(100.0, 104.9, True), (100.0, 94.9, False), (2.0, 2.5, True), (2.0, 1.4, False), (20.0, 21.1, False)],
)
def test_right_is_5_percent_or_half_a_millisecond(real_ms: float, model_ms: float, right: bool) -> None:
    made = case(real_ms, model_ms)
    assert made.right is right
    assert ("off" in show(made)) is not right


def test_the_summary() -> None:
    found = summary([case(100.0, 100.0 + error) for error in (0, 1, 2, -3, 10)])
    assert found == pytest.approx(
        {
            "cases": 5,
            "right_percent": 80.0,
            "median_error_percent": 2.0,
            "p90_error_percent": 10.0,
            "worst_error_percent": 10.0,
        }
    )


def test_every_size_has_a_connection_and_small_ones_share_one_more() -> None:
    sizes = (KB, 1024 * KB)
    assert [[message.size_bytes for message in plan] for plan in plans(sizes)] == [
        [KB] * 4,
        [1024 * KB] * 4,
        [KB] * 2,
    ]


def test_the_model_of_a_grpc_call_has_its_framing() -> None:
    """20 000 bytes are two frames of HTTP/2: 5 + 2 * 9 bytes and the headers, of 14 segments like the raw message."""
    plan = [Message("fresh", 0.0, 20_000), Message("warm", 0.0, 20_000)]
    raw, grpc = (modelled_s(8.0, 0.0, plan, way, 200, 50) for way in ("raw", "grpc"))
    assert raw[0] == pytest.approx((20_000 + 14 * 52) / 1e6)
    assert grpc[0] - raw[0] == pytest.approx(223 / 1e6)
    assert grpc[1] - raw[1] == pytest.approx(73 / 1e6)


@pytest.mark.parametrize(
    ("mbps", "delay_ms", "gap_s", "real_ms", "why"),
    [
        (1.0, 0.0, 0.0, 41.3, "a tail loss probe"),
        (1.0, 5.0, 0.0, 55.0, "other work on the machine?"),
        (50.0, 5.0, 0.0, 55.0, "other work on the machine?"),
    ],
)
def test_why_a_case_is_off(mbps: float, delay_ms: float, gap_s: float, real_ms: float, why: str) -> None:
    plan = [Message("fresh", 0.0, 4 * KB), Message("warm", gap_s, 4 * KB)]
    off = Case(mbps, delay_ms, "raw", "warm", 4 * KB, real_ms, 34.0)
    assert reason(off, plan, (0, 0)) == why


def test_an_idle_time_at_an_edge() -> None:
    """100 Mbit/s, 20 ms, a megabyte after a second: 3.97 RTO as measured, 4.03 by the model; one halving more."""
    plan = [Message(state, gap_s, 1024 * KB) for state, gap_s in upload.STATES]
    model_ms = 1e3 * modelled_s(100.0, 20.0, plan, "raw", 0, 0)[-1]
    off = Case(100.0, 20.0, "raw", "idle 1 s", 1024 * KB, 174.7, model_ms)
    assert not off.right
    assert reason(off, plan, (0, 0)) == "idle for about a multiple of the RTO"


def test_the_account_of_a_difference() -> None:
    """64 KiB on a fresh connection: 46 headers, two round trips less what was sent meanwhile, and what is left."""
    model_s = modelled_s(100.0, 20.0, [Message("fresh", 0.0, 64 * KB)], "raw", 0, 0)[0]
    row = account(100.0, 20.0, Message("fresh", 0.0, 64 * KB), 0.0253, model_s + 0.001, model_s)
    assert row["headers_ms"] == pytest.approx(46 * 52 * 8e-5)
    assert 1.8 < row["round_trips"] < 2.0  # type: ignore[operator]
    bare_ms = 64 * KB * 8e-5 + 20.0
    assert row["rest_ms"] == pytest.approx(1.0 + bare_ms - 25.3)
    flat = account(10.0, 0.0, Message("warm", 0.0, KB), 0.001, 0.001, 0.0)
    assert (flat["window_ms"], flat["round_trips"]) == (0.0, 0.0)


def test_the_headers_of_a_call() -> None:
    """The first one names everything; HTTP/2 compresses what it has seen."""
    first_bytes, later_bytes = header_bytes()
    assert 100 < first_bytes < 500
    assert 10 < later_bytes < 100


def test_a_machine_without_tun_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no() -> None:
        raise UsageError("--network tun: no")

    monkeypatch.setattr(TunNetwork, "require", no)
    monkeypatch.setattr(sys, "argv", ["upload.py"])
    with pytest.raises(SystemExit, match="^--network tun: no$"):
        upload.main()


def test_what_was_measured_is_shown_if_a_process_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it failed of, and not as a success."""

    def failing(*grid: object) -> Iterator[Case]:
        yield case(100.0, 101.0)
        raise ProcessError("device 0 was killed (SIGKILL)")

    monkeypatch.setattr(upload, "measure", failing)
    for as_json in (True, False):
        with pytest.raises(SystemExit, match="^stopped after 1 cases: device 0 was killed"):
            upload.show_cases(upload.QUICK, 1, as_json)
        assert "101" in capsys.readouterr().out
    assert summary([]) == {"cases": 0}


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the calls that are subtracted: fifty after each of the real ones take six seconds."""
    monkeypatch.setattr("benchmarks.endpoints.PAUSES_S", (0.0, 0.01))


@needs_tun
@pytest.mark.usefixtures("short_pauses")
def test_a_large_call_needs_no_round_trip_for_http2(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 KiB as a warm gRPC call over 20 ms: a window of 64 KiB would cost 40 ms more. Real TCP, loosely bounded."""
    before = own_spaces()
    found = list(upload.measure((256 * KB,), (50.0,), (20.0,), 1))
    assert own_spaces() == before
    assert {case.way for case in found} == {"raw", "grpc"}
    (warm,) = (case for case in found if (case.way, case.state) == ("grpc", "warm"))
    assert warm.real_ms < warm.model_ms + 30.0


@needs_tun
@pytest.mark.usefixtures("short_pauses")
def test_the_documents(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of both modes, each one line of JSON."""
    monkeypatch.setattr(upload, "QUICK", ((KB,), (100.0,), (5.0,)))
    monkeypatch.setattr(upload, "EXPLAINED_SIZES", (KB,))
    monkeypatch.setattr(upload, "EXPLAINED_LINKS", ((100.0, 5.0),))
    for option, look in (("--quick", "summary"), ("--explain", "rest_ms")):
        monkeypatch.setattr(sys, "argv", ["upload.py", option, "--rounds", "1", "--json"])
        upload.main()
        document = json.loads(capsys.readouterr().out)
        assert look in (document if option == "--quick" else document[0])
