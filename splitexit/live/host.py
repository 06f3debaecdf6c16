"""What a bundle costs on this machine, here and now, for runs that follow at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Rpc
from splitexit.experiment import Experiment
from splitexit.live.network import NETWORKS, Network
from splitexit.live.rpc import measure_rpc
from splitexit.live.tuning import keep_memory
from splitexit.scenario import dump, load

WIDE = {"name": "constant", "mbps": 1e6, "delay_ms": 0.0}
"""A link that takes no time: what a call then takes beyond loopback is the emulator's own doing."""

CORUN_ROUNDS = 3
RPC_CALLS = 150


def calibrate_host(
    bundle: Bundle,
    repetitions: int = 60,
    network: str = "proxy",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """A short calibration of every recorded pair, of what a call through such a network costs, and of co-running.

    Args:
        repetitions: samples that are timed.
        network: a name of NETWORKS.
        progress: told (done, total) samples.

    Raises InputError where the bundle does not fit or there is no such network, ProcessError where a process does not
    start, EdgeUnavailableError where calls fail.
    """
    from splitexit.models import calibrate, corun

    NETWORKS.load(network).require()
    pairs, images = calibrate.recorded_pairs(bundle), calibrate.read_images(bundle, None)
    rpc = rpc_through(bundle, network, RPC_CALLS)
    keep_memory()  # as in the processes of a live run
    return calibrate.calibrate(
        bundle,
        pairs,
        images,
        repetitions=repetitions,
        rpc=rpc,
        corun=corun.measure_corun(bundle, CORUN_ROUNDS),
        command=f"calibrated for a live run, --network {network}",
        progress=progress,
    )


def rpc_through(bundle: Bundle, network: str, calls: int) -> Rpc:
    """What a call costs through an unshaped network of this kind; raises as `calibrate_host`."""
    with _unshaped(bundle, network) as through:
        return measure_rpc(bundle.path, calls, through)


@contextmanager
def _unshaped(bundle: Bundle, network: str) -> Iterator[Network]:
    """One device and links that take no time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "unshaped.yaml"
        path.write_text(dump({"bundle": str(bundle.path.resolve()), "uplink": WIDE, "downlink": WIDE}))
        experiment = Experiment.open(load(path))
    made: Network = NETWORKS.load(network)(experiment)
    try:
        yield made
    finally:
        made.close()
