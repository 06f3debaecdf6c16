"""Settings of gRPC and of the C library, the same at both ends."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

Option = tuple[str, int]

WINDOW_BYTES = 64 * 2**20
"""Of HTTP/2's flow control. A receiver grants the sender so much per call before it has read any of it (RFC 9113,
section 5.2); with the usual 65 535 bytes a larger message waits a round trip for the next grant, on a warm connection
too. Larger than any message, it never limits; how much memory a message may take is limited by its own size."""

# A dead peer is noticed after KEEPALIVE_MS + PING_MS. Pings less than five minutes apart are cut off by
# servers unless both ends allow them.
KEEPALIVE_MS, PING_MS = 10_000, 5_000

_BOTH: tuple[Option, ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", PING_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),  # it sizes the window, which is large already, by pings that cost bytes
)
SERVER: tuple[Option, ...] = (
    *_BOTH,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server behind it
)
# With gRPC's own back-off a device needs seconds to notice that the edge is back.
CLIENT: tuple[Option, ...] = (
    *_BOTH,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
_KEPT_BYTES = 128 * 2**20


def keep_memory() -> None:
    """Has glibc keep freed memory instead of returning it to the kernel after every large buffer.

    By default each buffer over 128 KiB is mapped and unmapped, and every page of it faults again: raising
    the thresholds cut a 1 MB upload from 5.4 to 1.5 ms. Elsewhere than on glibc it does nothing.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD):
            mallopt(parameter, _KEPT_BYTES)


def tune_process() -> None:
    """For a process that serves or is a device, before gRPC is imported."""
    keep_memory()
    # What matters is said in one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
