"""Energy charged to the rows of a run: hand arithmetic, tails, conservation, what is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit import energy, hardware
from splitexit.energy import PARTS, Model, Radio
from splitexit.errors import UnknownNameError
from splitexit.hardware import Power
from splitexit.links import LINKS
from splitexit.results import EDGE, LOCAL, SCHEMA, column, to_table
from splitexit.sim import simulate
from tests import synthetic

POWER = Power(3.0, 1.0, "test")
# 1 W and 2 µJ a bit up, 0.5 W and 1 µJ a bit down, 0.4 W for 2 s behind every message, 0.3 J to wake up.
RADIO = Radio("test", 2e-6, 1.0, 1e-6, 0.5, 0.4, 2.0, 0.6, 0.5, "test")
MODEL = Model(POWER, RADIO, count=1000, sent_bytes=25, reply_bytes=50, downlink_bps=4000.0)
RECEIVE_J = 1e-6 * 400 + 0.5 * 0.1


def table(*rows: dict[str, Any]) -> pa.Table:
    """Rows with some columns given; a row is not sent unless it says so, and everything else is zero."""
    blank = {pa.string(): "", pa.bool_(): False}
    columns = [
        pa.array([row.get(f.name, LOCAL if f.name == "split" else blank.get(f.type, 0)) for row in rows], f.type)
        for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def sent(request: int, start_s: float, air_s: float, reply_after_s: float | None, **rest: Any) -> dict[str, Any]:
    """A row that was sent 0.3 s after its start, and answered (or not) that long after it was handed over."""
    network_s = air_s if reply_after_s is None else reply_after_s - 0.05
    row = {
        "request": request,
        "start_s": start_s,
        "device_compute_s": 0.2,
        "encode_s": 0.1,
        "network_s": network_s,
        "edge_wait_s": 0.0 if reply_after_s is None else 0.02,
        "edge_compute_s": 0.0 if reply_after_s is None else 0.03,
        "airtime_s": air_s,
        "done_s": start_s + 0.3 + (network_s if reply_after_s is None else reply_after_s),
        "split": 1,
        "payload_bytes": 100,
        "lost_reply": reply_after_s is None,
    }
    return row | rest


def parts(*rows: dict[str, Any], models: Sequence[Model] = (MODEL,)) -> dict[str, list[float]]:
    """energy.parts as lists."""
    return {name: joules.tolist() for name, joules in energy.parts(table(*rows), models).items()}


def test_one_request_by_hand() -> None:
    found = parts(sent(0, start_s=5.0, air_s=0.5, reply_after_s=1.0))
    assert found["compute"] == pytest.approx([(3.0 - 1.0) * 0.3])
    assert found["transmit"] == pytest.approx([2e-6 * 8 * 125 + 1.0 * 0.5])
    assert found["receive"] == pytest.approx([RECEIVE_J])
    assert found["tail"] == pytest.approx([0.4 * (0.5 + 2.0)]), "from upload to reply, and all of it behind the reply"
    assert found["promotion"] == pytest.approx([0.3])
    assert found["idle"] == pytest.approx([1.0 * 6.3]), "since the run began"


def test_a_request_that_stays_takes_no_radio() -> None:
    found = parts({"start_s": 1.0, "device_compute_s": 0.5, "done_s": 1.5})
    assert {name: joules for name, [joules] in found.items() if joules} == pytest.approx({"compute": 1.0, "idle": 1.5})


def test_energy_is_the_sum_of_the_parts_and_nothing_else_changes() -> None:
    before = table(sent(0, 0.0, 0.5, 1.0), sent(1, 2.0, 0.5, 1.0), {"request": 2, "start_s": 4.0, "done_s": 4.0})
    after = energy.charge(before, [MODEL])
    assert after.schema == SCHEMA
    assert after.drop_columns("energy_j") == before.drop_columns("energy_j")
    assert column(after, "energy_j") == pytest.approx(sum(energy.parts(before, [MODEL]).values()), abs=1e-12)


@pytest.mark.parametrize(
    ("gap_s", "tail_s", "promotions"), [(0.4, 0.4, 0), (2.0, 2.0, 0), (2.5, 2.0, 1), (100.0, 2.0, 1)]
)
def test_a_tail_ends_with_the_next_message(gap_s: float, tail_s: float, promotions: int) -> None:
    """Nothing comes back, so that the only messages are two uploads."""
    found = parts(sent(0, 0.0, 0.5, None), sent(1, 0.5 + gap_s, 0.5, None))
    assert found["tail"] == pytest.approx([0.4 * tail_s, 0.4 * 2.0])
    assert found["promotion"] == pytest.approx([0.3, 0.3 * promotions])


def test_a_reply_far_behind_its_upload_wakes_the_radio_again() -> None:
    found = parts(sent(0, 0.0, 0.5, 10.0))
    assert found["tail"] == pytest.approx([0.4 * (2.0 + 2.0)])
    assert found["promotion"] == pytest.approx([0.3 * 2])


def test_a_burst_has_one_tail_and_one_promotion() -> None:
    """Ten payloads handed over at once: uploads follow each other without a gap."""
    rows = [sent(k, 0.0, 0.5, None) for k in range(10)]
    found = parts(*rows)
    assert found["promotion"] == pytest.approx([0.3] + [0.0] * 9)
    assert found["tail"] == pytest.approx([0.0] * 9 + [0.8])
    assert sum(found["transmit"]) == pytest.approx(10 * (2e-6 * 1000 + 0.5))


def test_a_tail_is_charged_to_the_message_that_ended_last() -> None:
    """Upload 0 until 0.8, upload 1 from 0.9 to 1.9; the reply to 0 comes at 1.3, meanwhile, that to 1 at 2.4."""
    found = parts(sent(0, 0.0, 0.5, 1.0), sent(1, 0.6, 1.0, 1.5))
    assert found["tail"] == pytest.approx([0.4 * 0.1, 0.4 * (0.5 + 2.0)])
    assert sum(found["promotion"]) == pytest.approx(0.3)


def test_a_refusal_is_received_and_a_lost_reply_is_not() -> None:
    found = parts(sent(0, 0.0, 0.5, 1.0, shed=True), sent(1, 50.0, 0.5, None))
    assert found["receive"] == pytest.approx([RECEIVE_J, 0.0])


def test_idle_runs_from_answer_to_answer() -> None:
    """In order of the answers, not of the requests."""
    found = parts(*({"request": k, "done_s": done_s} for k, done_s in enumerate([3.0, 1.0, 7.0])))
    assert found["idle"] == pytest.approx([2.0, 1.0, 4.0])


def test_devices_do_not_share_a_radio() -> None:
    alone = parts(sent(0, 0.0, 0.5, 1.0))
    both = parts(sent(0, 0.0, 0.5, 1.0, device=3), sent(0, 0.1, 0.5, 1.0, device=4))
    assert {name: joules[0] for name, joules in both.items()} == {name: joules[0] for name, joules in alone.items()}
    assert both["promotion"] == pytest.approx([0.3, 0.3])


def test_groups_have_models_of_their_own() -> None:
    models = [Model(POWER, RADIO, first=0, count=2), Model(Power(9.0, 1.0, ""), energy.radio("ethernet"), 2, 3)]
    found = parts(*(sent(0, 0.0, 0.5, 1.0, device=k) for k in range(6)), models=models)
    assert found["compute"] == pytest.approx([0.6, 0.6, 2.4, 2.4, 2.4, np.nan], nan_ok=True)
    assert found["tail"] == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.0, np.nan], nan_ok=True)


def test_a_rate_takes_no_more_than_the_most() -> None:
    wifi = energy.radio("wifi")
    air_s = np.array([1.0, 1.0])
    bits = np.array([1e6, 18.88e6])
    assert wifi.send_j(bits, air_s) == pytest.approx([0.28317 + 0.13286, 1.295]), "5.5 W by the line"


def test_the_constants_are_those_of_the_table() -> None:
    """Joules per megabit at the table's own rates: 1.61, 0.66 (Wi-Fi is capped)."""
    assert energy.radio("3g").send_j(1e6, 1 / 1.1) == pytest.approx(1.61, abs=0.005)
    assert energy.radio("lte").send_j(1e6, 1 / 5.85) == pytest.approx(0.66, abs=0.005)


