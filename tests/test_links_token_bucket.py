"""The token bucket against its closed form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.links.token_bucket import TokenBucket


def test_by_hand() -> None:
    """8 Mbit/s is 1 kB a millisecond; the bucket holds 10 kB."""
    fifo = Fifo(TokenBucket(mbps=8.0, depth_kb=10.0, delay_ms=5.0))
    assert fifo.send(0.0, 4000) == (0.0, 0.0, 0.005)  # 6 kB left
    assert fifo.send(0.0, 9000)[1] == pytest.approx(0.003)  # 3 kB short
    assert fifo.send(0.003, 1000)[1] == pytest.approx(0.004)  # empty
    assert fifo.send(0.009, 8000)[1] == pytest.approx(0.012)  # 5 ms gave 5 kB
    assert fifo.send(9.0, 10_000)[1] == 9.0  # full again, not fuller
    assert fifo.send(9.0, 1000)[1] == pytest.approx(9.001)


def test_by_hand_with_a_peak() -> None:
    """40 Mbit/s, 5 kB a millisecond, as long as there are tokens: 10 kB last 2.5 ms."""
    fifo = Fifo(TokenBucket(mbps=8.0, depth_kb=10.0, peak_mbps=40.0))
    assert fifo.send(0.0, 5000)[1] == pytest.approx(0.001)  # 10 - 5 + 1 = 6 kB left
    assert fifo.send(0.001, 7500)[1] == pytest.approx(0.0025)  # the last token at the last byte
    assert fifo.send(0.0025, 2000)[1] == pytest.approx(0.0045)


@given(sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
def test_back_to_back(sizes: list[int]) -> None:
    """Everything offered at once has gone after max(0, total - depth) / rate."""
    fifo = Fifo(TokenBucket(mbps=8.0, depth_kb=30.0))
    end_s = [fifo.send(0.0, size)[1] for size in sizes][-1]
    assert end_s == pytest.approx(max(0.0, sum(sizes) - 30_000) / 1e6, abs=1e-9)


@given(messages=st.lists(st.tuples(st.floats(0.0, 0.2), st.integers(1, 100_000)), max_size=30))
def test_never_more_than_rate_and_depth_allow(messages: list[tuple[float, int]]) -> None:
    """Over every stretch from one end to another at most depth + rate t bytes; and no message later than it must."""
    fifo, slow = Fifo(TokenBucket(mbps=8.0, depth_kb=20.0)), Fifo(Constant(mbps=8.0))
    now_s, ends = 0.0, []
    for gap_s, size_bytes in messages:
        now_s += gap_s
        ends.append((fifo.send(now_s, size_bytes)[1], size_bytes))
        assert ends[-1][0] <= slow.send(now_s, size_bytes)[1] + 1e-9
    for first in range(len(ends)):
        for last in range(first, len(ends)):
            total = sum(size for _, size in ends[first : last + 1])
            # The first of them may have begun to wait before; its bytes go with the tokens of its end.
            allowed = 20_000 + 1e6 * (ends[last][0] - ends[first][0])
            assert total - ends[first][1] <= allowed + 1e-3


def test_a_peak_below_the_rate_is_the_rate() -> None:
    link = TokenBucket(mbps=8.0, depth_kb=10.0, peak_mbps=4.0)
    assert link.mean_bps == 4e6
    assert Fifo(link).send(0.0, 500_000)[1] == pytest.approx(1.0)
