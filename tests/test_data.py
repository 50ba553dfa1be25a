"""Data sets: sizes and splits, the cache, damage, fallback, and preparation against a server on this machine."""

import gzip
import hashlib
import http.server
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cvae import data, download

SMALL = data._Sizes(train=70, validation=30, test=40)
TRAIN_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
TEST_COUNTS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
FOLDER = Path("mnist", "3.0.1")
TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")

needs_mnist = pytest.mark.skipif(
    not (TFDS_DATA_DIR and Path(TFDS_DATA_DIR, FOLDER).is_dir()),
    reason="needs the real MNIST: TFDS_DATA_DIR names no folder that holds mnist/3.0.1",
)


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """No test sees the user's cache or data, and none reaches the network unless it says how."""
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr(download, "_reach", lambda url: pytest.fail(f"reached for {url}"))
    monkeypatch.setattr(download, "_fetch", lambda url, checksum: pytest.fail(f"fetched {url}"))


def flat(dataset):
    """Every array of a data set, in order."""
    return [array for split in (dataset.train, dataset.validation, dataset.test) for array in split]


def assert_same(left, right):
    assert left.name == right.name
    for ours, theirs in zip(flat(left), flat(right), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


# A small MNIST of our own: real IDX files, a real server, real checksums; only the pictures are noise.


def idx(array):
    rank = array.ndim.to_bytes(1, "big")
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(b"\0\0\x08" + rank + shape + array.tobytes())


@pytest.fixture(scope="module")
def raw():
    """Pictures and labels in original order, by the prefix of their files."""
    rng = np.random.default_rng(3)
    sizes = {"train": SMALL.train + SMALL.validation, "t10k": SMALL.test}
    return {
        prefix: (rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8))
        for prefix, n in sizes.items()
    }


def idx_arrays(raw):
    """The same arrays by the name of the file each would come in."""
    kinds = ("images-idx3", "labels-idx1")
    return {
        f"{prefix}-{kind}-ubyte.gz": array
        for prefix, arrays in raw.items()
        for kind, array in zip(kinds, arrays, strict=True)
    }


@pytest.fixture(scope="module")
def served(raw, tmp_path_factory):
    """A folder of IDX files and the address at which they are served."""
    folder = tmp_path_factory.mktemp("served")
    for file, array in idx_arrays(raw).items():
        (folder / file).write_bytes(idx(array))

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def mirror(monkeypatch, served):
    """Point the stock builder's addresses and checksums at the server; returns the table of checksums."""
    import tensorflow_datasets as tfds

    folder, address = served
    checksums = tfds.core.download.checksums
    table = {address + path.name: checksums.compute_url_info(path) for path in folder.iterdir()}
    monkeypatch.setattr(tfds.builder_cls("mnist"), "url_infos", table)
    monkeypatch.setattr(download, "_reach", REACH)
    monkeypatch.setattr(download, "_fetch", FETCH)
    monkeypatch.setenv("NO_PROXY", "*")
    return table


REACH, FETCH = download._reach, download._fetch  # the real ones, before the fixture above replaces them


@pytest.fixture(scope="module")
def prepared(served, tmp_path_factory):
    """A data_dir in which the small set was prepared by way of the server."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as monkeypatch:
        mirror(monkeypatch, served)
        before = set(sys.modules)
        download.prepare_set("mnist", root)
    assert "tensorflow" not in set(sys.modules) - before
    return root


@pytest.fixture
def small(prepared, tmp_path):
    """A copy of the small set that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "small"))


def load_small(root):
    return data._load_prepared("mnist", root, SMALL)


