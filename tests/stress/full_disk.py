"""A disk that is full during a run: are the checkpoints before intact, and does the run resume from them?

    python -m tests.stress.full_disk                        # Linux: mounts a private disk of 20 MB
    python -m tests.stress.full_disk --folder /mnt/small    # on a small disk of your own

The article's experiment on the digits saves a checkpoint every epoch there, until a file of zeros fills the disk. The
run must end with one sentence, leave what it had saved, and, with space again, come to the same bits as a run that was
never interrupted. Exits with code 1 otherwise.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cvae
from experiments import check
from experiments.harness.cli import options, protected
from tests.stress import kills
from tests.stress.record import ROOT, check_out, write

MOUNTED = 'mount -t tmpfs -o size=20m tmpfs "$0" && exec "$@"'
EPOCHS = 60  # of each of the two models; the disk is full long before
SAVED = 3  # epochs that are saved before it is


@cvae.setting
class Settings:
    """Options."""

    folder: Path | None = None
    """a folder on a small disk; by default a disk of 20 MB is mounted"""
    out: Path = Path("results/stress_full_disk.json")
    """JSON file to write"""


def fill(path: Path) -> int:
    """Write zeros until the disk is full; returns the number of bytes."""
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


def trial(folder: Path) -> dict[str, Any]:
    """Fill the disk during a run, read what is left, free the disk, and resume; returns what happened."""
    out, zeros = folder / "run", folder / "zeros"
    with tempfile.TemporaryDirectory() as elsewhere:
        cache, whole = Path(elsewhere) / "cache", Path(elsewhere) / "whole"
        kills.finish(kills.start(whole, EPOCHS, cache))
        process = kills.start(out, EPOCHS, cache)
        while process.poll() is None and not (out / "checkpoints" / "cvae" / str(SAVED)).is_dir():
            time.sleep(0.005)
        filled = fill(zeros)
        _, errors = process.communicate()
        last = errors.decode().strip().splitlines()[-1]
        print(f"after {filled / 1e6:.1f} MB of zeros, code {process.returncode}: {last}")
        refused = process.returncode == 2 and last.startswith("error: ") and "Traceback" not in errors.decode()
        if not refused:
            print(errors.decode(), file=sys.stderr)
        zeros.unlink()
        newest = len(check.last_checkpoint(out, "cvae", cvae.runs.read_config(out))[0])
        print(f"newest checkpoint that is intact: epoch {newest} of {EPOCHS}")
        kills.finish(kills.start(out, EPOCHS, cache))
        differs = kills.difference(kills.result(whole), kills.result(out))
        print(f"resumed with space: {'identical' if differs is None else f'{differs} differ'}")
    return {
        "disk_bytes": shutil.disk_usage(folder).total,
        "zeros_bytes": filled,
        "sentence": last.replace(str(folder), "DISK"),
        "refused": refused,
        "newest": newest,
        "same": differs is None,
    }


def main(settings: Settings) -> None:
    """Mount a small disk if none is given, and call this again on it."""
    check_out(settings.out)
    if settings.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            again = [sys.executable, "-m", "tests.stress.full_disk", "--folder", folder]
            again += ["--out", str(settings.out.absolute())]
            # In a namespace of its own, in which every user may mount, and whose disks go when it ends.
            mounted = ["unshare", "-rm", "sh", "-c", MOUNTED, folder, *again]
            sys.exit(subprocess.run(mounted, cwd=ROOT, check=False).returncode)
    provenance, results = cvae.runs.provenance(), trial(settings.folder)
    write(settings.out, "full_disk", {"epochs": EPOCHS, "full_after": SAVED}, results, provenance)
    if not (results["refused"] and results["newest"] >= SAVED and results["same"]):
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
