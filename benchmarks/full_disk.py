"""A disk that is full in the middle of a run: is every checkpoint before that whole, and does the run go on from it?

    python -m benchmarks.full_disk                        # Linux: mounts a disk of 20 MB that nobody else sees
    python -m benchmarks.full_disk --folder /mnt/small    # on a small disk of yours

The article's experiment on the digits saves a checkpoint every epoch there, until a file of zeros takes what room is
left. The run must end with one sentence, leave what it had saved, and, when there is room again, come to the same bits
as a run that was never interrupted. Prints what happened, and exits with code 1 if it was anything else.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvae
from benchmarks import survival
from experiments import command

MOUNTED = 'mount -t tmpfs -o size=20m tmpfs "$0" && exec "$@"'
EPOCHS = 60  # of each of the two models: the disk is full long before
SAVED = 3  # epochs before it is


@dataclass(frozen=True)
class Settings:
    """Options."""

    folder: Path | None = None
    """a folder on a small disk; a disk of 20 MB is mounted if left out"""
    out: Path = Path("results/benchmark_full_disk.json")
    """JSON file to write"""


def main(settings: Settings) -> None:
    """Mount a small disk if none is given, then try it."""
    cvae.checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    if settings.folder is not None:
        provenance = cvae.runs.provenance()
        results = trial(settings.folder)
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": "full_disk", "config": {"epochs": EPOCHS, "full_after": SAVED}, "results": results}
        cvae.runs.write_json(settings.out, record | provenance)
        if not (results["refused"] and results["newest"] >= SAVED and results["same"]):
            sys.exit(1)
        return
    with tempfile.TemporaryDirectory() as folder:
        again = [sys.executable, "-m", "benchmarks.full_disk", "--folder", folder, "--out", str(settings.out)]
        # In a namespace of its own, in which everybody may mount and whose disks go when it ends.
        result = subprocess.run(["unshare", "-rm", "sh", "-c", MOUNTED, folder, *again], check=False)
    sys.exit(result.returncode)


def fill(path: Path) -> int:
    """Write zeros until the disk is full; returns how many bytes."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size > 0:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
        return file.tell()


def whole_checkpoints(run: Path) -> int:
    """The epoch of the newest checkpoint that can be read."""
    config = cvae.runs.read_config(run)
    found = cvae.runs.newest(run / "progress" / "cvae", cvae.make(config.models["cvae"]), config.training)
    return 0 if found is None else len(found.history)


def trial(folder: Path) -> dict[str, Any]:
    """Fill the disk during a run, look at what is left, free it, and go on; returns what happened."""
    out = folder / "run"
    with tempfile.TemporaryDirectory() as elsewhere:
        cache, whole = Path(elsewhere) / "cache", Path(elsewhere) / "whole"
        survival.finish(survival.start(whole, EPOCHS, cache))
        process = survival.start(out, EPOCHS, cache)
        while process.poll() is None and not (out / "progress" / "cvae" / str(SAVED)).is_dir():
            time.sleep(0.005)
        filled = fill(folder / "zeros")
        _, errors = process.communicate()
        last = errors.decode().strip().splitlines()[-1]
        print(f"after {filled / 1e6:.1f} MB of zeros, code {process.returncode}: {last}")
        refused = process.returncode == 2 and last.startswith("error: ") and "Traceback" not in errors.decode()
        (folder / "zeros").unlink()
        newest = whole_checkpoints(out)
        print(f"newest checkpoint that is whole: epoch {newest} of {EPOCHS}")
        survival.finish(survival.start(out, EPOCHS, cache))
        differs = survival.difference(survival.result(whole), survival.result(out))
        print(f"called again with room: {'the same bits' if differs is None else f'other {differs}'}")
    return {
        "disk_bytes": shutil.disk_usage(folder).total,
        "zeros_bytes": filled,
        "sentence": last.replace(str(folder), "DISK"),
        "refused": refused,
        "newest": newest,
        "same": differs is None,
    }


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
