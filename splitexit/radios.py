"""What radios take: power figures of several technologies, each as it was published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitexit.errors import UnknownNameError

_MW_PER_MBPS = 1e-3 / 1e6


@dataclass(frozen=True)
class Radio:
    """Power of one radio technology above the machine's idle power.

    alpha_up, base_up       sending at B bit/s takes alpha · B + base watts
    alpha_down, base_down   receiving, likewise
    tail_w, tail_s          staying awake after a message, and for how long
    promotion_w, promotion_s   waking up
    most_w                  no rate takes more than this
    source                  where the figures were published
    """

    name: str
    alpha_up: float
    base_up: float
    alpha_down: float
    base_down: float
    tail_w: float
    tail_s: float
    promotion_w: float
    promotion_s: float
    source: str
    most_w: float = math.inf

    def send_j(self, bits: Any, seconds: Any) -> Any:
        """Joules of sending `bits` in `seconds`; elementwise for arrays."""
        return _moving_j(self.alpha_up, self.base_up, self.most_w, bits, seconds)

    def receive_j(self, bits: Any, seconds: Any) -> Any:
        """Joules of receiving `bits` in `seconds`; elementwise for arrays."""
        return _moving_j(self.alpha_down, self.base_down, self.most_w, bits, seconds)


def _moving_j(alpha: float, base: float, most_w: float, bits: Any, seconds: Any) -> Any:
    """(alpha · bits / seconds + base) · seconds, but never above most_w."""
    joules = alpha * bits + base * seconds
    return joules if math.isinf(most_w) else np.minimum(joules, most_w * seconds)


HUANG = 'Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks", MobiSys 2012'
BOTTLENET = 'Eshratifar et al., "BottleNet", ISLPED 2019, table of radio parameters'

RADIOS = {
    radio.name: radio
    for radio in (
        Radio(
            "3g",
            alpha_up=868.98 * _MW_PER_MBPS,
            base_up=0.81788,
            alpha_down=122.12 * _MW_PER_MBPS,
            base_down=0.81788,
            tail_w=0.8039,
            tail_s=8.0882,
            promotion_w=0.6594,
            promotion_s=0.5821,
            source=f"{BOTTLENET} (sending); {HUANG}, tables 3 and 4 (all of it; of the tail only the part in DCH)",
        ),
        Radio(
            "lte",
            alpha_up=438.39 * _MW_PER_MBPS,
            base_up=1.28804,
            alpha_down=51.97 * _MW_PER_MBPS,
            base_down=1.28804,
            tail_w=1.0600,
            tail_s=11.576,
            promotion_w=1.2107,
            promotion_s=0.2601,
            source=f"{BOTTLENET} (sending); {HUANG}, tables 3 and 4 (all of it)",
        ),
        Radio(
            "wifi",
            alpha_up=283.17 * _MW_PER_MBPS,
            base_up=0.13286,
            alpha_down=137.01 * _MW_PER_MBPS,
            base_down=0.13286,
            tail_w=0.1193,
            tail_s=0.2381,
            promotion_w=0.1244,
            promotion_s=0.0791,
            source=f"{BOTTLENET} (sending); {HUANG}, tables 3 and 4 (all of it). Its line is of slow Wi-Fi; no rate "
            "takes more than 350 mA at 3.7 V, what the Pixel 2 XL's power profile says of sending "
            "(https://android.googlesource.com/device/google/taimen/+/bc9fafa, power_profile.xml)",
            most_w=0.350 * 3.7,
        ),
        Radio(
            "lora",
            alpha_up=0.0,
            base_up=0.029 * 3.3,
            alpha_down=0.0,
            base_down=0.0108 * 3.3,
            tail_w=0.0,
            tail_s=0.0,
            promotion_w=0.0,
            promotion_s=0.0,
            source="Semtech, SX1276 data sheet, power consumption specification: 29 mA sending at +13 dBm, 10.8 mA "
            "receiving (LnaBoost off), at 3.3 V; asleep otherwise. Empty receive windows are left out",
        ),
        Radio(
            "ethernet",
            *(0.0,) * 8,
            source="none: an Ethernet port takes the same power whether it sends or not, which is in the idle power",
        ),
    )
}


def radio_names() -> list[str]:
    """The radios with published figures."""
    return list(RADIOS)


def radio(name: str) -> Radio:
    """The radio of that name; raises UnknownNameError."""
    if name not in RADIOS:
        raise UnknownNameError("radio", name, RADIOS)
    return RADIOS[name]


def radio_of_link(link: str) -> Radio | None:
    """The radio behind a link of that name: that of a preset (3g, lte, wifi, ethernet), None for any other link."""
    return RADIOS.get(link)
