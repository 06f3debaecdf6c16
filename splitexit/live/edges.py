"""The edge of a live run: a process that listens, and others that wait to take its place when it is killed."""

from __future__ import annotations

import math
from collections.abc import Callable

from splitexit.experiment import HOST, Experiment
from splitexit.live.address import Address
from splitexit.live.children import EdgeOrder, serve
from splitexit.live.network import Place
from splitexit.live.processes import Child

Say = Callable[[str], None]


class Edges:
    """One edge at a time, always at the same address.

    Args:
        experiment: what to serve, and at whose times.
        place: where it is to listen at first.
        say: told what is being started.

    present   the process that listens; None while the edge is down
    address   where it listens
    """

    def __init__(self, experiment: Experiment, place: Place, say: Say) -> None:
        self._experiment, self._place, self._say = experiment, place, say
        self._spares: list[Child] = []
        self._loading: list[Child] = []
        self.address = place.address
        config = experiment.scenario.edge
        say(f"starting the edge: {config.hardware}, {config.workers} worker{'s' * (config.workers > 1)}")
        self.present: Child | None = self._new()
        self._have(self._replacements)

    @property
    def _replacements(self) -> int:
        """How many a run needs."""
        return sum(down.end_s < math.inf for down in self._experiment.downtimes)

    def _have(self, spares: int) -> None:
        """Starts as many as there are too few."""
        missing = spares - len(self._spares) - len(self._loading)
        if missing > 0:
            self._say("starting what replaces the edge while it is down")
            self._loading += [self._new() for _ in range(missing)]

    def _new(self) -> Child:
        experiment, config = self._experiment, self._experiment.scenario.edge
        pairs = experiment.host.decode.keys() | experiment.recording.test.pairs.keys()
        calibration = None if config.hardware == HOST else experiment.edge_calibration
        order = EdgeOrder(experiment.bundle.path, config, tuple(sorted(pairs)), calibration, self._place.namespace)
        return Child("edge", serve, order)

    def listen(self) -> Address:
        """Waits until the first one has loaded and listens; where."""
        assert self.present is not None, "nobody is there to listen"
        self.present.expect("loaded", say=self._say)
        self._let_listen(self.present)
        return self.address

    def _let_listen(self, child: Child) -> None:
        child.tell("listen", self.address)
        (self.address,) = child.expect("listening", say=self._say)

    def prepare(self) -> None:
        """Before a run: one listens, and as many as the run will need wait with everything loaded."""
        self._have(self._replacements + (self.present is None))
        while self._loading:
            self._loading[0].expect("loaded", say=self._say)
            self._spares.append(self._loading.pop(0))
        if self.present is None:
            self.replace()

    def kill(self) -> None:
        """The edge is gone, at once and with all that it had."""
        if self.present is not None:
            self.present.close()
            self.present = None

    def replace(self) -> None:
        """One that waited listens where the last one did."""
        self.present = self._spares.pop(0)
        self._let_listen(self.present)

    def close(self) -> None:
        """Ends all; may be called twice."""
        for child in [*self._loading, *self._spares, *filter(None, [self.present])]:
            child.close()
