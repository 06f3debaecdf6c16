"""Messages on links in the simulator, alone and together, under events: added up by hand, to 1e-9."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.calibration import Pair
from splitexit.results import FALLBACK
from tests import scripted
from tests.scripted import (
    DOWN_DELAY_S,
    DOWN_S,
    HEAD_S,
    RPC_S,
    UP_DELAY_S,
    near,
    on_air_s,
    one,
    rows_of,
    send_s,
    serve_s,
    up_s,
)

UINT8: Pair = (1, "uint8")


def test_two_messages_share_an_access_point(tmp_path: Path) -> None:
    """From the second's coming on, each has half the rate."""
    points = {"cell": {"sharing": "processor"}}
    head_start_s = 0.001
    experiment = scripted.scripted(
        tmp_path, [[0.0], [head_start_s]], access_points=points, devices__access_point="cell", edge__workers=2
    )
    rows = rows_of(experiment, "uint8@1")
    air_s = on_air_s(UINT8)
    on_air = [head_start_s + 2 * (air_s - head_start_s), 2 * (air_s - head_start_s) + head_start_s]
    for row, seconds in zip(rows, on_air, strict=True):
        assert row.airtime_s == near(seconds)
        assert row.network_s == near(seconds + UP_DELAY_S + RPC_S + DOWN_S)
        assert row.response_s == near(send_s(UINT8) + row.network_s + serve_s(UINT8))


def test_replies_share_it_too(tmp_path: Path) -> None:
    """Two replies leave together: each takes twice as long."""
    points = {"cell": {"sharing": "processor", "uplink": {"name": "constant", "mbps": 1e6}}}
    experiment = scripted.scripted(
        tmp_path, [[0.0], [0.0]], access_points=points, devices__access_point="cell", edge__workers=2
    )
    for row in rows_of(experiment, "jpeg@0"):
        up = 2 * 8 * 960 / 1e12 + RPC_S
        assert row.network_s == near(up + 2 * 8 * 100 / scripted.DOWN_BPS + DOWN_DELAY_S)


def test_first_come_first_served_at_an_access_point(tmp_path: Path) -> None:
    experiment = scripted.scripted(
        tmp_path, [[0.0], [0.001]], access_points={"cell": {}}, devices__access_point="cell", edge__workers=2
    )
    rows = rows_of(experiment, "uint8@1")
    air_s = on_air_s(UINT8)
    assert [row.airtime_s for row in rows] == [near(air_s), near(air_s)]
    assert rows[1].network_s == near(air_s - 0.001 + air_s + UP_DELAY_S + RPC_S + DOWN_S)


def test_devices_take_turns_among_access_points(tmp_path: Path) -> None:
    """Device k is on k mod 2: the first and the third meet."""
    experiment = scripted.scripted(
        tmp_path,
        [[0.0]] * 4,
        access_points={"cell": {"count": 2}},
        devices__access_point="cell",
        edge__workers=4,
    )
    air_s = on_air_s(UINT8)
    waits = [row.network_s - air_s - UP_DELAY_S - RPC_S - DOWN_S for row in rows_of(experiment, "uint8@1")]
    # the replies of those who met come one after the other as well, and do not meet again
    assert waits == [near(0.0), near(0.0), near(air_s), near(air_s)]


def test_an_outage_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    at_s, for_s = send_s(UINT8) + on_air_s(UINT8) / 3, 0.25
    row = one(tmp_path, at_s=0.0, events=[{"kind": "outage", "at_s": at_s, "for_s": for_s}])
    assert row.airtime_s == near(on_air_s(UINT8) + for_s)
    assert row.response_s == near(send_s(UINT8) + up_s(UINT8) + for_s + serve_s(UINT8) + DOWN_S)


def test_an_outage_of_the_way_back(tmp_path: Path) -> None:
    """It begins after the upload and is over after the answer was ready."""
    events = [{"kind": "outage", "at_s": 0.03, "for_s": 0.47, "direction": "down"}]
    row = one(tmp_path, at_s=0.0, events=events)
    ready_s = send_s(UINT8) + up_s(UINT8) + serve_s(UINT8)
    assert row.response_s == near(0.5 + DOWN_S)
    assert row.network_s == near(up_s(UINT8) + 0.5 - ready_s + DOWN_S)


def test_a_bandwidth_step_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    """A third of the message at the full rate, the rest at a fifth of it."""
    at_s = send_s(UINT8) + on_air_s(UINT8) / 3
    events = [{"kind": "bandwidth", "at_s": at_s, "factor": 0.2, "direction": "up"}]
    row = one(tmp_path, at_s=0.0, events=events)
    assert row.airtime_s == near(on_air_s(UINT8) * (1 / 3 + 5 * 2 / 3))
    assert row.response_s == near(send_s(UINT8) + row.airtime_s + UP_DELAY_S + RPC_S + serve_s(UINT8) + DOWN_S)


def test_sharing_under_a_bandwidth_step(tmp_path: Path) -> None:
    """Two at once, at half the rate after a while."""
    at_s = send_s(UINT8) + on_air_s(UINT8)  # half of both is through
    experiment = scripted.scripted(
        tmp_path,
        [[0.0], [0.0]],
        access_points={"cell": {"sharing": "processor"}},
        devices__access_point="cell",
        edge__workers=2,
        events=[{"kind": "bandwidth", "at_s": at_s, "factor": 0.5, "direction": "up", "on": "cell"}],
    )
    for row in rows_of(experiment, "uint8@1"):
        assert row.airtime_s == near(3 * on_air_s(UINT8))


def test_a_link_that_is_out_for_good(tmp_path: Path) -> None:
    """The device waits until its fallback is due, and answers at the deadline."""
    row = one(tmp_path, at_s=0.0, events=[{"kind": "outage", "at_s": 0.0}], devices__deadline_ms=200.0)
    assert (row.answered_by, row.lost_reply, row.shed) == (FALLBACK, True, False)
    assert row.response_s == near(0.2)
    assert row.network_s == near(0.2 - HEAD_S[0] - send_s(UINT8))
    assert row.airtime_s == near(row.network_s)


@pytest.mark.parametrize("sharing", ["fifo", "processor"])
def test_a_cell_that_is_out_for_good(tmp_path: Path, sharing: str) -> None:
    """First come, first served, the second never gets its turn; sharing, both are on air to no end."""
    experiment = scripted.scripted(
        tmp_path,
        [[0.0], [0.001]],
        access_points={"cell": {"sharing": sharing}},
        devices__access_point="cell",
        devices__deadline_ms=200.0,
        events=[{"kind": "outage", "at_s": 0.0, "on": "cell"}],
    )
    first, second = rows_of(experiment, "uint8@1")
    assert (first.lost_reply, second.lost_reply) == (True, True)
    assert first.airtime_s == near(first.network_s)
    assert second.airtime_s == near(0.0 if sharing == "fifo" else second.network_s)
