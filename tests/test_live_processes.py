"""Children of a live run: what they say, how they fail, that none is left behind, and how memory and names are kept."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from splitexit.errors import InputError, PolicyError, ProcessError, UsageError
from splitexit.live import processes
from splitexit.live.processes import Child, Line, enter, hurry, settle_memory, uninterrupted
from tests.live_process import ROOT, wait_for


@contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[Child]:
    """A child named "helper", ended at the end."""
    started = Child("helper", work, *arguments)
    try:
        yield started
    finally:
        started.close()
        started.close()


def parrot(line: Line, greeting: str) -> None:
    """Says what it is told, until it is told to end."""
    line.say(greeting)
    line.handlers["shout"] = lambda: line.tell("shouted")
    while (message := line.next("say", "end"))[0] != "end":
        line.tell("repeated", *message[1:])


def fail(line: Line, how: str) -> None:
    """Ends in one of many ways."""
    match how:
        case "wrong":
            raise UsageError("--listen: no such port")
        case "broken policy":
            raise PolicyError("plan: no such split")
        case "process":
            raise ProcessError("no edge")
        case "bug":
            raise ValueError("two\nlines")
        case "module":
            import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            time.sleep(60)


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_conversation() -> None:
    """Messages in order; what is said on the way goes to the one who listens; handlers do not wait for their turn."""
    said: list[str] = []
    with child(parrot, "hello") as helper:
        helper.tell("say", 1, [2])
        assert helper.expect("repeated", say=said.append) == (1, [2])
        assert said == ["helper: hello"]
        helper.tell("shout")
        assert helper.receive(10.0) == ("shouted",)
        assert alive(helper.pid)
    assert not alive(helper.pid)


def test_a_message_out_of_turn() -> None:
    with child(parrot, "hello") as helper:
        helper.tell("sing")
        with pytest.raises(ProcessError, match="helper: told to sing, when it was to say or end"):
            helper.expect("repeated")


def test_ctrl_c_is_the_parents_affair() -> None:
    """The child goes on."""
    with child(parrot, "hello") as helper:
        helper.expect("said")
        os.kill(helper.pid, signal.SIGINT)
        helper.tell("say", "still here")
        assert helper.expect("repeated") == ("still here",)


@pytest.mark.parametrize(
    ("how", "error", "what"),
    [
        ("wrong", InputError, "helper: --listen: no such port"),
        ("broken policy", InputError, "helper: plan: no such split"),
        ("process", ProcessError, "helper: no edge"),
        ("bug", ProcessError, "helper: internal error: ValueError: two lines"),
        ("module", ModuleNotFoundError, "nowhere_to_be_found"),
        ("exit", ProcessError, "helper ended with exit code 3"),
        ("killed", ProcessError, r"helper was killed \(SIGKILL\)"),
    ],
)
def test_failures_become_the_parents_errors(how: str, error: type[Exception], what: str) -> None:
    with child(fail, how) as helper:
        with pytest.raises(error, match=what):
            helper.expect("loaded")
        helper.tell("whatever")  # nobody hears it, nothing breaks


def test_nothing_is_heard_for_too_long() -> None:
    with child(fail, "silent") as helper:
        with pytest.raises(ProcessError, match="helper: nothing heard of it for 0 s"):
            helper.expect("loaded", within_s=0.1)
        helper.kill()
        with pytest.raises(ProcessError, match="was killed"):
            helper.receive()


PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.test_live_processes import parrot
from splitexit.live.processes import Child
if __name__ == "__main__":
    child = Child("helper", parrot, "hello")
    child.expect("said")
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_no_child_outlives_its_parent() -> None:
    """Not even where the parent had no chance to end it."""
    done = subprocess.run([sys.executable, "-c", PARENT, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_for(lambda: not alive(int(done.stdout)))


def test_interrupts_wait_for_the_end_of_the_block() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)
        reached.append(2)
    assert reached == [1]


def test_memory_is_settled_again_and_again() -> None:
    settle_memory()
    first = gc.get_freeze_count()
    settle_memory()
    assert first > 1000
    assert abs(gc.get_freeze_count() - first) < first / 2
    gc.unfreeze()


def test_precedence_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not granted, nothing happens."""

    def refuse(by: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "nice", refuse)
    hurry()


def test_a_namespace_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    enter(None)
    with pytest.raises(ProcessError, match="cannot enter the network namespace 'nowhere': No such file"):
        enter("nowhere")
    monkeypatch.setattr(processes, "NAMESPACES", ROOT)
    with pytest.raises(ProcessError, match=r"cannot enter the network namespace 'Makefile'"):
        enter("Makefile")
