"""Where labelled images come from, still encoded: Parquet in the Hugging Face layout, folders, `datasets`."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from splitexit.errors import DataError

Array = np.ndarray[Any, Any]
LABEL_COLUMNS = ("label", "labels", "fine_label")
IMAGE_COLUMNS = ("image", "img")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


@dataclass(frozen=True)
class RawSet:
    """n encoded images with int64 labels; `origins` says for every image which file and row it is."""

    images: list[bytes]
    labels: Array
    class_names: tuple[str, ...]
    origins: list[str]


def read_raw(source: str, split: str) -> RawSet:
    """Finds out what `source` is and reads it; raises DataError."""
    path = Path(source)
    if path.is_file():
        return read_parquet([path])
    if path.is_dir():
        return _read_folder(path, split)
    if any(sign in source for sign in "*?["):
        return read_parquet([Path(name) for name in sorted(glob.glob(source))] or _missing(source))
    if path.suffix or path.is_absolute() or source.startswith((".", "~")):
        _missing(source)
    return _read_datasets(source, split)


def _missing(source: str) -> list[Path]:
    raise DataError(f"{source}: no such file; expected Parquet files, a folder of images, or a `datasets` name")


def _read_folder(path: Path, split: str) -> RawSet:
    word = re.compile(rf"(^|[/_.-]){split}([/_.-]|$)")
    files = [f for f in sorted(path.rglob("*.parquet")) if word.search(f.relative_to(path).as_posix())]
    if files:
        return read_parquet(files)
    return read_image_folder(path / split if (path / split).is_dir() else path)


def read_parquet(files: list[Path]) -> RawSet:
    """Parquet files of one split: column image = struct{bytes, path} or binary, and a label column.

    Labels are whole numbers, named by the metadata, or words, which are numbered in sorted order.
    """
    tables = [_read_table(file) for file in files]
    words = sorted({word for file, table in zip(files, tables, strict=True) for word in _words(file, table)})
    parts = [_part(file, table, words) for file, table in zip(files, tables, strict=True)]
    names = parts[0].class_names
    for file, part in zip(files, parts, strict=True):
        if part.class_names != names:
            raise DataError(f"{file}: its class names differ from those of {files[0]}")
    labels = np.concatenate([part.labels for part in parts])
    images = [image for part in parts for image in part.images]
    return RawSet(images, labels, names, [where for part in parts for where in part.origins])


def _read_table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {' '.join(str(error).split())[:120]}") from error


def _words(file: Path, table: pa.Table) -> list[str]:
    """The labels that there are, where they are words; raises DataError for what is neither words nor numbers."""
    column = table[_column(file, table, LABEL_COLUMNS, "label")]
    if column.null_count:
        raise DataError(f"{file}: row {column.is_null().to_pylist().index(True)}: no label")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(map(str, column.unique().to_pylist()))
    if not pa.types.is_integer(kind):
        raise DataError(f"{file}: expected labels as whole numbers from 0, or as words, found {column.type}")
    return []


def _part(file: Path, table: pa.Table, words: list[str]) -> RawSet:
    """One file's; `words` are the labels of all files, sorted, where they are words."""
    label_column = _column(file, table, LABEL_COLUMNS, "label")
    image_column = _column(file, table, IMAGE_COLUMNS, "image")
    images = _bytes(file, table[image_column].combine_chunks())
    origins = [f"{file}: row {row}" for row in range(len(images))]
    for image, where in zip(images, origins, strict=True):
        if image is None:
            raise DataError(f"{where}: the image has no bytes (only a path?); store the encoded image itself")
    labels, names = table[label_column].to_pylist(), _class_names(table, label_column)
    if labels and isinstance(labels[0], str):
        labels, names = _numbered(labels, words), tuple(words)
    return RawSet(images, np.array(labels, np.int64), names, origins)


def _numbered(labels: list[str], words: list[str]) -> list[int]:
    numbers = {word: number for number, word in enumerate(words)}
    return [numbers[word] for word in labels]


def _column(file: Path, table: pa.Table, wanted: tuple[str, ...], kind: str) -> str:
    for name in wanted:
        if name in table.column_names:
            return name
    raise DataError(f"{file}: no {kind} column; expected {' or '.join(wanted)}, found {table.column_names}")


def _bytes(file: Path, column: Any) -> list[bytes]:
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"{file}: expected images as struct{{bytes, path}} or binary, found {column.type}")
    values: list[bytes] = column.to_pylist()
    return values


def _class_names(table: pa.Table, label_column: str) -> tuple[str, ...]:
    """From the schema metadata: `class_names`, or the features that Hugging Face `datasets` writes."""
    metadata = table.schema.metadata or {}
    try:
        if b"class_names" in metadata:
            return tuple(map(str, json.loads(metadata[b"class_names"])))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return tuple(map(str, features.get(label_column, {}).get("names", ())))
    except (ValueError, AttributeError, TypeError):
        return ()


def read_image_folder(root: Path) -> RawSet:
    """One folder for every class, its name the class name; classes and files in sorted order."""
    classes = sorted(folder for folder in root.iterdir() if folder.is_dir())
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{root}: no Parquet files and no images; expected {root}/<class>/*.png or the like")
    return RawSet(
        [file.read_bytes() for file, _ in files],
        np.array([label for _, label in files], dtype=np.int64),
        tuple(folder.name for folder in classes),
        [str(file) for file, _ in files],
    )


def _read_datasets(name: str, split: str) -> RawSet:
    """A data set of the Hugging Face hub by its name, through the package `datasets` if it is installed."""
    try:
        import datasets  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name}: no such file or folder; if it is the name of a Hugging Face data set, "
            "first `pip install datasets`"
        ) from error
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets raises many kinds; all mean that the set cannot be had
        raise DataError(f"{name}: `datasets` cannot load it: {' '.join(str(error).split())[:160]}") from error
    return _from_datasets(name, loaded, datasets)


def _from_datasets(name: str, loaded: Any, datasets: Any) -> RawSet:
    label = next((c for c in LABEL_COLUMNS if c in loaded.column_names), None)
    image = next((c for c in IMAGE_COLUMNS if c in loaded.column_names), None)
    if label is None or image is None:
        raise DataError(f"{name}: expected the columns image and label, found {loaded.column_names}")
    rows, labels, names = loaded.cast_column(image, datasets.Image(decode=False)), list(loaded[label]), ()
    if labels and isinstance(labels[0], str):
        words = sorted(set(labels))
        labels, names = _numbered(labels, words), tuple(words)
    return RawSet(
        [row["bytes"] or Path(row["path"]).read_bytes() for row in rows[image]],
        np.array(labels, dtype=np.int64),
        names or tuple(getattr(loaded.features[label], "names", ())),
        [f"{name}: row {number}" for number in range(len(rows))],
    )
