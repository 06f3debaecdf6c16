"""What a bundle costs on this machine, here and now, for runs that follow at once."""

from __future__ import annotations

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.live.rpc import measure_rpc


def calibrate_host(bundle: Bundle, repetitions: int = 60) -> Calibration:
    """A short calibration of every recorded pair, and of what a call costs."""
    from splitexit.models import calibrate

    pairs, images = calibrate.recorded_pairs(bundle), calibrate.read_images(bundle, None)
    return calibrate.calibrate(bundle, pairs, images, repetitions=repetitions, rpc=measure_rpc(bundle.path))
