"""Codec ids: what is read, what is refused and how."""

from __future__ import annotations

import pytest

from splitexit import codecs
from splitexit.errors import ArtifactError, InputError, UnknownNameError


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("raw", "raw"),
        ("uint8:level=1", "uint8"),
        ("uint8:level=3", "uint8:level=3"),
        ("jpeg:quality=75", "jpeg"),
        ("jpeg:headers=true", "jpeg"),
        ("jpeg:quality=90,headers=false", "jpeg:headers=false,quality=90"),
        ("bottleneck:channels=8", "bottleneck:channels=8"),
        ("affine:per=tensor,pack=lz4,bits=8", "affine:pack=lz4"),
        ("topk:share=.10", "topk"),
        ("range:per=channel,bits=4", "range:bits=4,per=channel"),
        ("splitexit.codecs.raw:Raw", "splitexit.codecs.raw:Raw"),
        ("splitexit.codecs.uint8:Uint8:level=2", "splitexit.codecs.uint8:Uint8:level=2"),
    ],
)
def test_canonical(written: str, canonical: str) -> None:
    """Parameters sorted, defaults left out; a class outside the table is named by its module."""
    assert codecs.canonical(written) == canonical
    assert codecs.canonical(canonical) == canonical


def test_parse_types_the_values() -> None:
    """Only what was given, as the constructor takes it."""
    assert codecs.parse("jpeg:quality=90,headers=false") == ("jpeg", {"quality": 90, "headers": False})
    assert codecs.parse("jpeg") == ("jpeg", {})
    assert codecs.load("png").input_only


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("jepg", "did you mean 'jpeg'"),
        ("", "unknown codec ''"),
        ("jpeg:", "nothing follows the colon"),
        ("jpeg:qualty=3", "no parameter 'qualty'; did you mean 'quality'"),
        ("jpeg:shape=3", "no parameter 'shape'"),
        ("raw:level=3", "no parameter 'level'"),
        ("jpeg:90", "'90' is not key=value"),
        ("jpeg:quality", "'quality' is not key=value; write 'quality=...'"),
        ("jpeg:quality=90,quality=80", "given twice"),
        ("jpeg:quality=high", "expected a whole number >= 1 and <= 95"),
        ("jpeg:quality=0", "quality is '0', expected a whole number >= 1"),
        ("jpeg:quality=96", "expected a whole number"),
        ("jpeg:quality=7_5", "expected a whole number"),
        ("jpeg:quality=७५", "expected a whole number"),
        ("jpeg:quality= 75", "expected a whole number"),
        ("jpeg:headers=no", "headers is 'no', expected true or false"),
        ("affine:per=row", "per is 'row', expected tensor or channel"),
        ("affine:pack=", "pack is '', expected zstd or lz4 or none"),
        ("affine:bits=9", "expected a whole number >= 1 and <= 8"),
        ("topk:share=0", "expected a number > 0 and <= 1"),
        ("bottleneck", "needs channels; write 'bottleneck:channels=...'"),
        ("jpeg:quality=75,,", "'' is not key=value"),
    ],
)
def test_refused(written: str, said: str) -> None:
    """One line with the id, the value and what was expected."""
    for function in (codecs.parse, codecs.canonical):
        with pytest.raises(InputError) as caught:
            function(written)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unknown_names_are_told_apart() -> None:
    """So that a scenario can name every codec there is."""
    with pytest.raises(UnknownNameError) as caught:
        codecs.create("nope", shape=(3, 4, 4))
    assert "jpeg" in caught.value.known


def test_a_learned_codec_needs_its_tensors() -> None:
    """The bundle has none: say so."""
    with pytest.raises(ArtifactError, match="no weights"):
        codecs.create("bottleneck:channels=2", shape=(8, 4, 4))
