"""Energy: what the rows of a run cost the devices in joules, charged after the run.

The engines know nothing of energy. A device's energy from the beginning of the run to its last answer is
split among its rows without remainder, so that the rows of a device add up to it:

    compute     (compute_w − idle_w) · (device_compute_s + encode_s), compute_w in the request's mode
    transmit    P(B) · airtime_s with P(B) = alpha_up · B + base_up and B = bits sent / airtime_s
    receive     likewise, for as long as the reply takes at the downlink's mean rate
    tail        tail_w · min(tail_s, time to the radio's next message): it stays awake after every message
    promotion   promotion_w · promotion_s where a message finds the radio asleep, as a device's first one does
    idle        idle_w · time since the device's previous answer (since 0 for its first)

Everything but `idle` is above idle power. A tail is charged to the request whose message ended last, and the
one behind a device's last message whole, though it may outlast the run. Payloads and their framing are sent,
the edge's answers and refusals are received.

When the radio is busy follows from the rows: a payload is handed over when the CPU has run and encoded, a
device's uploads follow each other first come, first served, and the reply is there when the times in the
network and on the edge have passed. What no row holds is left out: replies that came after the device had
given up; how often a payload was sent again (airtime is that of all sends, bits are counted once); that the
upload of a fallback stood before its last computing; and that uploads wait for other devices in a shared cell.

Live rows have no airtime: what their radio took is unknown (NaN). A promotion costs energy here, but no time:
links do not have its delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from splitexit import hardware
from splitexit.hardware import Power
from splitexit.radios import RADIOS as RADIOS
from splitexit.radios import Radio, radio_of_link
from splitexit.radios import radio as radio
from splitexit.radios import radio_names as radio_names
from splitexit.results import LOCAL, column

Array = np.ndarray[Any, Any]

PARTS = ("compute", "transmit", "receive", "tail", "promotion", "idle")
"""What a row's energy is made of."""


@dataclass(frozen=True)
class Model:
    """How the devices first, …, first + count − 1 take energy.

    power          of the machine; None where nobody published it: then all energy is NaN
    radio          None where it is unknown: then the energy of what was sent is NaN
    sent_bytes     framing that goes up with every payload
    reply_bytes    what comes down for every answer or refusal
    downlink_bps   the downlink's mean rate
    modes          by name, the watts while it computes in another mode, None where nobody published them; what it takes
                   while it waits is the same
    """

    power: Power | None
    radio: Radio | None
    first: int = 0
    count: int = 1
    sent_bytes: int = 0
    reply_bytes: int = 0
    downlink_bps: float = math.inf
    modes: Mapping[str, float | None] = field(default_factory=dict)

    def power_in(self, mode: str) -> Power | None:
        """Of the machine in that mode; "": in none. None where it is unknown."""
        if mode == "":
            return self.power
        compute_w = self.modes.get(mode)
        return None if self.power is None or compute_w is None else replace(self.power, compute_w=compute_w)

    def in_mode(self, mode: str) -> Model:
        """The same in that mode."""
        return replace(self, power=self.power_in(mode), modes={})

    @cached_property
    def receive_j(self) -> float:
        """Joules to receive one reply."""
        if self.radio is None:
            return math.nan
        bits = 8.0 * self.reply_bytes
        return float(self.radio.receive_j(bits, bits / self.downlink_bps))

    def requests_j(
        self, asked: Sequence[tuple[float, float, float, float]], rate_bps: float, reply_s: float, gap_s: float
    ) -> list[float]:
        """Joules above idle power for requests of several kinds (see splitexit.decision.Consumption).

        Where requests follow one another evenly, each when the one before it is through, what `charge` takes for one
        of them on average; idle power is left out, because it is taken whatever becomes of a request. NaN where
        figures are missing. Plain numbers in a loop: for some tens of kinds that is faster than arrays.
        """
        if self.power is None or self.radio is None:
            return [math.nan] * len(asked)
        above_w, radio, receive_j = self.power.compute_w - self.power.idle_w, self.radio, self.receive_j
        tail_w, tail_s = radio.tail_w, radio.tail_s
        tail_j = tail_w * tail_s + radio.promotion_w * radio.promotion_s  # it falls asleep, and is woken again
        sending_w, found = min(radio.alpha_up * rate_bps + radio.base_up, radio.most_w), []
        for compute_s, sent, size_bytes, edge_s in asked:
            joules = above_w * compute_s
            if sent:
                airtime_s, wait_s = 8.0 * size_bytes / rate_bps, reply_s + edge_s
                of_sent, quiet_s = sending_w * airtime_s + receive_j, gap_s / sent - airtime_s - wait_s
                of_sent += tail_j if wait_s > tail_s else tail_w * wait_s
                if quiet_s > 0.0:
                    of_sent += tail_j if quiet_s > tail_s else tail_w * quiet_s
                joules += sent * of_sent
            found.append(joules)
        return found

    @property
    def gaps(self) -> list[str]:
        """Why energy is NaN, if it is: what is not known and which keys of the scenario would say it."""
        gaps = []
        if self.power is None:
            gaps.append("nobody published the power of these devices: give devices.energy.compute_w and idle_w")
        for mode in (name for name, compute_w in self.modes.items() if compute_w is None):
            gaps.append(f"nobody published the power of the mode {mode!r}: give devices.modes.{mode}.energy.compute_w")
        if self.radio is None:
            names = ", ".join(RADIOS)
            gaps.append(f"nobody published the energy of this uplink's radio: give devices.energy.radio ({names})")
        return gaps


