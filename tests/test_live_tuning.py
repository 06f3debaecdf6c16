"""What both ends of gRPC tell each other, read off the wire: windows that never limit, pings that are allowed."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from splitexit.live.tuning import CLIENT, KEEPALIVE_MS, PING_MS, SERVER, WINDOW_BYTES, keep_memory, tune_process

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4
SETTINGS, INITIAL_WINDOW_SIZE, WINDOW_UPDATE = 0x4, 0x4, 0x8
USUAL_BYTES = 65_535

Frames = dict[int, bytes]


def frames(connection: socket.socket, *kinds: int) -> Frames:
    """Bodies by type, until these have come."""
    found, content = Frames(), b""
    connection.settimeout(10.0)
    while not set(kinds) <= found.keys():
        content += connection.recv(65_536)
        while len(content) >= 9 and len(content) >= 9 + int.from_bytes(content[:3], "big"):
            size, kind, flags = int.from_bytes(content[:3], "big"), content[3], content[4]
            if size or not flags:
                found.setdefault(kind, content[9 : 9 + size])
            content = content[9 + size :]
    return found


def settings(body: bytes) -> dict[int, int]:
    """What a SETTINGS frame says."""
    return dict(struct.iter_unpack("!HI", body))


def test_the_server_s_windows() -> None:
    """A stream's, and the connection's, which an update on top of the usual 65 535 bytes opens."""
    server = grpc.server(ThreadPoolExecutor(1), options=SERVER)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(PREFACE + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
            found = frames(connection, SETTINGS, WINDOW_UPDATE)
    finally:
        server.stop(0.0)
    assert settings(found[SETTINGS])[INITIAL_WINDOW_SIZE] == WINDOW_BYTES
    assert struct.unpack("!I", found[WINDOW_UPDATE])[0] + USUAL_BYTES >= WINDOW_BYTES


def test_the_client_s_windows() -> None:
    """For the answers; the same at both ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=CLIENT) as channel:
            channel.subscribe(lambda state: None, try_to_connect=True)
            with listener.accept()[0] as connection:
                assert connection.recv(len(PREFACE), socket.MSG_WAITALL) == PREFACE
                found = frames(connection, SETTINGS)
    assert settings(found[SETTINGS])[INITIAL_WINDOW_SIZE] == WINDOW_BYTES


@pytest.mark.parametrize("options", [CLIENT, SERVER])
def test_options_are_named_once(options: tuple[tuple[str, int], ...]) -> None:
    names = [name for name, _ in options]
    assert len(names) == len(set(names))


def test_pings_are_allowed_by_the_server_that_gets_them() -> None:
    """It allows twice as many as come; a dead peer is noticed while a request may still be answered locally."""
    least_ms = dict(SERVER)["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert least_ms < KEEPALIVE_MS == dict(CLIENT)["grpc.keepalive_time_ms"]
    assert PING_MS < KEEPALIVE_MS


def test_tuning_may_be_asked_for_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without glibc too; what the user said of gRPC's messages stands."""
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    tune_process()
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    keep_memory()
    import os

    assert os.environ["GRPC_VERBOSITY"] == "DEBUG"
