"""Prepare a tensorflow-datasets folder that is missing, without TensorFlow.

Downloads the original files of a set, verifies their checksums, and writes the folder that the set's own builder
would write. `datasets` decides when, and reads the folder.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

VERSION = "3.0.1"  # of mnist, fashion_mnist and kmnist alike; a set's folder is <root>/<name>/3.0.1
_TIMEOUT = 4.0  # seconds that a host has for its first answer


def prepare(name: str, root: Path) -> None:
    """Download a set and write it to `<root>/<name>/3.0.1`.

    Raises:
        OSError: the host cannot be reached, or the folder cannot be written.
        ValueError: a file has the wrong checksum.
    """
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    with quiet():
        builder = tfds.builder_cls(name)
        urls = builder.url_infos
        _check_host(next(iter(urls)))
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()  # a folder that is read-only fails here, before the download
        progress = tqdm(urls.items(), f"downloading {name}", unit=" files", disable=None, leave=False)
        files = {url.rpartition("/")[2]: _from_idx(_fetch(url, info.checksum)) for url, info in progress}
        write_folder(builder, root, files)


def write_folder(builder: Any, root: Path, files: dict[str, np.ndarray]) -> None:
    """Write a set from the arrays of its four IDX files.

    The builder class of tensorflow-datasets needs TensorFlow to read IDX files and to encode PNG, so a subclass
    passes it arrays and PNG bytes. Everything else is inherited, the order of the examples included. It writes
    aside and renames, so neither a failure nor Ctrl-C leaves an incomplete folder.
    """
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    bar = tqdm(desc=f"preparing {builder.name}", unit=" images", disable=None, leave=False)

    class Prepared(builder, skip_registration=True):  # type: ignore[misc, call-arg]
        name = builder.name

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples("train"), "test": self._generate_examples("t10k")}

        def _generate_examples(self, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
            images, labels = (files[f"{prefix}-{kind}-ubyte.gz"] for kind in ("images-idx3", "labels-idx1"))
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray(image).save(png, "PNG")
                png.seek(0)
                bar.update()
                yield index, {"image": png, "label": int(label)}

    # tensorflow-datasets prints to stdout and draws nested bars; the bar above is enough.
    ignored = io.StringIO()
    with bar, contextlib.redirect_stdout(ignored), contextlib.redirect_stderr(ignored):
        prepared = Prepared(data_dir=root, file_format="array_record")
        try:
            with tempfile.TemporaryDirectory() as scratch:
                config = tfds.download.DownloadConfig(try_download_gcs=False)
                prepared.download_and_prepare(download_dir=scratch, download_config=config)
        except OSError:
            if not Path(prepared.data_dir).is_dir():  # it exists if another process was faster
                raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the log lines of tensorflow-datasets: its errors reach the user as one sentence."""
    from absl import logging as absl_logging

    logger, placeholder = absl_logging.get_absl_logger(), logging.NullHandler()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # Where the root logger has no handler, absl calls logging.basicConfig(), for lines below its level too.
    logging.root.addHandler(placeholder)
    try:
        yield
    finally:
        logging.root.removeHandler(placeholder)
        logger.setLevel(level)


def _check_host(url: str) -> None:
    """Raise ConnectionError unless the host of `url` answers within `_TIMEOUT` seconds.

    In a thread, which may be left behind: no timeout of requests bounds the look-up of a name.
    """
    import requests

    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(Exception):
            requests.head(url, timeout=_TIMEOUT)
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_TIMEOUT)  # returns at once when the connection fails
    if not answered.is_set():
        raise ConnectionError(f"{urlsplit(url).hostname} cannot be reached")


def _fetch(url: str, sha256: str) -> bytes:
    """Download a file and verify its checksum."""
    import requests

    response = requests.get(url, timeout=30)
    response.raise_for_status()
    if hashlib.sha256(response.content).hexdigest() != sha256:
        raise ValueError(f"{url} sent {len(response.content)} bytes with the wrong checksum")
    return response.content


def _from_idx(compressed: bytes) -> np.ndarray:
    """Return the uint8 array of a gzipped IDX file: 0, 0, type, rank, the big-endian shape, the values."""
    raw = gzip.decompress(compressed)
    rank = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(np.frombuffer(raw, ">i4", rank, offset=4))