# What is unknown is NaN, and only that.


def test_without_power_everything_is_unknown() -> None:
    charged = energy.charge(table(sent(0, 0.0, 0.5, 1.0), {"request": 1}), [Model(None, RADIO)])
    assert np.isnan(column(charged, "energy_j")).all()


def test_without_a_radio_what_was_sent_is_unknown() -> None:
    rows = [sent(0, 0.0, 0.5, 1.0), {"request": 1, "done_s": 2.0}, sent(2, 5.0, 0.5, None)]
    charged = energy.charge(table(*rows), [Model(POWER, None)])
    assert np.isnan(column(charged, "energy_j")).tolist() == [True, False, True]


def test_a_live_upload_is_unknown_and_its_neighbours_are_not() -> None:
    rows = [sent(0, 0.0, 0.5, 1.0), sent(1, 5.0, float("nan"), 1.0, network_s=0.95, done_s=6.3), sent(2, 9.0, 0.5, 1.0)]
    charged = energy.charge(table(*rows), [MODEL])
    assert np.isnan(column(charged, "energy_j")).tolist() == [False, True, False]


def test_no_rows_and_no_models() -> None:
    assert len(energy.charge(SCHEMA.empty_table(), [MODEL])) == 0
    assert np.isnan(column(energy.charge(table(sent(0, 0.0, 0.5, 1.0)), []), "energy_j")).all()