def model(
    machine: str,
    link: str,
    *,
    compute_w: float | None = None,
    idle_w: float | None = None,
    radio_name: str | None = None,
    **rest: Any,
) -> Model:
    """The model of a group: what the scenario says, else what was published.

    Args:
        machine: name of the devices' hardware; where `hardware` does not know it (the host) nothing is published.
        link: name of their uplink.
        compute_w, idle_w, radio_name: the scenario's own; the two powers go together.
        rest: the other fields of Model.

    Raises UnknownNameError for an unknown radio.
    """
    if compute_w is not None and idle_w is not None:
        power: Power | None = Power(compute_w, idle_w, "the scenario")
    else:
        power = hardware.named(machine).power if machine in hardware.names() else None
    return Model(power, radio_of_link(link) if radio_name is None else radio(radio_name), **rest)


def charge(table: pa.Table, models: Sequence[Model]) -> pa.Table:
    """The rows with their energy: `energy_j` filled in, NaN where it is unknown. All else stays as it was.

    Args:
        table: all rows of one run (splitexit.results.SCHEMA), in any order.
        models: of the devices in it; devices of no model get NaN.
    """
    energy_j = sum(parts(table, models).values())
    at = table.schema.get_field_index("energy_j")
    return table.set_column(at, table.schema.field(at), pa.array(energy_j, pa.float64()))


def parts(table: pa.Table, models: Sequence[Model]) -> dict[str, Array]:
    """Joules of every part (PARTS) of every row, in the table's order; together they are `energy_j`."""
    modes = ["mode"] if "mode" in table.column_names else []
    rows = {name: column(table, name) for name in (*_COLUMNS, *modes)}
    order = np.lexsort((rows["request"], rows["device"]))
    if not (order[1:] > order[:-1]).all():
        rows = {name: values[order] for name, values in rows.items()}
    found = {name: np.full(len(order), math.nan) for name in PARTS}
    for model in models:
        first, end = np.searchsorted(rows["device"], (model.first, model.first + model.count))
        mine = {name: values[first:end] for name, values in rows.items()}
        for name, joules in (_machine_parts(mine, model) | _radio_parts(mine, model)).items():
            found[name][first:end] = joules
    return {name: _scattered(joules, order) for name, joules in found.items()}


_COLUMNS = (
    *("request", "device", "start_s", "device_compute_s", "encode_s", "network_s", "edge_wait_s", "edge_compute_s"),
    *("done_s", "split", "payload_bytes", "airtime_s", "lost_reply"),
)
# All below: columns of one model's rows in order of (device, request).
Rows = dict[str, Array]


def _scattered(values: Array, to: Array) -> Array:
    """`values` put where `to` says (a mask or positions), zero elsewhere."""
    array = np.zeros(len(to))
    array[to] = values
    return array


def _machine_parts(rows: Rows, model: Model) -> Rows:
    """What the machine takes without its radio."""
    power = model.power
    if power is None:
        return dict.fromkeys(("compute", "idle"), np.full(len(rows["device"]), math.nan))
    return {
        "compute": (_compute_w(rows, model, power) - power.idle_w) * (rows["device_compute_s"] + rows["encode_s"]),
        "idle": power.idle_w * _since_previous_answer(rows["device"], rows["done_s"]),
    }


def _compute_w(rows: Rows, model: Model, power: Power) -> Array | float:
    """Watts while it computes, NaN where those of a row's mode are unknown."""
    if "mode" not in rows:
        return power.compute_w
    names, of = np.unique(rows["mode"].astype(str), return_inverse=True)
    found = [model.power_in(name) for name in names.tolist()]
    return np.array([math.nan if one is None else one.compute_w for one in found])[of]


