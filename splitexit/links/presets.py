"""Typical links by the name of their technology: constant rates and delays as they were published.

Delays are half of a measured round trip to a server next to the access network; a more distant server
adds to them, for which `constant` takes any numbers.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from splitexit.errors import InputError
from splitexit.links import Ms
from splitexit.links._jitter import Distribution
from splitexit.links._tcp import Transport
from splitexit.links.constant import Constant

Direction = Literal["up", "down"]


class Preset(Constant):
    """A constant link whose numbers are known.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.

    UP, DOWN  Mbit/s, and ms one way
    """

    UP: ClassVar[tuple[float, float]]
    DOWN: ClassVar[tuple[float, float]]

    def __init__(
        self,
        *,
        direction: Direction = "up",
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        if direction not in get_args(Direction):
            raise InputError(f"direction {direction!r}: expected up or down")
        mbps, delay_ms = self.UP if direction == "up" else self.DOWN
        super().__init__(
            mbps=mbps, delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms
        )
        self.direction = direction


class ThreeG(Preset):
    """3G (UMTS/HSPA): 1.1 Mbit/s up, 1.472 down, 50 ms each way.

    Up: Eshratifar et al., "BottleNet", ISLPED 2019, table of radio parameters. Down: mean of the first 360 s of
    mahimahi's trace TMobile-UMTS-driving.down (Netravali et al., USENIX ATC 2015). Delay: half of 100 ms, the
    lower end of 3G's range in Grigorik, High Performance Browser Networking, 2013, table 7-2.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP, DOWN = (1.1, 50.0), (1.472, 50.0)


class Lte(Preset):
    """4G (LTE): 5.85 Mbit/s up, 13 down, 9.95 ms each way.

    Up: Eshratifar et al., "BottleNet", ISLPED 2019, table of radio parameters. Down: median of Huang et al.,
    "A Close Examination of Performance and Power Characteristics of 4G LTE Networks", MobiSys 2012. Delay: half
    of 19.9 ms to an edge server, Braud et al., "Multipath Computation Offloading for Mobile Augmented Reality",
    PerCom 2020, table I.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP, DOWN = (5.85, 9.95), (13.0, 9.95)


class FiveG(Preset):
    """5G (non-standalone, low band): 75.5 Mbit/s up, 154.2 down, 7.5 ms each way.

    Narayanan et al., "A Variegated Look at 5G in the Wild", SIGCOMM 2021, its published speed tests
    (dataset_speedtest_ookla.csv): medians of the 570 tests of type 5G-NSA-Low-Band, two carriers in the USA;
    delay: half of their median latency, 15 ms, over the 12 tests with a server within 50 km.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP, DOWN = (75.5, 7.5), (154.2, 7.5)


class WiFi(Preset):
    """Wi-Fi: 18.88 Mbit/s and 1.85 ms each way.

    Up: Eshratifar et al., "BottleNet", ISLPED 2019, table of radio parameters; down: taken to be the same, both
    ways sharing one channel. Delay: half of 3.7 ms to an edge server, Braud et al., "Multipath Computation
    Offloading for Mobile Augmented Reality", PerCom 2020, table I.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP = DOWN = (18.88, 1.85)


class Ethernet(Preset):
    """Gigabit Ethernet over 100 m of copper: 1000 Mbit/s, 0.57 µs each way.

    IEEE 802.3, clause 40 (1000BASE-T): rate, length and the largest delay of a link segment, 570 ns (40.7). No
    switch is counted.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP = DOWN = (1000.0, 0.00057)


class Lora(Preset):
    """LoRaWAN at its fastest on 125 kHz (SF7): 5.47 kbit/s, nothing up and 1 s down.

    LoRa Alliance, RP002 LoRaWAN Regional Parameters, EU863-870: data rate DR5, 5470 bit/s; it is SF · BW / 2^SF ·
    4/5 (Semtech AN1200.22). Delay: a device of class A listens RECEIVE_DELAY1 = 1 s after it has sent. Frames of
    at most 242 bytes, their headers and the duty cycle of 1 % are left out: the real thing is slower.

    Args:
        direction: up from the device or down to it; by default what it is used for.
        jitter_ms: by how much the delay varies around its own; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    UP, DOWN = (0.00547, 0.0), (0.00547, 1000.0)