# Conservation: the device's power over time, integrated another way.


@st.composite
def runs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of up to three devices, in any order, times on a grid so that ties and exact touches occur."""
    rows = []
    tick = st.integers(0, 40).map(lambda k: k / 4)
    for device in range(draw(st.integers(1, 3))):
        for request in range(draw(st.integers(0, 7))):
            start_s = draw(tick)
            if draw(st.booleans()):
                air_s = draw(st.integers(0, 8)) / 4
                reply_s = draw(st.one_of(st.none(), st.integers(0, 30).map(lambda k: 0.05 + k / 4)))
                row = sent(request, start_s, air_s, reply_s, payload_bytes=draw(st.integers(0, 9000)))
            else:
                row = {"request": request, "start_s": start_s, "device_compute_s": 0.5, "done_s": start_s + 0.5}
            rows.append(row | {"device": device})
    return draw(st.permutations(rows))


def awake_s(rows: list[dict[str, Any]], limit_s: float) -> tuple[float, int]:
    """Seconds a device's radio is awake without a message, and how often it wakes: by hand, one message at a time."""
    uploads, messages, free_s = [], [], -np.inf
    for row in sorted(rows, key=lambda row: (row["start_s"], row["request"])):
        handed_s = row["start_s"] + (row["device_compute_s"] + row["encode_s"])
        free_s = max(handed_s, free_s) + row["airtime_s"]
        uploads.append((row, handed_s, free_s))
    for row, handed_s, end_s in uploads:
        if not row["lost_reply"]:
            reply_s = handed_s + (row["network_s"] + row["edge_wait_s"] + row["edge_compute_s"])
            end_s = min(end_s, reply_s)
            messages.append((reply_s, reply_s))
        messages.append((end_s - row["airtime_s"], end_s))
    total_s, wakes, quiet_from_s = 0.0, 0, -np.inf
    for begin_s, end_s in sorted(messages):
        gap_s = begin_s - quiet_from_s
        wakes += gap_s > limit_s
        total_s += min(max(gap_s, 0.0), limit_s) if np.isfinite(gap_s) else 0.0
        quiet_from_s = max(quiet_from_s, end_s)
    return total_s + limit_s * bool(messages), wakes


