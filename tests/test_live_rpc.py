"""What a call costs, measured against an edge in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError
from splitexit.live import wire
from splitexit.live.rpc import measure_rpc


def test_what_a_call_costs(live_bundle: Bundle) -> None:
    """Framing of tens of bytes up; a reply is its logits and framing; a fraction of a millisecond or a few."""
    rpc = measure_rpc(live_bundle.path, calls=40)
    assert 40 <= rpc.uplink_overhead_bytes <= 300
    logits_bytes = 4 * live_bundle.spec.num_classes
    assert logits_bytes + 30 <= rpc.downlink_bytes <= logits_bytes + 300
    assert 1e-4 < rpc.seconds.median < 0.02
    assert rpc.seconds.at(0.0) <= rpc.seconds.median <= rpc.seconds.at(1.0)


def test_framing_fits_into_the_cap(live_bundle: Bundle) -> None:
    assert measure_rpc(live_bundle.path, calls=2).uplink_overhead_bytes < wire.FRAME_BYTES


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such bundle"):
        measure_rpc(tmp_path / "none")
