"""What a device learns of its link from the transfers it made itself.

The model of one transfer is `network_s = rtt_s + seconds_per_byte · bytes`. Both unknowns are tracked
by a Kalman filter whose state is a random walk (R. E. Kalman, 1960; in this form "recursive least
squares with forgetting", Haykin, Adaptive Filter Theory, ch. 10). It starts from the prior that the
scenario names. The simulator and the live device feed the same object.
"""

from __future__ import annotations

from splitexit.decision import LinkEstimate


class LinkEstimator:
    """Tracks rtt and seconds per byte.

    Args:
        prior: the belief before the first transfer.
        drift: relative standard deviation by which each unknown may move between two transfers [inferred].
        noise: relative standard deviation of one measured transfer around the model [inferred].
    """

    def __init__(self, prior: LinkEstimate, *, drift: float = 0.05, noise: float = 0.1) -> None:
        self._rtt_s, self._per_byte_s = prior.rtt_s, 8.0 / prior.rate_bps
        self._drift, self._noise = drift, noise
        # The prior is worth about one measurement: half of each value as standard deviation.
        self._p00, self._p01, self._p11 = (0.5 * self._rtt_s) ** 2, 0.0, (0.5 * self._per_byte_s) ** 2
        self._estimate = prior

    @property
    def estimate(self) -> LinkEstimate:
        """The present belief."""
        return self._estimate

    def observe(self, size_bytes: float, network_s: float) -> None:
        """One transfer: bytes sent up, and seconds in transit both ways."""
        self._p00 += (self._drift * self._rtt_s) ** 2
        self._p11 += (self._drift * self._per_byte_s) ** 2
        expected = self._rtt_s + self._per_byte_s * size_bytes
        a = self._p00 + self._p01 * size_bytes
        b = self._p01 + self._p11 * size_bytes
        spread = a + b * size_bytes + (self._noise * expected) ** 2
        if spread <= 0.0:
            return
        gain_rtt, gain_byte = a / spread, b / spread
        error = network_s - expected
        # Neither unknown can be negative: a single lucky transfer must not make the link free.
        self._rtt_s = max(self._rtt_s + gain_rtt * error, 0.1 * self._rtt_s)
        self._per_byte_s = max(self._per_byte_s + gain_byte * error, 0.1 * self._per_byte_s)
        self._p00, self._p01, self._p11 = (
            self._p00 - gain_rtt * a,
            self._p01 - gain_rtt * b,
            self._p11 - gain_byte * b,
        )
        self._estimate = LinkEstimate(8.0 / self._per_byte_s, self._rtt_s)