@settings(max_examples=300, deadline=None)
@given(rows=runs())
def test_the_rows_of_a_device_add_up_to_its_energy(rows: list[dict[str, Any]]) -> None:
    """Idle from 0 to the last answer, and each thing that happened above it, once."""
    limit_s = 1.93  # no gap of the grid is as long: whether the radio sleeps must not hang on rounding
    charged = energy.charge(table(*rows), [replace(MODEL, radio=replace(RADIO, tail_s=limit_s))])
    devices = column(charged, "device")
    for device in set(devices.tolist()):
        mine = [row for row in rows if row["device"] == device]
        uploads = [row for row in mine if row.get("split", LOCAL) != LOCAL]
        tail_s, wakes = awake_s(uploads, limit_s)
        expected = (
            POWER.idle_w * max(row["done_s"] for row in mine)
            + 2.0 * sum(row["device_compute_s"] + row.get("encode_s", 0.0) for row in mine)
            + sum(2e-6 * 8 * (row["payload_bytes"] + 25) + row["airtime_s"] for row in uploads)
            + RECEIVE_J * sum(not row["lost_reply"] for row in uploads)
            + RADIO.tail_w * tail_s
            + RADIO.promotion_w * RADIO.promotion_s * wakes
        )
        assert column(charged, "energy_j")[devices == device].sum() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(rows=runs())
def test_parts_are_not_negative_and_sum_to_the_energy(rows: list[dict[str, Any]]) -> None:
    found = energy.parts(table(*rows), [MODEL])
    assert tuple(found) == PARTS
    assert all((joules >= 0).all() for joules in found.values())
    total = column(energy.charge(table(*rows), [MODEL]), "energy_j")
    assert np.abs(total - np.sum(list(found.values()), axis=0)).max(initial=0.0) < 1e-9


@settings(max_examples=100, deadline=None)
@given(rows=runs(), data=st.data())
def test_the_order_of_the_rows_does_not_matter(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """To the last bit."""
    order = data.draw(st.permutations(range(len(rows))))
    one, other = (column(energy.charge(table(*r), [MODEL]), "energy_j") for r in (rows, [rows[k] for k in order]))
    assert one[list(order)].tolist() == other.tolist()


@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize("policy", ["split", "threshold", "random"])
def test_replies_come_when_the_rows_say(tmp_path: Path, policy: str, pipeline: bool) -> None:
    """The times in a row, one after the other, end with the answer: what tails are computed from."""
    world = synthetic.experiment(tmp_path, devices__arrivals__rate_hz=30.0, devices__pipeline=pipeline)
    rows = to_table(simulate(world, policy, 0))
    steps = ("start_s", "device_compute_s", "encode_s", "network_s", "edge_wait_s", "edge_compute_s")
    answered = column(rows, "answered_by") == EDGE
    assert answered.sum() > 50
    end_s = np.sum([column(rows, name) for name in steps], axis=0)
    assert end_s[answered] == pytest.approx(column(rows, "done_s")[answered])
    charged = energy.charge(rows, [MODEL])
    assert (column(charged, "energy_j") > 0).all()


# Which model a group gets.


def test_a_named_machine_on_a_preset_needs_nothing_else() -> None:
    found = energy.model("raspberry-pi-4", "lte", first=3, count=2)
    assert (found.power, found.radio) == (hardware.named("raspberry-pi-4").power, energy.radio("lte"))
    assert (found.first, found.count, found.gaps) == (3, 2, [])


def test_the_scenario_has_the_last_word() -> None:
    found = energy.model("raspberry-pi-4", "lte", compute_w=5.0, idle_w=2.0, radio_name="wifi")
    assert found.power is not None
    assert (found.power.compute_w, found.power.idle_w) == (5.0, 2.0)
    assert found.radio is energy.radio("wifi")


def test_what_nobody_published_is_said() -> None:
    found = energy.model("host", "constant")
    assert (found.power, found.radio) == (None, None)
    assert any("compute_w" in gap for gap in found.gaps)
    assert any("devices.energy.radio" in gap for gap in found.gaps)


def test_radios_have_the_names_of_links() -> None:
    assert set(energy.radio_names()) <= set(LINKS.names())
    assert energy.radio_of_link("lte") is energy.radio("lte")
    assert energy.radio_of_link("5g") is None, "its power is nowhere published as a line over the rate"
    with pytest.raises(UnknownNameError, match="unknown radio '4g'"):
        energy.radio("4g")
