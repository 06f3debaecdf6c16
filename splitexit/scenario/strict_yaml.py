"""A strict reader for YAML: the data, and the line and column of every key and value.

PyYAML's safe loader takes alias bombs, keeps the last of duplicate keys, reads `1e3` as a string and `no` as
False, and ends in RecursionError on deep nesting. This reader builds the data itself from PyYAML's stream of
events, so that nothing recurses and every limit holds before memory is spent:

- mappings, lists and scalars only; aliases, anchors, tags, merge keys and second documents are refused;
- keys are text, and none may occur twice;
- plain scalars mean what YAML 1.2's core schema says (so `no`, `on` and `yes` are text, `1e3` is a number);
- at most `MAX_BYTES` of UTF-8, `MAX_DEPTH` levels, `MAX_NODES` keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from splitexit.errors import Problem, ScenarioError, did_you_mean
from splitexit.scenario.scalars import is_number, resolve, shown

MAX_BYTES = 2**17
MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_PROBLEMS = 100
MAX_NUMBER = 30  # characters; a 64-bit number has 20 digits

Keys = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


@dataclass(frozen=True)
class Place:
    """Where something stands: line and column count from 1; `source` instead, if it is not in the file."""

    line: int = 0
    column: int = 0
    source: str = ""


@dataclass
class Document:
    """A document with its places.

    Args:
        file: its name in messages.
        value: mappings as dict, lists as list, scalars as str, int, float, bool or None.
        values, keys: for every path, where its value and its key stand.
        problems: what was wrong but did not keep the rest from being read.
    """

    file: str
    value: Any = None
    values: dict[Keys, Place] = field(default_factory=dict)
    keys: dict[Keys, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Keys, of_key: bool = False) -> Place:
        """Where the value (or the key) at `path` stands; for what is not there, the nearest key above it."""
        for end in range(len(path), 0, -1):
            upper = path[:end]
            prefer = (self.values, self.keys) if end == len(path) and not of_key else (self.keys, self.values)
            for places in prefer:
                if upper in places:
                    return places[upper]
        return self.values.get((), Place())

    def problem(self, path: Keys, what: str, of_key: bool = False) -> Problem:
        """A problem with what stands at `path`."""
        place = self.place(path, of_key)
        return Problem(place.line, place.column, _short(dotted(path)), what, place.source)


def dotted(path: Keys) -> str:
    """A path as people write it: `devices.arrivals.rate_hz`."""
    return ".".join(map(str, path))


def read(path: Path) -> Document:
    """The document in a file; raises ScenarioError where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        near = did_you_mean(path.name, _neighbours(path)) or "; `splitexit init` writes one"
        raise ScenarioError(str(path), [Problem(0, 0, "", f"no such file{near}")]) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(str(path), [Problem(0, 0, "", f"cannot be read: {why}")]) from error
    return parse(content, str(path))


