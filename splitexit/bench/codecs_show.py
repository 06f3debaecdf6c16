"""The table and the sentences of `splitexit bench codecs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

CODEC = 22
"""Columns for a codec's id in the narrowest table; a longer one goes on in the next line."""


@dataclass(frozen=True)
class Column:
    """One column: its head, how wide its widest cell is, and what it says of a row."""

    head: str
    width: int
    cell: Callable[[Document], str]


def heads(width: int) -> list[Column]:
    """The columns that fit into a terminal of this width, in order of importance."""
    chosen, left = list(COLUMNS[:NARROW]), width - sum(column.width + 1 for column in COLUMNS[:NARROW])
    for column in COLUMNS[NARROW:]:
        left -= column.width + 1
        if left < 0:
            break
        chosen.append(column)
    return chosen


def ordered(rows: Sequence[Document]) -> list[Document]:
    """By split, fewest bytes first."""
    return sorted(rows, key=lambda row: (row["split"], row["bytes"]))


def markdown(document: Document) -> str:
    """The whole table with what belongs to it, for a document."""
    lines = [[column.head for column in COLUMNS], ["---", "---", *["---:"] * (len(COLUMNS) - 2)]]
    lines += [[column.cell(row) for column in COLUMNS] for row in ordered(document["rows"])]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    machine = document["machine"]
    made = f"`{document['command']}`, on {machine['cpu']} with {machine['cores']} cores, torch {machine['torch']}"
    said = "".join(f"- {line}\n" for line in sentences(document))
    return f"# Codecs of {document['name']}\n\n{made}, bootstrap seed {document['seed']}.\n\n{table}\n{said}"


def sentences(document: Document) -> list[str]:
    """What the table means, in a line each."""
    return [
        f"{document['test']['images']} test images, {document['plain_accuracy']:.2f} % right without a codec",
        *(f"note: {note}" for note in document["notes"]),
        *EXPLAINED,
        *map(_of_split, document["splits"]),
        *_verdict(document["verdict"]),
    ]


EXPLAINED = (
    "*, +: on the front of bytes and accuracy of all rows, of its split; jpeg, webp: without headers",
    "JPEG: times fewer bytes than the smallest measured JPEG as accurate, at quality q; <q: none is, the best one",
    "image: bytes of the best image codec at that accuracy, interpolated between qualities (inferred); <, >: at most, "
    "at least, beyond what was measured",
    "points: against no codec on the same images, with a 95 % bootstrap interval; device: share of the MACs, with the "
    "encoder's",
    "bytes, enc, dec: of single samples back to back, on one thread, times as medians in ms; MB/s: of fp32 features, "
    "through both; the network behind them runs on batches of decoded samples",
)


def _of_split(split: Document) -> str:
    zstd, shape = split["zstd3"], "×".join(map(str, split["shape"]))
    return (
        f"split {split['split']}: {shape}, {split['fp32_bytes']} bytes in fp32, {split['device_share']:.0%} of the "
        f"MACs; zstd level 3 of fp32: {zstd['fp32_ratio']:.2f}, {zstd['mb_s']:.0f} MB/s"
    )


def _verdict(found: Document | None) -> list[str]:
    if found is None:
        return ["no codec of features loses at most 2 points with at most half of the MACs on the device"]
    row, few, share = found["against_images"], found["fewest_bytes"], found["device_share_at_most"]
    ratio, sign = row["image_ratio"], {"at most": "at most ", "at least": "at least "}.get(row["image_how"], "")
    times = f"{ratio:.2f} times fewer than" if ratio > 1 else f"{1 / ratio:.2f} times as many as"
    return [
        f"of codecs that leave at most {share:.0%} of the MACs on the device and lose at most "
        f"{found['points_lost_at_most']:g} points",
        f"best against images: {row['codec']} at split {row['split']}, {row['bytes']:.0f} bytes at "
        f"{row['accuracy']:.2f} %, {times} the {sign}{row['image_bytes']:.0f} of an image codec",
        f"fewest bytes: {few['codec']} at split {few['split']}, {few['bytes']:.0f} bytes, "
        f"{few['fp32_ratio']:.0f} times fewer than fp32",
    ]


def _name(row: Document) -> str:
    """The codec's id; image codecs are without headers where nothing else is said."""
    name, _, parameters = str(row["codec"]).partition(":")
    given = [of for of in parameters.split(",") if of]
    if name not in ("jpeg", "webp"):
        return str(row["codec"])
    left = [of for of in given if of != "headers=false"]
    return f"{name}:{left[0] if left else 'quality=75'}" + (" +headers" if len(left) == len(given) else "")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _marked(row: Document) -> str:
    return f"{row['split']}{'*' if row['front'] else '+' if row['split_front'] else ''}"


def _jpeg(row: Document) -> str:
    _, _, quality = str(row["jpeg"]).partition("quality=")
    return f"{_number(row['jpeg_ratio'])} {'q' if row['jpeg_reaches'] else '<q'}{quality or 75}"


def _points(row: Document) -> str:
    points, low, high = (_signed(row["difference"][key]) for key in ("points", "low", "high"))
    return f"{points} [{low}, {high}]"


def _signed(points: float) -> str:
    return f"{points:+.2f}" if abs(points) < 9.995 else f"{points:+.1f}"


def _image(row: Document) -> str:
    sign = {"at most": "<", "at least": ">"}.get(row["image_how"], "")
    return f"{sign}{row['image_bytes']:.0f}"


COLUMNS = (
    Column("split", 5, _marked),
    Column("codec", CODEC, _name),
    Column("bytes", 7, lambda row: _number(row["bytes"])),
    Column("fp32", 5, lambda row: _number(row["fp32_ratio"])),
    Column("JPEG", 10, _jpeg),
    Column("%", 5, lambda row: f"{row['accuracy']:.2f}"),
    Column("points", 20, _points),
    Column("image", 6, _image),
    Column("device", 6, lambda row: f"{row['device_share']:.0%}"),
    Column("p95", 6, lambda row: _number(row["bytes_p95"])),
    Column("enc ms", 6, lambda row: f"{row['encode_ms']:.3f}"),
    Column("dec ms", 6, lambda row: f"{row['decode_ms']:.3f}"),
    Column("MB/s", 5, lambda row: _number(row["mb_s"])),
    Column("enc MACs", 8, lambda row: f"{row['encoder_macs']:,}"),
)
NARROW = 7
"""Columns of every table; they fit into 80 characters."""