def stock_order(salt, n):
    """The order that tensorflow-datasets documents: by the MD5 of the split's name and the example's key."""
    return sorted(range(n), key=lambda key: hashlib.md5(f"{salt}{key}".encode()).hexdigest())


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_prepared_set_is_the_raw_one_in_its_original_order(prepared, raw):
    dataset = load_small(prepared)
    images, labels = raw["train"]
    held = SMALL.validation
    np.testing.assert_array_equal(dataset.validation.x[..., 0], images[:held])
    np.testing.assert_array_equal(dataset.validation.label, labels[:held])
    np.testing.assert_array_equal(dataset.train.x[..., 0], images[held:])
    np.testing.assert_array_equal(dataset.train.label, labels[held:])
    images, labels = raw["t10k"]
    np.testing.assert_array_equal(dataset.test.x[..., 0], images)
    np.testing.assert_array_equal(dataset.test.label, labels)
    assert (dataset.name, dataset.num_classes) == ("mnist", 10)
    assert {array.dtype for array in flat(dataset)} == {np.dtype(np.uint8), np.dtype(np.int32)}


def test_prepared_set_is_readable_by_the_stock_builder(prepared):
    import tensorflow_datasets as tfds

    ours = load_small(prepared).test
    builder = tfds.builder("mnist", data_dir=prepared)
    theirs = list(builder.as_data_source(split="test"))
    assert str(builder.version) == "3.0.1"
    order = stock_order("test", len(theirs))
    np.testing.assert_array_equal(np.stack([example["image"] for example in theirs]), ours.x[order])
    np.testing.assert_array_equal([example["label"] for example in theirs], ours.label[order])


def test_preparing_leaves_only_the_prepared_folder_and_says_nothing(served, monkeypatch, tmp_path, capfd):
    table, root, handlers = mirror(monkeypatch, served), tmp_path / "new", list(logging.root.handlers)
    dataset = load_small(root)
    assert len(dataset.train.x) == SMALL.train
    assert len(table) == 4
    assert {str(Path(file).parent) for file in files_below(root)} == {str(FOLDER)}
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == handlers


def test_preparing_a_set_that_another_process_finishes_first_is_no_error(prepared, raw, tmp_path):
    import tensorflow_datasets as tfds

    class Overtaken:
        def __iter__(self):
            shutil.copytree(prepared / FOLDER, tmp_path / FOLDER)
            return iter(raw["train"][0])

    files = idx_arrays(raw) | {"train-images-idx3-ubyte.gz": Overtaken()}
    download.write_folder(tfds.builder_cls("mnist"), tmp_path, files)
    assert files_below(tmp_path) == files_below(prepared)
    assert_same(load_small(tmp_path), load_small(prepared))


@pytest.mark.parametrize(
    ("mishap", "reason"), [("checksum", "wrong checksum"), ("absent", "404"), ("silent", "127.0.0.1 cannot be reached")]
)
def test_failed_download_is_one_sentence_and_leaves_nothing(mishap, reason, served, monkeypatch, tmp_path, capfd):
    table = mirror(monkeypatch, served)
    first = next(iter(table))
    info = table.pop(first)
    if mishap == "checksum":
        table[first] = next(iter(table.values()))
    elif mishap == "absent":
        table[first + ".other"] = info
    else:
        table.clear()
        table["http://127.0.0.1:9/train-images-idx3-ubyte.gz"] = info
    with pytest.raises(data.DataUnavailable, match=reason) as error:
        data.load("mnist", tmp_path)
    assert str(tmp_path / FOLDER) in str(error.value)
    assert "\n" not in str(error.value)
    assert files_below(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_interrupted_preparation_leaves_nothing(raw, tmp_path):
    import tensorflow_datasets as tfds

    class Interrupted:
        def __iter__(self):
            yield from raw["train"][0][:5]
            raise KeyboardInterrupt

    files = {"train-images-idx3-ubyte.gz": Interrupted(), "train-labels-idx1-ubyte.gz": raw["train"][1]}
    with pytest.raises(KeyboardInterrupt):
        download.write_folder(tfds.builder_cls("mnist"), tmp_path, files)
    assert [path.name for path in tmp_path.rglob("*")] == ["mnist"]


def test_host_that_never_answers_is_given_up_in_time(monkeypatch):
    import requests

    release = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: release.wait(30))
    monkeypatch.setattr(download, "_PATIENCE", 0.05)
    with pytest.raises(ConnectionError, match=r"slow\.example cannot be reached"):
        REACH("http://slow.example/file.gz")
    release.set()


# The cache