def _neighbours(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []


def parse(content: bytes | str, file: str) -> Document:
    """The document in `content`; raises ScenarioError where reading cannot go on."""
    builder = _Builder(Document(file))
    text = builder.decode(content)
    builder.build(text)
    return builder.document


@dataclass
class _Open:
    """A mapping or list whose end has not come yet; `key` is the mapping's key that waits for its value."""

    container: dict[str, Any] | list[Any]
    path: Keys
    key: str | None = None

    @property
    def next_path(self) -> Keys:
        return (*self.path, len(self.container) if isinstance(self.container, list) else str(self.key))

    def add(self, value: Any) -> None:
        if isinstance(self.container, list):
            self.container.append(value)
        else:
            self.container.setdefault(str(self.key), value)  # the first of duplicates stays
            self.key = None


class _Builder:
    """Builds a document from events; a stack of open containers takes the place of recursion."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.stack: list[_Open] = []
        self.nodes = self.documents = 0

    def decode(self, content: bytes | str) -> str:
        if isinstance(content, bytes):
            if len(content) > MAX_BYTES:
                self.stop(Place(), f"larger than {MAX_BYTES // 1024} KiB, the limit for a scenario")
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                self.stop(_position(content[: error.start].decode("utf-8-sig")), "not UTF-8 text; save it as UTF-8")
        return content

    def build(self, text: str) -> None:
        try:
            events = yaml.SafeLoader(text)
        except yaml.reader.ReaderError as error:
            self.stop(_position(text[: error.position]), f"the character U+{error.character:04X} is not allowed")
        try:
            while events.check_event():
                self.take(events.get_event())  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            self.stop(_place(error.problem_mark or error.context_mark), _syntax(error))
        except (ValueError, OverflowError):  # escapes beyond Unicode, huge version numbers
            self.stop(_place(events.get_mark()), "an escape or number out of range")
        finally:
            events.dispose()
        if not self.documents:
            self.stop(Place(1, 1), "empty; `splitexit init` writes a commented scenario")

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.stop(_place(event.start_mark), "a second document; one file holds one scenario")
        elif isinstance(event, yaml.NodeEvent):
            self.node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.stack.pop()

    def node(self, event: yaml.NodeEvent) -> None:
        place = _place(event.start_mark)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.stop(place, f"more than {MAX_NODES} keys and values")
        self.refuse_extras(event, place)
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.container, dict) and top.key is None:
            self.key(top, event, place)
        else:
            self.value(event, place, top.next_path if top else ())

    def refuse_extras(self, event: yaml.NodeEvent, place: Place) -> None:
        if isinstance(event, yaml.AliasEvent):
            self.complain(place, f"an alias, {shown(f'*{event.anchor}')}; write the value out")
        elif event.anchor is not None:
            self.complain(place, f"an anchor, {shown(f'&{event.anchor}')}; take it out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.complain(place, f"a tag, {shown(tag)}; take it out, or quote the text")

    def key(self, top: _Open, event: yaml.NodeEvent, place: Place) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self.stop(place, "a key must be plain text")
        top.key = key = event.value
        self.check_text(key, place)
        if key == "<<" and event.style is None:
            self.complain(place, "a merge key, '<<'; write the keys out")
        first = self.document.keys.setdefault(top.next_path, place)
        if first is not place:
            self.complain(place, f"duplicate key {shown(key)}, first on line {first.line}; keep one of the two")

    def value(self, event: yaml.NodeEvent, place: Place, path: Keys) -> None:
        value = self.build_value(event, place)
        self.document.values.setdefault(path, place)
        if self.stack:
            self.stack[-1].add(value)
        else:
            self.document.value = value
        if isinstance(value, dict | list):
            if len(self.stack) == MAX_DEPTH:
                self.stop(place, f"nested deeper than {MAX_DEPTH} levels")
            self.stack.append(_Open(value, path))

    def build_value(self, event: yaml.NodeEvent, place: Place) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        if not isinstance(event, yaml.ScalarEvent):
            return None
        self.check_text(event.value, place)
        if event.style is not None:
            return event.value
        if len(event.value) > MAX_NUMBER and is_number(event.value):
            self.complain(place, f"a number of {len(event.value)} characters; at most {MAX_NUMBER}")
            return 0
        return resolve(event.value)

    def check_text(self, text: str, place: Place) -> None:
        if match := _FORBIDDEN.search(text):
            self.complain(place, f"text with the character U+{ord(match[0]):04X}; take it out")

    def note(self, place: Place, what: str) -> None:
        self.document.problems.append(Problem(place.line, place.column, _short(dotted(self.path())), what))

    def path(self) -> Keys:
        """Where building has come to."""
        top = self.stack[-1] if self.stack else None
        if top is None:
            return ()
        return top.next_path if isinstance(top.container, list) or top.key is not None else top.path

    def complain(self, place: Place, what: str) -> None:
        self.note(place, what)
        if len(self.document.problems) == MAX_PROBLEMS:
            self.stop(place, "and perhaps more; the rest was not read")

    def stop(self, place: Place, what: str) -> NoReturn:
        self.note(place, what)
        raise ScenarioError(self.document.file, self.document.problems)


# Control characters, and halves of surrogate pairs: neither prints, nor names a file.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _place(mark: Any) -> Place:
    return Place() if mark is None else Place(mark.line + 1, mark.column + 1)


def _position(before: str) -> Place:
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in str(error.problem):
        return "a tab where YAML wants spaces; indent with spaces"
    said: Sequence[str | None] = (error.problem, error.context)
    return "not YAML: " + " ".join(", ".join(part for part in said if part).split())
