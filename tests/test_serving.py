"""What serves until it is told to end hears that, whenever it comes."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = """
import os, random, signal, threading
from splitexit.cli.serving import until_signalled

meet, rounds, rng = threading.Barrier(2), 1000, random.Random(0)

def tell():
    for _ in range(rounds):
        meet.wait()
        for _ in range(rng.randrange(400)):
            pass
        os.kill(os.getpid(), rng.choice([signal.SIGTERM, signal.SIGINT]))

threading.Thread(target=tell, daemon=True).start()
for _ in range(rounds):
    with until_signalled() as wait:
        meet.wait()
        wait()
print(rounds)
"""


def test_no_signal_is_missed() -> None:
    """A signal just before the wait, and one as it begins; with a threading.Event, one of some hundred was missed."""
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")
