"""benchmarks/codec_speed.py: everybody is measured at every shape, and the arithmetic by hand."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest

from benchmarks import codec_speed
from splitexit.codecs._zstd import compress, decompress


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command prints with --json."""
    assert codec_speed.main(["--json", "--rounds", "1", "--least-ms", "0", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_everybody_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_speed, "SHAPES", ((8, 6, 4),))
    found = document(capsys)
    assert [one["codec"] for one in found["speeds"]] == [codec_speed.ZSTD, *codec_speed.FEATURES]
    for one in found["speeds"]:
        assert 0 < one["median"] <= one["best"] * (1 + 1e-9)
        assert one["to_zstd"] > 0
        assert one["payload_bytes"] > 0


def test_shapes_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--only", "uint8")
    assert {tuple(one["shape"]) for one in found["speeds"]} == set(codec_speed.SHAPES)
    assert {one["codec"] for one in found["speeds"]} == {codec_speed.ZSTD, "uint8"}


def test_speed_by_hand() -> None:
    """1 MB of fp32 in 4 + 1 ms and in 3 + 1 ms, while zstd took 10 ms and 6 ms."""
    seconds, of_zstd = np.array([[0.004, 0.001], [0.003, 0.001]]), np.array([[0.008, 0.002], [0.005, 0.001]])
    one = codec_speed.speed("x", (250, 100, 10), b"four", seconds, of_zstd)
    assert one.payload_bytes == 4
    assert (one.best, one.median) == pytest.approx((250.0, 1 / 0.0045))
    assert (one.encode_us, one.decode_us) == pytest.approx((3500.0, 1000.0))
    assert one.to_zstd == pytest.approx((2.0 + 1.5) / 2)


def test_a_context_that_is_used_again_keeps_nothing() -> None:
    """A frame is the same bytes whatever came before it, in a thread that is new as in one that is not."""
    rng = np.random.default_rng(0)
    blocks = [np.minimum(rng.geometric(0.2, 5000), 255).astype(np.uint8).tobytes() for _ in range(8)]
    frames = [compress(block, 1) for block in blocks]
    fresh: list[bytes] = []
    for block in blocks:
        thread = threading.Thread(target=lambda data=block: fresh.append(compress(data, 1)))
        thread.start()
        thread.join()
    assert fresh == frames == [compress(block, 1) for block in blocks]
    assert [decompress(frame, 5000) for frame in reversed(frames)] == blocks[::-1]