def test_second_read_comes_from_the_cache_and_is_equal(small, monkeypatch):
    first = load_small(small)
    monkeypatch.setattr(data, "_read_folder", lambda *args: pytest.fail("read the folder again"))
    assert_same(load_small(small), first)


def truncate(file, fingerprint, stored):
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_pixel(file, fingerprint, stored):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def write_garbage(file, fingerprint, stored):
    file.write_bytes(b"garbage")


def write_other_shape(file, fingerprint, stored):
    shorter = stored._replace(test=data.Split(stored.test.x[:-1], stored.test.label[:-1]))
    data._write_cache(file, fingerprint, shorter)


def write_other_state(file, fingerprint, stored):
    data._write_cache(file, "other", stored._replace(train=data.Split(stored.train.x * 0, stored.train.label)))


@pytest.mark.parametrize("damage", [truncate, flip_a_pixel, write_garbage, write_other_shape, write_other_state])
def test_bad_cache_is_ignored_and_mended(damage, small):
    first = load_small(small)
    file, fingerprint = data._cache_key("mnist", small / FOLDER)
    good = file.read_bytes()
    damage(file, fingerprint, data._read_folder("mnist", small / FOLDER, SMALL))
    assert file.read_bytes() != good
    assert data._read_cache(file, fingerprint, SMALL) is None
    assert_same(load_small(small), first)
    assert data._read_cache(file, fingerprint, SMALL) is not None
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_each_folder_and_each_state_of_it_has_its_own_cache(small, tmp_path, raw):
    import tensorflow_datasets as tfds

    other = tmp_path / "other"
    inverted = {prefix: (255 - images, labels) for prefix, (images, labels) in raw.items()}
    download.write_folder(tfds.builder_cls("mnist"), other, idx_arrays(inverted))
    np.testing.assert_array_equal(load_small(other).test.x, 255 - load_small(small).test.x)
    shutil.copytree(other, small, dirs_exist_ok=True)  # the same folder, with new content
    np.testing.assert_array_equal(load_small(small).test.x, load_small(other).test.x)


def test_cache_folder_that_cannot_be_made_is_no_obstacle(small, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path / "file"))
    assert_same(load_small(small), load_small(small))
    assert (tmp_path / "file").read_text() == "in the way"


def test_full_disk_is_no_obstacle_and_leaves_no_file(small, monkeypatch, tmp_path):
    def fill_up(stream, **arrays):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill_up)
    assert len(load_small(small).train.x) == SMALL.train
    assert files_below(tmp_path / "cache") == []


def test_cache_is_looked_for_in_the_documented_places(small, monkeypatch, tmp_path):
    def place():
        return data._cache_key("mnist", small / FOLDER)[0].parent

    assert place() == tmp_path / "cache"
    monkeypatch.delenv("CVAE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert place() == tmp_path / "xdg" / "cvae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place() == tmp_path / "home" / ".cache" / "cvae"


# Damage


def remove_shard(folder):
    next(folder.glob("mnist-test*")).unlink()


def truncate_shard(folder):
    shard = next(folder.glob("mnist-train*"))
    shard.write_bytes(shard.read_bytes()[:70_000])


def garble_info(folder):
    (folder / "dataset_info.json").write_text("{garbage")


def remove_info(folder):
    (folder / "dataset_info.json").unlink()


def garble_features(folder):
    (folder / "features.json").write_text("{garbage")


def claim_tfrecord(folder):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def keep_only_train(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["splits"][1]
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    "damage",
    [remove_shard, truncate_shard, garble_info, remove_info, garble_features, claim_tfrecord, keep_only_train],
)
def test_damaged_folder_is_named_in_one_sentence(damage, small, capfd):
    damage(small / FOLDER)
    with pytest.raises(data.DataUnavailable, match=r"cannot be read: .*; repair it") as error:
        load_small(small)
    assert str(small / FOLDER) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("content", "reason"), [(b"no picture", "cannot identify"), (None, r"got L \(28, 14\)")])
