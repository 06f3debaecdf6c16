"""Every error that splitexit raises on purpose, in one tree.

    SplitexitError
    ├── InputError               something the user gave is wrong
    │   ├── ScenarioError        a scenario, with every problem found and its file:line:column
    │   ├── UnknownNameError     a name that is in no table, with the nearest one that is
    │   ├── ArtifactError        a bundle, recording or calibration: missing, corrupt, mismatched
    │   ├── DataError            an image set
    │   ├── TraceError           a bandwidth trace, with file:line
    │   └── UsageError           an option or argument of a command
    ├── PolicyError              a policy broke its contract (an undeclared read, an impossible plan)
    ├── PayloadError             bytes that are not a payload of this codec and shape
    │   └── UnknownReferenceError   a payload that refers to an earlier tensor, which is not here
    ├── ProcessError             a process of a live run did not start, or ended before its time
    └── EdgeError                talking to the edge
        ├── EdgeUnavailableError nobody answers there
        └── EdgeRefusedError     the edge answers, but not to this device (another bundle, another protocol)

A message is one line: what is wrong, where, what was expected, what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended: 128 and the number of SIGINT, as shells have it."""


class SplitexitError(Exception):
    """Base of all errors; `exit_code` is what the command line returns for it."""

    exit_code = 2


class InputError(SplitexitError):
    """Something the user gave is wrong."""


class UnknownNameError(InputError):
    """A name that is in no table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, self.known)}")


class ArtifactError(InputError):
    """A bundle, recording or calibration is missing, corrupt or does not fit."""


class DataError(InputError):
    """An image set cannot be read."""


class TraceError(InputError):
    """A bandwidth trace cannot be used."""


class UsageError(InputError):
    """An option or argument of a command is wrong."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a scenario: where (line and column count from 1; 0 = unknown) and what.

    `source` is the place instead of file and line for what does not come from the file (`--set x=1`).
    """

    line: int
    column: int
    where: str
    what: str
    source: str = ""


class ScenarioError(InputError):
    """A scenario is wrong; `problems` lists everything found, in the order of the file."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file, self.problems = file, sorted(problems)
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        place = f"{self.file}:{problem.line}:{problem.column}" if problem.line else problem.source or self.file
        where = f" {problem.where}:" if problem.where else ""
        return one_line(f"{place}:{where} {problem.what}")


class PolicyError(SplitexitError):
    """A policy broke its contract."""


class PayloadError(SplitexitError):
    """Bytes that are not a payload of this codec and shape."""


class UnknownReferenceError(PayloadError):
    """A payload says how a tensor differs from another one, which is not here."""


class ProcessError(SplitexitError):
    """A process of a live run did not start, or ended before its time."""

    exit_code = 1


class EdgeError(SplitexitError):
    """Talking to the edge failed."""


class EdgeUnavailableError(EdgeError):
    """Nobody answers at the edge's address."""

    exit_code = 1


class EdgeRefusedError(EdgeError):
    """The edge answers, but serves another bundle or speaks another protocol."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known ones, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(repr(n) for n in near)}?"
    return f"; known: {', '.join(known)}" if known else ""


def one_line(text: str) -> str:
    """The same with every character that does not print escaped, line ends among them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
