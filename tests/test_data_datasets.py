"""Data sets: split and order; the cache; damage; names, folders and the fallback. No test reaches the network."""

import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from cvae import data
from cvae.data import datasets, download
from tests import small_mnist
from tests.small_mnist import IMAGES, LABELS, VALIDATION, files_below, idx_arrays

FOLDER = Path("mnist", "3.0.1")
TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")


def offline(name, root):
    raise ConnectionError("storage.example cannot be reached")


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Use neither the user's cache and data nor the network."""
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr(download, "prepare", offline)


def write_set(root, **arrays):
    """Prepare the small MNIST below `root`."""
    import tensorflow_datasets as tfds

    download.write_folder(tfds.builder_cls("mnist"), root, idx_arrays(**arrays))
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def small(prepared, tmp_path, monkeypatch):
    """A folder with the small MNIST, which a test may damage, and which has the right number of images."""
    monkeypatch.setattr(datasets, "_COUNTS", small_mnist.COUNTS)
    monkeypatch.setattr(datasets, "_VALIDATION", VALIDATION)
    return Path(shutil.copytree(prepared, tmp_path / "small"))


def flat(dataset):
    return [array for split in (dataset.train, dataset.validation, dataset.test) for array in split]


def assert_same(left, right):
    assert left.name == right.name
    for one, other in zip(flat(left), flat(right), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


# Content


def test_set_is_split_in_its_original_order(small):
    dataset = data.load("mnist", small)
    assert dataset[::4] == ("mnist", 10)
    assert dataset.event_shape == (28, 28, 1)
    assert [array.dtype for array in flat(dataset)] == [np.uint8, np.int32] * 3
    for split, part, rows in (
        (dataset.train, "train", slice(VALIDATION, None)),
        (dataset.validation, "train", slice(VALIDATION)),
        (dataset.test, "test", slice(None)),
    ):
        np.testing.assert_array_equal(split.x[..., 0], IMAGES[part][rows])
        np.testing.assert_array_equal(split.label, LABELS[part][rows])


def test_digits_hold_every_image_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    def rows(x, label):
        table = np.concatenate([np.reshape(x, (len(x), 64)), label[:, None]], axis=1).astype(int)
        return table[np.lexsort(table.T)]

    digits, source = data.load("digits"), load_digits()
    assert digits[::4] == ("digits", 10)
    assert [split.x.shape for split in digits[1:4]] == [(1297, 8, 8, 1), (200, 8, 8, 1), (300, 8, 8, 1)]
    assert [array.dtype for array in flat(digits)] == [np.uint8, np.int32] * 3
    actual = rows(*(np.concatenate(arrays) for arrays in zip(*digits[1:4], strict=True)))
    np.testing.assert_array_equal(actual, rows(np.rint(source.data * 255 / 16), source.target))
    # NumPy promises the stream of PCG64, but not the permutation it makes of it.
    assert digits.test.label[:12].tolist() == [6, 5, 5, 0, 4, 4, 8, 4, 9, 2, 6, 8]


@pytest.mark.skipif(
    not Path(TFDS_DATA_DIR or "absent", FOLDER).is_dir(),
    reason="needs the real MNIST: TFDS_DATA_DIR is no folder that holds mnist/3.0.1",
)
def test_real_mnist_has_its_published_checksums(monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", TFDS_DATA_DIR)
    monkeypatch.setattr(logging.root, "handlers", [])
    before = set(sys.modules)
    mnist = data.load("auto")
    assert "tensorflow" not in set(sys.modules) - before
    assert mnist.name == "mnist"
    assert [len(split.x) for split in mnist[1:4]] == [55_000, 5_000, 10_000]
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == []
    original = {
        "train": data.Split(*map(np.concatenate, zip(mnist.validation, mnist.train, strict=True))),
        "test": mnist.test,
    }
    published = {
        "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
        "test": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    }
    for part, (x, label) in original.items():
        for digest, magic, array in zip(published[part], (2051, 2049), (x[..., 0], label), strict=True):
            header = b"".join(number.to_bytes(4, "big") for number in (magic, *array.shape))
            assert hashlib.md5(header + array.astype(np.uint8).tobytes()).hexdigest() == digest


# The cache


def test_cache_is_equal_and_needs_neither_tensorflow_datasets_nor_pillow(small, monkeypatch):
    first = data.load("mnist", small)
    for package in ("tensorflow_datasets", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    assert_same(data.load("mnist", small), first)


def resave(file, **changes):
    np.savez(file, **data.read_npz(file) | changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(file.read_bytes().replace(IMAGES["test"].tobytes(), bytes(IMAGES["test"].size))),
        lambda file: resave(file, test_x=data.read_npz(file)["test_x"][1:]),
        lambda file: resave(file, test_label=data.read_npz(file)["test_label"] + np.int32(1)),
        lambda file: np.savez(file, train_x=data.read_npz(file)["train_x"]),
    ],
    ids=["truncated", "changed", "one image too few", "label of 10", "no labels"],
)
def test_damaged_cache_is_replaced(damage, small, tmp_path):
    first = data.load("mnist", small)
    (file,) = (tmp_path / "cache").iterdir()
    whole, content = data.read_npz(file), file.read_bytes()
    damage(file)
    assert file.read_bytes() != content
    assert_same(data.load("mnist", small), first)
    assert list((tmp_path / "cache").iterdir()) == [file]
    np.testing.assert_equal(data.read_npz(file), whole)


def test_each_folder_and_each_state_of_it_has_its_own_cache(small, tmp_path):
    other = write_set(tmp_path / "other", images={part: 255 - x for part, x in IMAGES.items()})
    first, inverted = data.load("mnist", small), data.load("mnist", other)
    np.testing.assert_array_equal(inverted.test.x, 255 - first.test.x)
    shutil.copytree(other, small, dirs_exist_ok=True)
    assert_same(data.load("mnist", small), inverted)


def test_cache_that_cannot_be_written_is_no_obstacle(small, monkeypatch, tmp_path):
    def fill_up(file, **arrays):
        Path(file).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(np, "savez", fill_up)
        first = data.load("mnist", small)
    assert files_below(tmp_path / "cache") == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path / "file"))
    assert_same(data.load("mnist", small), first)