def test_undecodable_picture_is_damage(content, reason, raw, monkeypatch, tmp_path):
    import tensorflow_datasets as tfds
    from PIL import Image

    save = Image.Image.save

    def save_badly(image, stream, kind):
        if content is None:
            save(image.crop((0, 0, 28, 14)), stream, kind)
        else:
            stream.write(content)

    with monkeypatch.context() as context:
        context.setattr(Image.Image, "save", save_badly)
        download.write_folder(tfds.builder_cls("mnist"), tmp_path, idx_arrays(raw))
    with pytest.raises(data.DataUnavailable, match=reason):
        load_small(tmp_path)


def test_public_door_expects_the_whole_of_mnist(small):
    with pytest.raises(data.DataUnavailable, match="train must hold 60000 pictures"):
        data.load("mnist", small)


@pytest.mark.parametrize("bad", [[0, 1, 10], [0, -1, 2], [0.0, 1.0, 2.0], [0, 1], []])
def test_labels_out_of_range_or_number_are_refused(bad):
    label = np.array(bad, np.float32 if 2.0 in bad and isinstance(bad[0], float) else np.int32)
    stored = data._Stored(*(data.Split(np.zeros((3, 28, 28, 1), np.uint8), label) for _ in range(2)))
    with pytest.raises(ValueError, match="train must hold 3 labels in"):
        data._checked(stored, data._Sizes(2, 1, 3))


# Digits, names, folders, fallback


def test_digits_are_cut_and_scaled():
    digits = data.load("digits")
    assert (digits.name, digits.num_classes) == ("digits", 10)
    assert [split.x.shape for split in digits[1:4]] == [(1297, 8, 8, 1), (200, 8, 8, 1), (300, 8, 8, 1)]
    assert [split.x.dtype for split in digits[1:4]] == [np.uint8] * 3
    assert [split.label.dtype for split in digits[1:4]] == [np.int32] * 3
    assert set(np.unique(digits.train.x)) == {round(level * 255 / 16) for level in range(17)}
    for split in digits[1:4]:
        assert set(split.label.tolist()) == set(range(10))


def test_digits_hold_every_picture_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    digits, source = data.load("digits"), load_digits()

    def rows(x, label):
        table = np.concatenate([np.reshape(x, (len(x), 64)), label[:, None]], axis=1).astype(int)
        return table[np.lexsort(table.T)]

    ours = rows(*(np.concatenate(arrays) for arrays in zip(*digits[1:4], strict=True)))
    theirs = rows(np.rint(source.data * 255 / 16), source.target)
    np.testing.assert_array_equal(ours, theirs)


def test_digits_are_the_same_every_time_and_everywhere():
    assert_same(data.load("digits"), data.load("digits"))
    pinned = [6, 5, 5, 0, 4, 4, 8, 4, 9, 2, 6, 8]  # numpy promises the stream of PCG64, not what it makes of it
    assert data.load("digits").test.label[:12].tolist() == pinned


@pytest.mark.parametrize(("name", "hint"), [("mnits", "mnist"), ("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist")])
def test_unknown_name_is_refused_with_a_suggestion(name, hint):
    message = f"name must be one of auto, mnist, fashion_mnist, kmnist, digits, got '{name}'; did you mean '{hint}'"
    with pytest.raises(ValueError, match=message):
        data.load(name)


@pytest.mark.parametrize("name", ["cifar10000", "", None, 3])
def test_unknown_name_without_a_neighbour_is_refused(name):
    with pytest.raises(ValueError, match=rf"name must be one of auto, .*, got {name!r}$"):
        data.load(name)


@pytest.mark.parametrize("name", ["auto", *data.NAMES])
def test_given_folder_must_exist_for_every_name(name, tmp_path):
    (tmp_path / "file").touch()
    for bad in (tmp_path / "nowhere", tmp_path / "file", "", 3):
        with pytest.raises(ValueError, match="data_dir must be an existing, readable folder, got") as error:
            data.load(name, bad)
        assert repr(bad) in str(error.value)
        assert not isinstance(error.value, data.DataUnavailable)


