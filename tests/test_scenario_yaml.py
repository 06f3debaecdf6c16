"""The strict YAML reader: what things mean, where they stand, what is refused (promise 9)."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit.errors import ScenarioError
from splitexit.scenario.scalars import dump, resolve, shown
from splitexit.scenario.strict_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, Place, parse, read
from tests.test_floors import ROOT


def problems(content: bytes | str) -> list[str]:
    """Every problem of a document as `line:column: path: what`."""
    try:
        document = parse(content, "f.yaml")
    except ScenarioError as error:
        return str(error).splitlines()
    return str(ScenarioError("f.yaml", document.problems)).splitlines() if document.problems else []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        (".5", 0.5),
        ("12", 12),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *[
            (word, word)
            for word in ("no", "on", "yes", "off", "y", "1_000", "1:30", "0b1", "2024-01-01", "=", "e3", ".")
        ],
    ],
)
def test_plain_scalars_mean_what_the_core_schema_says(text: str, value: Any) -> None:
    found = parse(f"a: {text}", "f.yaml").value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan"])
def test_infinities_are_numbers(text: str) -> None:
    assert not math.isfinite(parse(f"a: {text}", "f.yaml").value["a"])


def test_quoted_and_block_scalars_are_text() -> None:
    document = parse("a: '1'\nb: \"true\"\nc: |\n  2\nd: >\n  x\n  y\n", "f.yaml")
    assert document.value == {"a": "1", "b": "true", "c": "2\n", "d": "x y\n"}


def test_keys_are_text() -> None:
    assert parse("1: a\ntrue: b\nnull: c", "f.yaml").value == {"1": "a", "true": "b", "null": "c"}


def test_every_key_and_value_has_its_place() -> None:
    document = parse("a:\n  b: [1, {c: x}]\n", "f.yaml")
    assert document.place(("a",), of_key=True) == Place(1, 1)
    assert document.place(("a",)) == Place(2, 3)
    assert document.place(("a", "b")) == Place(2, 6)
    assert document.place(("a", "b", 0)) == Place(2, 7)
    assert document.place(("a", "b", 1, "c")) == Place(2, 14)
    assert document.place(("a", "b", 1, "c"), of_key=True) == Place(2, 11)
    assert document.place(("a", "missing")) == Place(1, 1), "what is not there stands at the key above it"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "f.yaml:2:11: b.c: duplicate key 'c', first on line 2; keep one of the two"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a: duplicate key 'a', first on line 1; keep one of the two"),
        ("a: &x 1", "f.yaml:1:4: a: an anchor, '&x'; take it out"),
        ("a: *x", "f.yaml:1:4: a: an alias, '*x'; write the value out"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: a: a tag, 'tag:yaml.org,2002:python/object"),
        ("a: !x 1", "f.yaml:1:4: a: a tag, '!x'; take it out, or quote the text"),
        ("<<: {a: 1}", "f.yaml:1:1: <<: a merge key, '<<'; write the keys out"),
        ("a:\n\tb: 1", "f.yaml:2:1: a: a tab where YAML wants spaces; indent with spaces"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document; one file holds one scenario"),
        ("", "f.yaml:1:1: empty; `splitexit init` writes a commented scenario"),
        ("# nothing\n", "f.yaml:1:1: empty; `splitexit init` writes a commented scenario"),
        ("? [a]\n: 1", "f.yaml:1:3: a key must be plain text"),
        ("? {a: b}\n: 1", "f.yaml:1:3: a key must be plain text"),
        ("a: 1\nb: [1, 2\nc: 3", "f.yaml:3:2: b.2: not YAML: expected ',' or ']', but got ':', while parsing a flow"),
        ("a: b: c", "f.yaml:1:5: not YAML: mapping values are not allowed here"),
        (b"a: 1\nb: \xe9\n", "f.yaml:2:4: not UTF-8 text; save it as UTF-8"),
        (b"\xff\xfea\x00", "f.yaml:1:1: not UTF-8 text; save it as UTF-8"),
        ("a: 1\nb: \x00", "f.yaml:2:4: the character U+0000 is not allowed"),
        (r'a: "\0"', "f.yaml:1:4: a: text with the character U+0000; take it out"),
        (r'a: "\e[31m"', "f.yaml:1:4: a: text with the character U+001B; take it out"),
        (r'a: "\ud800"', "f.yaml:1:4: a: text with the character U+D800; take it out"),
        (r'a: "\U00110000"', "f.yaml:1:7: a: an escape or number out of range"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1", "f.yaml:1:9: an escape or number out of range"),
        (f"a: {'9' * 5000}", "f.yaml:1:4: a: a number of 5000 characters; at most 30"),
    ],
)
def test_refused_with_its_place(content: bytes | str, expected: str) -> None:
    found = problems(content)
    assert any(line.startswith(expected) for line in found), found


def test_says_all_that_is_wrong_at_once() -> None:
    assert len(problems("a: &x 1\nb: *x\na: !t 3\n<<: 4\n")) == 5


def test_byte_order_mark_is_no_character() -> None:
    assert parse(b"\xef\xbb\xbfa: 1", "f.yaml").value == {"a": 1}


def test_limits_are_exact() -> None:
    depth = MAX_DEPTH
    assert parse("[" * depth + "]" * depth, "f").value is not None
    assert "nested deeper" in problems("[" * (depth + 1) + "]" * (depth + 1))[0]
    assert len(parse(f"[{'1,' * (MAX_NODES - 1)}]", "f").value) == MAX_NODES - 1
    assert f"more than {MAX_NODES} keys and values" in problems(f"[{'1,' * MAX_NODES}]")[0]
    assert parse(b"a: 1 #".ljust(MAX_BYTES), "f").value == {"a": 1}
    assert "128 KiB" in problems(b"a: 1 #".ljust(MAX_BYTES + 1))[0]


N = MAX_BYTES - 16
HOSTILE: dict[str, bytes | str] = {
    "flow lists": "[" * N,
    "flow mappings": "{" * N,
    "nested flow mappings": "{a: " * (N // 4),
    "block lists": "- " * (N // 2),
    "explicit keys": "? " * (N // 2),
    "indented keys": "\n".join(" " * i + "a:" for i in range(500)),
    "aliases": "a: &a [x]\n" + "\n".join(f"a{i}: [*a,*a,*a,*a]" for i in range(N // 24)),
    "billion laughs": "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 99)),
    "duplicates": "a: 1\n" * (N // 5),
    "many keys": "".join(f"k{i}: 1\n" for i in range(N // 12)),
    "many values": "[" + "a," * (N // 2),
    "one word": "a" * N,
    "open quote": '"' + "a " * (N // 2),
    "escapes": '"' + r"\x41" * (N // 4),
    "folded": "'" + "a\n" * (N // 2),
    "plain lines": "a\n" * (N // 2),
    "block text": "a: |\n" + " x\n" * (N // 3),
    "anchors": "&a " * (N // 3),
    "question marks": "?\n" * (N // 2),
    "blank": "a:" + " " * N,
    "newlines": "a:" + "\n" * N,
    "comments": "#\n" * (N // 2),
    "tabs": "\t" * N,
    "digits": "a: " + "9" * N,
    "percent": "%" * N,
    "zeros": bytes(N),
    "high bytes": b"\xff" * N,
    "too large": b"a" * (64 * MAX_BYTES),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_promise_9_hostile_documents_end_within_a_second(kind: str) -> None:
    start = time.process_time()
    found = problems(HOSTILE[kind])
    assert time.process_time() - start < 1.0
    assert len(found) <= 101
    assert all(len(line) < 300 for line in found)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak of resident memory")
def test_promise_9_hostile_documents_take_less_than_100_MB(tmp_path: Path) -> None:
    """The peak of a process that reads every one of them, the interpreter included."""
    for number, content in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    code = (
        "import sys, pathlib\n"
        "from splitexit.errors import ScenarioError\n"
        "from splitexit.scenario.strict_yaml import read\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: read(path)\n"
        "    except ScenarioError: pass\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 1024, "KiB"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    with pytest.raises(ScenarioError, match=r"quickstar.yaml: no such file; did you mean 'quickstart.yaml'\?$"):
        read(tmp_path / "quickstar.yaml")
    with pytest.raises(ScenarioError, match="x.yaml: no such file; `splitexit init` writes one$"):
        read(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory$"):
        read(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read: embedded null byte$"):
        read(Path("a\0b"))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
printable = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), include_characters="\n\t"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | printable,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
        max_leaves=12,
    ),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_what_is_dumped_is_read_back(value: Any, flow: bool) -> None:
    document = parse(dump(value, flow), "f.yaml")
    assert document.value == value
    assert not document.problems


@pytest.mark.parametrize(
    "text", ["1e3", "0o17", "0x1f", "no", "null", "<<", "1_0", "", " a", "a: b", "# a", "9" * 5000]
)
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    assert parse(dump({"a": text}), "f.yaml").value == {"a": text}


@given(st.text() | st.binary() | plain.map(lambda value: dump(value)))
@settings(max_examples=1000, deadline=1000)
def test_promise_9_any_text_is_a_document_or_problems_with_places(content: bytes | str) -> None:
    """A thousand random documents; ten thousand in tests/test_scenario_fuzz.py, whose documents are scenarios."""
    for line in problems(content):
        assert line.startswith("f.yaml:")
        assert line.isprintable()


@given(plain)
@settings(max_examples=200, deadline=None)
def test_values_in_messages_are_short_and_printable(value: Any) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= 40


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_resolving_never_fails(text: str) -> None:
    resolve(text)