def _since_previous_answer(device: Array, done_s: Array) -> Array:
    """Seconds since the same device's answer before; since 0 for its first."""
    since_s = np.empty_like(done_s)
    for mine in _by_device(device):
        order = np.argsort(done_s[mine], kind="stable") + mine.start
        since_s[order] = np.diff(done_s[order], prepend=0.0)
    return since_s


def _radio_parts(rows: Rows, model: Model) -> Rows:
    """What the radio takes: nothing in rows that were not sent."""
    sent = rows["split"] != LOCAL
    if model.radio is None:
        return dict.fromkeys(("transmit", "receive", "tail", "promotion"), np.where(sent, math.nan, 0.0))
    found = _sent_parts({name: values[sent] for name, values in rows.items()}, model, model.radio)
    return {name: _scattered(joules, sent) for name, joules in found.items()}


def _sent_parts(rows: Rows, model: Model, radio: Radio) -> Rows:
    answered = ~rows["lost_reply"]
    bits = 8.0 * (rows["payload_bytes"] + model.sent_bytes)
    tail_s, wakes = _tails(rows, answered, radio.tail_s)
    return {
        "transmit": radio.send_j(bits, rows["airtime_s"]),
        "receive": model.receive_j * answered,
        "tail": radio.tail_w * tail_s,
        "promotion": radio.promotion_w * radio.promotion_s * wakes,
    }


def _tails(rows: Rows, answered: Array, limit_s: float) -> tuple[Array, Array]:
    """Per row sent: its seconds of tail, and how often the radio woke for it.

    A row's messages are its upload and, where `answered`, the reply. When a message has ended and none moves, the
    radio is awake until the next on the same device, whichever row that belongs to, or for `limit_s`.
    """
    begin_s, end_s, owner = _messages(rows, answered)
    tail_s, woke, causes = np.empty_like(begin_s), np.empty_like(begin_s), np.empty_like(owner)
    for mine in _by_device(rows["device"][owner]):
        order = np.argsort(begin_s[mine], kind="stable") + mine.start
        ends_s = end_s[order]
        moved_s = np.maximum.accumulate(ends_s)
        quiet_s = begin_s[order[1:]] - moved_s[:-1]
        tail_s[order] = np.append(np.clip(quiet_s, 0.0, limit_s), limit_s)
        woke[order] = np.insert(quiet_s > limit_s, 0, True)
        causes[order] = order[np.maximum.accumulate(np.where(ends_s == moved_s, np.arange(len(order)), 0))]
    return np.bincount(owner[causes], tail_s, len(answered)), np.bincount(owner, woke, len(answered))


def _messages(rows: Rows, answered: Array) -> tuple[Array, Array, Array]:
    """When every message begins and ends, and the row it belongs to: of each row the upload, then its reply if any."""
    air_s = np.nan_to_num(rows["airtime_s"])
    handed_s = rows["start_s"] + rows["device_compute_s"] + rows["encode_s"]
    reply_s = handed_s + rows["network_s"] + rows["edge_wait_s"] + rows["edge_compute_s"]
    sent_s = _first_come_first_served(rows["device"], handed_s, air_s)
    sent_s = np.where(answered, np.minimum(sent_s, reply_s), sent_s)

    owner = np.repeat(np.arange(len(answered)), 1 + answered)
    begin_s, end_s = reply_s[owner], reply_s[owner]
    upload = np.flatnonzero(np.diff(owner, prepend=-1))
    begin_s[upload], end_s[upload] = sent_s - air_s, sent_s
    return begin_s, end_s, owner


def _first_come_first_served(device: Array, offered_s: Array, service_s: Array) -> Array:
    """When one server per device has served each offer, in the order in which they were made."""
    served_s = np.empty_like(offered_s)
    for mine in _by_device(device):
        order = np.argsort(offered_s[mine], kind="stable") + mine.start
        total_s = np.cumsum(service_s[order])
        served_s[order] = total_s + np.maximum.accumulate(offered_s[order] - (total_s - service_s[order]))
    return served_s


def _by_device(device: Array) -> Iterator[slice]:
    """The rows of each device; the devices ascend."""
    bounds = [0, *(np.flatnonzero(np.diff(device)) + 1).tolist(), len(device)]
    return map(slice, bounds[: -1 if len(device) else 0], bounds[1:])