def offline(url):
    raise ConnectionError("storage.example cannot be reached")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_absent_set_is_refused_offline_and_nothing_is_made(name, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_reach", offline)
    with pytest.raises(data.DataUnavailable, match=r"storage\.example cannot be reached") as error:
        data.load(name)
    assert str(tmp_path / "absent" / name / "3.0.1") in str(error.value)
    assert "TFDS_DATA_DIR" in str(error.value)
    assert "--data-dir" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_to_is_refused_before_any_download(monkeypatch, tmp_path):
    (tmp_path / "absent").touch()
    with pytest.raises(data.DataUnavailable, match="no folder that can be written to"):
        data.load("mnist")


def test_auto_falls_back_to_digits_with_one_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_reach", offline)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = data.load()
    assert_same(dataset, data.load("digits"))
    (warning,) = caught
    assert warning.category is data.FallbackWarning
    assert warning.filename == __file__
    for part in ("storage.example cannot be reached", "digits", "--dataset mnist", "load('mnist')", str(tmp_path)):
        assert part in str(warning.message)


def test_auto_does_not_hide_a_damaged_folder(small):
    garble_info(small / FOLDER)
    with pytest.warns(data.FallbackWarning, match=f"mnist at {small / FOLDER} cannot be read"):
        assert data.load("auto", small).name == "digits"


def test_missing_package_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(data.DataUnavailable, match=r"tensorflow_datasets.*; install the missing package"):
        load_small(small)


# The real MNIST. Read in processes of their own, so that what they import can be told.

READ = """
import hashlib, json, sys
from cvae import data, download
dataset = data.load("mnist")
digest = hashlib.sha256()
for split in dataset[1:4]:
    digest.update(split.x.tobytes() + split.label.tobytes())
print(json.dumps({"digest": digest.hexdigest(), "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Reads of the real MNIST: the first one, one from the cache, and a function to load it from the cache."""
    cache = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"CVAE_CACHE_DIR": str(cache), "TFDS_DATA_DIR": TFDS_DATA_DIR}

    def read():
        command = [sys.executable, "-W", "error", "-c", READ]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        return json.loads(run.stdout)

    first, second = read(), read()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CVAE_CACHE_DIR", str(cache))
        monkeypatch.setenv("TFDS_DATA_DIR", TFDS_DATA_DIR)
        return first, second, data.load("auto")


@needs_mnist
def test_mnist_is_read_without_tensorflow(real):
    first, _, _ = real
    assert "tensorflow_datasets" in first["modules"]
    assert not {"tensorflow", "jax", "sklearn"} & set(first["modules"])


@needs_mnist
def test_cached_mnist_is_the_same_and_imports_nothing(real):
    first, second, _ = real
    assert second["digest"] == first["digest"]
    slow = {"tensorflow", "tensorflow_datasets", "jax", "sklearn", "PIL", "tqdm", "requests"}
    assert not slow & set(second["modules"])


@needs_mnist
def test_mnist_has_its_sizes_and_class_counts(real):
    mnist = real[2]
    assert (mnist.name, mnist.num_classes) == ("mnist", 10)
    sizes = [(split.x.shape, split.label.shape) for split in mnist[1:4]]
    assert sizes == [((n, 28, 28, 1), (n,)) for n in (55_000, 5_000, 10_000)]
    assert {array.dtype for array in flat(mnist)} == {np.dtype(np.uint8), np.dtype(np.int32)}
    stored = np.concatenate([mnist.validation.label, mnist.train.label])
    assert tuple(np.bincount(stored)) == TRAIN_COUNTS
    assert tuple(np.bincount(mnist.test.label)) == TEST_COUNTS


@needs_mnist
def test_mnist_has_the_published_checksums_and_so_its_original_order(real):
    mnist = real[2]
    original = {"train": np.concatenate([mnist.validation.x, mnist.train.x]), "test": mnist.test.x}
    published = {"train": "6bbc9ace898e44ae57da46a324031adb", "test": "2646ac647ad5339dbf082846283269ea"}
    for part, x in original.items():
        header = b"".join(number.to_bytes(4, "big") for number in (2051, len(x), 28, 28))
        assert hashlib.md5(header + x.tobytes()).hexdigest() == published[part]