def test_cache_is_in_the_documented_place(small, monkeypatch, tmp_path):
    monkeypatch.delenv("CVAE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data.load("mnist", small)
    assert len(list((tmp_path / "xdg" / "cvae").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets._cache_file("mnist", small / FOLDER).parent == Path.home() / ".cache" / "cvae"


# Damage


def without_test(info):
    info = json.loads(info)
    return json.dumps(info | {"splits": info["splits"][:1]}).encode()


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("mnist-train*", lambda shard: shard[:70_000]),
        ("dataset_info.json", lambda info: info.replace(b"array_record", b"tfrecord")),
        ("dataset_info.json", without_test),
        ("features.json", lambda features: b"{garbage"),
        ("mnist-test*", None),
        ("dataset_info.json", None),
    ],
)
def test_damaged_folder_is_one_sentence_with_the_way_out(pattern, damage, small, capfd):
    (file,) = (small / FOLDER).glob(pattern)
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(data.DataUnavailable, match=r"cannot be read: .*; repair it") as error:
        data.load("mnist", small)
    assert str(small / FOLDER) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("size", "kind", "reason"),
    [((28, 14), "PNG", r"images of 28x28, got uint8 \(100, 14, 28, 1\)"), ((28, 28), "BMP", "cannot identify")],
)
def test_images_of_another_size_or_format_are_damage(size, kind, reason, small, monkeypatch, tmp_path):
    from PIL import Image

    save = Image.Image.save
    with monkeypatch.context() as context:
        context.setattr(Image.Image, "save", lambda image, stream, _: save(image.crop((0, 0, *size)), stream, kind))
        write_set(tmp_path)
    with pytest.raises(data.DataUnavailable, match=reason):
        data.load("mnist", tmp_path)


def test_a_set_must_be_whole(prepared):
    with pytest.raises(data.DataUnavailable, match="train must hold 60000 images"):
        data.load("mnist", prepared)


def test_missing_package_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(data.DataUnavailable, match=r"tensorflow_datasets.*; install the missing package"):
        data.load("mnist", small)


# Names, folders, fallback


@pytest.mark.parametrize("name", ["mnits", "", None, 3])
def test_unknown_name_is_refused(name):
    message = f"name must be one of auto, mnist, fashion_mnist, kmnist, digits, got {name!r}"
    with pytest.raises(ValueError, match=message):
        data.load(name)


@pytest.mark.parametrize("name", ["auto", *data.NAMES])
def test_named_folder_must_exist(name, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "nowhere", tmp_path / "file", "", 3):
        with pytest.raises(ValueError, match=r"data_dir must be .*, got") as error:
            data.load(name, folder)
        assert not isinstance(error.value, data.DataUnavailable)


def test_absent_set_without_a_network_is_one_sentence_with_the_way_out(tmp_path):
    with pytest.raises(data.DataUnavailable, match=r"storage\.example cannot be reached; .*TFDS_DATA_DIR") as error:
        data.load("kmnist")
    assert str(tmp_path / "absent" / "kmnist" / "3.0.1") in str(error.value)
    assert "--data-dir" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_auto_falls_back_to_digits_with_one_warning(small):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = data.load()
    assert_same(dataset, data.load("digits"))
    (warning,) = caught
    assert (warning.category, warning.filename) == (data.FallbackWarning, __file__)
    for part in ("storage.example cannot be reached", "digits", "--dataset mnist", "load('mnist')"):
        assert part in str(warning.message)
    (small / FOLDER / "dataset_info.json").unlink()
    with pytest.warns(data.FallbackWarning, match="cannot be read"):
        assert data.load("auto", small).name == "digits"
