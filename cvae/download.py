"""Downloads and prepares a tensorflow-datasets set that is not there, without TensorFlow.

`data` decides that a set is missing; this module fetches its original files, verifies them, and writes the folder
that the stock builder would have written. Reading that folder is `data`'s business again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cvae.silence import quiet

VERSION = "3.0.1"  # of mnist, fashion_mnist and kmnist alike; a set's folder is <root>/<name>/3.0.1
_PATIENCE = 4.0  # seconds a host may take to answer at all before the network counts as absent


def prepare_set(name: str, root: Path) -> None:
    """Download a set and write it at `<root>/<name>/3.0.1`, as the stock builder would.

    Raises:
        OSError: the folder cannot be written, or the network or a host is not there.
        ValueError: a file came with the wrong checksum.
    """
    import tensorflow_datasets as tfds

    ground = next(path for path in (root, *root.absolute().parents) if os.path.exists(path))
    if not (ground.is_dir() and os.access(ground, os.W_OK | os.X_OK)):
        raise PermissionError(f"{ground} is no folder that can be written to")  # better said before a download
    with quiet("tensorflow_datasets"):
        stock = tfds.builder_cls(name)
        urls = stock.url_infos
        _reach(next(iter(urls)))
        files = {url.rpartition("/")[2]: _fetch(url, info.checksum) for url, info in urls.items()}
        write_folder(stock, root, {file: _from_idx(content) for file, content in files.items()})


def write_folder(stock: Any, root: Path, files: dict[str, np.ndarray]) -> None:
    """Write IDX arrays as the prepared set of a stock builder class.

    The stock class needs TensorFlow to gunzip, to read IDX files and to encode PNG. The subclass is handed
    arrays and PNG bytes instead and inherits the rest; with the stock example keys it inherits the order too.
    tensorflow-datasets writes aside and moves, so neither a failure nor Ctrl-C leaves a half-prepared folder.
    """
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    bar = tqdm(desc=f"preparing {stock.name}", unit=" pictures", disable=None, leave=False)

    class Prepared(stock, skip_registration=True):  # type: ignore[misc, call-arg]
        name = stock.name

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

    # tensorflow-datasets prints to stdout and draws nested bars; the bar above, made before, is enough.
    swallowed = io.StringIO()
    with bar, contextlib.redirect_stdout(swallowed), contextlib.redirect_stderr(swallowed):
        builder = Prepared(data_dir=root, file_format="array_record")
        try:
            with tempfile.TemporaryDirectory() as scratch:
                builder.download_and_prepare(
                    download_dir=scratch, download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
        except OSError:
            if not os.path.isdir(builder.data_dir):  # it is there if another process was faster
                raise


def _reach(url: str) -> None:
    """Raise ConnectionError unless the host of `url` answers anything within `_PATIENCE` seconds.

    In a thread that may be left behind, because no timeout of requests bounds the look-up of a name, and one
    for a connection counts anew for every address of the host.
    """
    import requests

    answers = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # no answer, for whatever reason
            answers.append(requests.head(url, timeout=_PATIENCE))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not answers:
        raise ConnectionError(f"{urlsplit(url).hostname} cannot be reached")


def _fetch(url: str, sha256: str) -> bytes:
    """The file at `url`, whole and with the right checksum."""
    import requests
    from tqdm import tqdm

    content = bytearray()
    with requests.get(url, stream=True, timeout=30) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=None, leave=False) as bar:
            for block in response.iter_content(1 << 16):
                content += block
                bar.update(len(block))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{url} sent {len(content)} bytes with the wrong checksum")
    return bytes(content)


def _from_idx(compressed: bytes) -> np.ndarray:
    """The uint8 array in a gzipped IDX file: 0, 0, type, rank, the big-endian shape, the values."""
    raw = gzip.decompress(compressed)
    rank = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(np.frombuffer(raw, ">i4", rank, offset=4))
