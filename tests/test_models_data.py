"""Reading image sets: every layout gives the same pixels; every mistake says where it is."""

import io
import json
import sys
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from splitexit.errors import DataError, UsageError
from splitexit.models import data

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = ("ant", "bee", "cow")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, images, labels=LABELS, metadata=None, label="label", image="image"):
    rows = [{"bytes": data_, "path": None} for data_ in images]
    table = pa.table({image: rows, label: pa.array(labels, pa.int8())})
    if metadata is None:
        metadata = {"class_names": json.dumps(NAMES)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


@pytest.fixture
def parquet(tmp_path):
    return write(tmp_path / "train.parquet", [png(p) for p in PIXELS])


def test_parquet_gives_pixels_labels_and_names(parquet):
    images = data.read(parquet)
    assert np.array_equal(images.images, PIXELS)
    assert np.array_equal(images.labels, LABELS)
    assert images.class_names == NAMES
    assert images.shape == (3, 8, 8)


def test_pixels_as_the_network_takes_them(parquet):
    image = data.read(parquet).pixels(5)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, PIXELS[5].transpose(2, 0, 1) / np.float32(255))


@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_hugging_face_metadata_and_label_columns(tmp_path, label):
    features = {"info": {"features": {label: {"names": list(NAMES), "_type": "ClassLabel"}}}}
    source = write(
        tmp_path / "a.parquet",
        map(png, PIXELS),
        label=label,
        image="img",
        metadata={"huggingface": json.dumps(features)},
    )
    assert data.read(source).class_names == NAMES


def test_without_names_classes_are_numbered(tmp_path):
    assert data.read(write(tmp_path / "a.parquet", map(png, PIXELS), metadata={})).class_names == ("0", "1", "2")


def test_several_files_and_folders_give_the_same_set(tmp_path, parquet):
    whole = data.read(parquet)
    shards = tmp_path / "set" / "data"
    shards.mkdir(parents=True)
    for part in range(2):
        half = slice(6 * part, 6 * part + 6)
        write(shards / f"train-{part}-of-2.parquet", map(png, PIXELS[half]), LABELS[half])
    write(shards / "test-0-of-1.parquet", map(png, PIXELS[:3]), LABELS[:3])
    write(shards / "latest-of-trainees.parquet", map(png, PIXELS[:4]), LABELS[:4])
    assert data.read(str(tmp_path / "set")).sha256 == whole.sha256
    assert data.read(str(shards / "train-*")).sha256 == whole.sha256
    assert len(data.read(str(tmp_path / "set"), "test")) == 3


def test_image_folder(tmp_path):
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        folder = tmp_path / "train" / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(png(pixels))
    images = data.read(str(tmp_path))
    order = np.argsort(LABELS, kind="stable")
    assert images.class_names == NAMES
    assert np.array_equal(images.images, PIXELS[order])


def test_grey_images_have_one_channel_unless_three_are_asked_for(tmp_path):
    source = write(tmp_path / "grey.parquet", [png(p[..., 0]) for p in PIXELS])
    assert data.read(source).shape == (1, 8, 8)
    assert data.read(source, channels=3).shape == (3, 8, 8)


def test_a_few_grey_images_in_a_colour_set_become_colour(tmp_path):
    mixed = [png(p[..., 0] if number < 2 else p) for number, p in enumerate(PIXELS)]
    assert data.read(write(tmp_path / "mixed.parquet", mixed)).shape == (3, 8, 8)


def test_images_of_several_sizes_need_resize(tmp_path):
    images = [png(p) for p in PIXELS]
    images[4] = png(PIXELS[4, :6])
    source = write(tmp_path / "sizes.parquet", images)
    with pytest.raises(DataError, match=r"sizes\.parquet: row 4: 8×6 pixels .*--resize 8"):
        data.read(source)
    assert data.read(source, resize=16).shape == (3, 16, 16)


@pytest.mark.parametrize("broken", [b"", b"not an image", png(PIXELS[0])[:60]])
def test_a_corrupt_image_is_named(tmp_path, broken):
    images = [png(p) for p in PIXELS]
    images[7] = broken
    with pytest.raises(DataError, match=r"bad\.parquet: row 7: .*\w"):
        data.read(write(tmp_path / "bad.parquet", images))


def test_an_image_without_bytes_is_named(tmp_path):
    images = [png(p) for p in PIXELS]
    images[2] = None
    with pytest.raises(DataError, match=r"row 2: the image has no bytes"):
        data.read(write(tmp_path / "bad.parquet", images))


def test_a_label_out_of_range_is_named(tmp_path):
    labels = LABELS.copy()
    labels[9] = 3
    with pytest.raises(DataError, match=r"row 9: label 3 .* 0\.\.2"):
        data.read(write(tmp_path / "a.parquet", map(png, PIXELS), labels))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"image": [b"x"]}, "no label column"),
        ({"label": [1]}, "no image column"),
        ({"image": ["x"], "label": [1]}, "binary, found string"),
        ({"image": [b"x"], "label": [1.0]}, "whole numbers"),
        ({"image": [b"x"], "label": [None]}, "whole numbers|row 0: no label"),
        ({"image": [b"x", b"x"], "label": [1, None]}, "row 1: no label"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int8())}, "no images"),
    ],
)
def test_wrong_columns_say_what_is_expected(tmp_path, table, words):
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        data.read(str(tmp_path / "a.parquet"))


