"""Preparing a set: against a server on this machine, with real IDX files and checksums; the images are noise."""

import gzip
import hashlib
import http.server
import logging
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cvae.data import download
from tests.small_mnist import IMAGES, LABELS, files_below, idx_arrays

FOLDER = Path("mnist", "3.0.1")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a server of the four files."""
    folder = tmp_path_factory.mktemp("served")
    for file, array in idx_arrays().items():
        shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = b"\0\0\x08" + array.ndim.to_bytes(1, "big") + shape + array.tobytes()
        (folder / file).write_bytes(gzip.compress(content))

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def urls(address, monkeypatch):
    """The addresses and checksums of MNIST's files, which now point at the server."""
    import tensorflow_datasets as tfds

    folder, root = address
    table = {root + path.name: tfds.core.download.checksums.compute_url_info(path) for path in folder.iterdir()}
    monkeypatch.setattr(tfds.builder_cls("mnist"), "url_infos", table)
    monkeypatch.setenv("NO_PROXY", "*")
    return table


def test_prepared_folder_is_that_of_the_builder_of_tensorflow_datasets(urls, monkeypatch, tmp_path, capfd):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(logging.root, "handlers", [])
    before = set(sys.modules)
    download.prepare("mnist", tmp_path)
    assert "tensorflow" not in set(sys.modules) - before
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == []
    assert {str(Path(file).parent) for file in files_below(tmp_path)} == {str(FOLDER)}

    builder = tfds.builder("mnist", data_dir=tmp_path)
    assert str(builder.version) == "3.0.1"
    for part, images in IMAGES.items():
        examples = list(builder.as_data_source(split=part))
        order = sorted(range(len(images)), key=lambda index: hashlib.md5(f"{part}{index}".encode()).hexdigest())
        np.testing.assert_array_equal(np.stack([example["image"][..., 0] for example in examples]), images[order])
        np.testing.assert_array_equal([example["label"] for example in examples], LABELS[part][order])


@pytest.mark.parametrize(
    ("mishap", "error", "message"),
    [
        ("checksum", ValueError, "with the wrong checksum"),
        ("absent", OSError, "404"),
        ("unreachable", ConnectionError, "127.0.0.1 cannot be reached"),
        ("file in the way", OSError, "exists"),
    ],
)
def test_failure_leaves_nothing(mishap, error, message, urls, tmp_path):
    root = tmp_path / "root"
    first, *others = list(urls)
    info = urls.pop(first)
    if mishap == "checksum":
        urls[first] = urls[others[0]]
    elif mishap == "absent":
        urls[first + ".other"] = info
    elif mishap == "unreachable":
        urls.clear()
        urls["http://127.0.0.1:9/train-images-idx3-ubyte.gz"] = info
    else:
        root.touch()
    with pytest.raises(error, match=message):
        download.prepare("mnist", root)
    assert not root.is_dir() or list(root.iterdir()) == []


def test_host_that_never_answers_does_not_block(monkeypatch):
    import requests

    release = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: release.wait(30))
    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    with pytest.raises(ConnectionError, match=r"slow\.example cannot be reached"):
        download._check_host("http://slow.example/file.gz")
    release.set()


class Images:
    """Training images; `action` runs after the fifth."""

    def __init__(self, action):
        self.action = action

    def __iter__(self):
        yield from IMAGES["train"][:5]
        self.action()
        yield from IMAGES["train"][5:]


def interrupt():
    raise KeyboardInterrupt


def test_interruption_leaves_no_incomplete_folder(tmp_path):
    import tensorflow_datasets as tfds

    files = idx_arrays() | {"train-images-idx3-ubyte.gz": Images(interrupt)}
    with pytest.raises(KeyboardInterrupt):
        download.write_folder(tfds.builder_cls("mnist"), tmp_path, files)
    assert [path.name for path in tmp_path.rglob("*")] == ["mnist"]


def test_another_process_may_prepare_the_set_first(tmp_path):
    import tensorflow_datasets as tfds

    builder = tfds.builder_cls("mnist")
    download.write_folder(builder, tmp_path / "other", idx_arrays())
    overtaken = Images(lambda: shutil.copytree(tmp_path / "other" / FOLDER, tmp_path / FOLDER))
    download.write_folder(builder, tmp_path, idx_arrays() | {"train-images-idx3-ubyte.gz": overtaken})
    assert files_below(tmp_path / "mnist") == files_below(tmp_path / "other" / "mnist")


def test_quiet_silences_absl_and_leaves_logging_as_it_was(monkeypatch, caplog):
    from absl import logging as absl_logging

    caplog.set_level(logging.WARNING, "absl")  # checkpoints set it higher
    with download.quiet():
        absl_logging.error("during")
    absl_logging.error("after")
    assert caplog.messages == ["after"]
    monkeypatch.setattr(logging.root, "handlers", [])
    with download.quiet():
        absl_logging.error("during")
    assert logging.root.handlers == []