def test_files_that_are_not_there_or_not_parquet(tmp_path):
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a readable Parquet"):
        data.read(str(tmp_path / "text.parquet"))
    with pytest.raises(DataError, match="no such file"):
        data.read(str(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match="no Parquet files and no images"):
        (tmp_path / "empty").mkdir()
        data.read(str(tmp_path / "empty"))


def test_a_data_set_by_name_says_how_to_install_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        data.read("uoft-cs/cifar10")


def test_a_data_set_by_name_is_read_through_datasets(monkeypatch):
    class Loaded:
        column_names = ("img", "label")
        features = MappingProxyType({"label": type("ClassLabel", (), {"names": list(NAMES)})})

        def cast_column(self, name, feature):
            assert name == "img"
            return self

        def __getitem__(self, name):
            return [{"bytes": png(p), "path": None} for p in PIXELS] if name == "img" else LABELS.tolist()

        def __len__(self):
            return len(PIXELS)

    fake = type(sys)("datasets")
    fake.load_dataset = lambda name, split: Loaded()
    fake.Image = lambda decode: None
    monkeypatch.setitem(sys.modules, "datasets", fake)
    images = data.read("someone/animals")
    assert np.array_equal(images.images, PIXELS)
    assert images.class_names == NAMES


def test_digest_knows_pixels_labels_and_order(parquet):
    images = data.read(parquet)
    other = data.ImageSet(images.images, images.labels[::-1], NAMES, "x")
    assert images.sha256 == data.read(parquet).sha256
    assert len({images.sha256, other.sha256, images.take(np.arange(11)).sha256}) == 3


def test_mean_and_std(parquet):
    mean, std = data.read(parquet).mean_std()
    np.testing.assert_allclose(mean, PIXELS.mean((0, 1, 2)) / 255)
    np.testing.assert_allclose(std, PIXELS.std((0, 1, 2)) / 255)


def test_split_off_is_stratified_disjoint_and_fixed():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    kept, held = data.split_off(labels, 0.1)
    assert np.bincount(labels[held]).tolist() == [10, 5, 1]
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(160))
    assert np.array_equal(data.split_off(labels, 0.1)[1], held)


def test_limit(parquet):
    assert np.array_equal(data.read(parquet, limit=5).images, PIXELS[:5])


def test_labels_that_are_words(tmp_path):
    """Numbered in sorted order, over all files of a split; dictionaries of words are words."""
    words = np.array(["cow", "ant", "bee"])[LABELS]
    rows = pa.array([{"bytes": png(p), "path": None} for p in PIXELS])
    (tmp_path / "train").mkdir()
    for number, part in enumerate((slice(0, 1), slice(1, 12))):
        labels = pa.array(words[part])
        table = pa.table({"image": rows[part], "label": labels.dictionary_encode() if number else labels})
        pq.write_table(table, tmp_path / "train" / f"train-{number}.parquet")
    images = data.read(str(tmp_path))
    assert images.class_names == NAMES
    assert [NAMES[label] for label in images.labels] == words.tolist()
    write(tmp_path / "train" / "train-2.parquet", [png(p) for p in PIXELS], metadata={})
    with pytest.raises(DataError, match=r"train-2\.parquet: its class names differ from those of .*train-0\.parquet"):
        data.read(str(tmp_path))


def folder(root, classes):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        (root / name / "a.png").write_bytes(png(PIXELS[number]))
    return str(root)


def test_classes_of_test_images_are_matched_by_name(tmp_path, parquet):
    """A folder without an image of one class numbers the others anew; parts in another order do, too."""
    shape = (3, 8, 8)
    few = data.read_test(folder(tmp_path / "few", ["bee", "cow"]), shape, NAMES)
    assert few.labels.tolist() == [1, 2]
    assert few.class_names == NAMES
    turned = {"class_names": json.dumps(NAMES[::-1])}
    images = [png(p) for p in PIXELS]
    assert data.read_test(write(tmp_path / "t.parquet", images, metadata=turned), shape, NAMES).labels.tolist() == [
        2 - label for label in LABELS
    ]
    nameless = write(tmp_path / "n.parquet", images, metadata={})
    assert np.array_equal(data.read_test(nameless, shape, NAMES).labels, LABELS)
    assert np.array_equal(data.read_test(parquet, shape, ("0", "1", "2")).labels, LABELS)
    with pytest.raises(UsageError, match="class 'dog' is none of those that the network knows: ant, bee, cow"):
        data.read_test(folder(tmp_path / "other", ["ant", "dog"]), shape, NAMES)
    with pytest.raises(UsageError, match="class '2' is none of those that the network knows: ant, bee"):
        data.read_test(nameless, shape, NAMES[:2])
    with pytest.raises(UsageError, match=r"images of \(3, 8, 8\), the network takes \(3, 9, 9\)"):
        data.read_test(parquet, (3, 9, 9), NAMES)
