"""Twenty gigabytes of images on disk: is a model fitted to them in less than two gigabytes of memory?

    python -m tests.stress.streaming                     # about half an hour on two cores
    python -m tests.stress.streaming --gigabytes 0.2     # a short trial

The images are of 64 x 64 pixels in three colours, in parts of a gigabyte at most. `experiments.fit --stream` fits one
epoch to them, in a process of its own, whose peak of memory is measured. It is stopped once by Ctrl-C within the epoch,
and called again: the number of steps at which it goes on must be the one at which it stopped. Exits with code 1 if the
memory is exceeded or a step is lost.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

import cvae
from cvae import checks
from cvae.settings import Count, Seed
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

MOST_BYTES = 2e9
EVENT = (64, 64, 3)
PART = 80_000  # images in a file


@cvae.setting
class Settings:
    """Options."""

    gigabytes: Annotated[float, Field(gt=0)] = 20.0
    """size of the images"""
    batch_size: Count = 512
    """examples per step"""
    stop_after: Annotated[float, Field(gt=0)] = 60.0
    """seconds after which the fit is stopped once"""
    seed: Seed = 0
    """of the images and the fit"""
    folder: Path = Path(tempfile.gettempdir())
    """where the images are written meanwhile"""
    out: Path = Path("results/stress_streaming.json")
    """JSON file to write"""


def write_images(folder: Path, count: int, seed: int) -> None:
    """Images of a bright disc at a random place before noise, in parts."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    noise = rng.integers(0, 64, (1024, *EVENT), np.uint8)
    down, right = np.mgrid[: EVENT[0], : EVENT[1]]
    centers = rng.integers(8, 56, (64, 2))
    discs = [((down - y) ** 2 + (right - x) ** 2 < 49)[..., None] * np.uint8(160) for y, x in centers]
    library = np.concatenate([noise[k * 16 : (k + 1) * 16] + disc for k, disc in enumerate(discs)])
    for number, first in enumerate(range(0, count, PART)):
        size = min(PART, count - first)
        part = np.lib.format.open_memmap(folder / "images" / f"{number:04d}.npy", "w+", np.uint8, (size, *EVENT))
        for start in range(0, size, 4096):
            rows = rng.integers(0, len(library), min(4096, size - start))
            part[start : start + len(rows)] = library[rows]
        part.flush()
        del part


def fit(command: list[str], stop_after: float | None = None) -> dict[str, Any]:
    """Run the fit, and stop it by Ctrl-C if asked; its seconds, its peak of memory, and where it went on or stopped."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"TQDM_DISABLE": "1"}
        )
        if stop_after is not None:
            time.sleep(stop_after)
            process.send_signal(signal.SIGINT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        text = output.read()
    code = os.waitstatus_to_exitcode(status)
    checks.require(code == (0 if stop_after is None else 130), "the fit", "end as it should", f"{code}: {text[-500:]}")
    place = re.search(r"(?:stopped|goes on) after (epoch \d+(?: and [\d,]+ steps)?)", text)
    found = {"seconds": time.perf_counter() - began, "bytes": usage.ru_maxrss * 1024.0}
    return found | {"place": place[1] if place else None}


def main(settings: Settings) -> None:
    """Write the images, fit, and write the file."""
    check_out(settings.out)
    provenance = cvae.runs.provenance()
    count = int(settings.gigabytes * 1e9 / np.prod(EVENT))
    with tempfile.TemporaryDirectory(dir=settings.folder) as temporary:
        folder = Path(temporary) / "data"
        write_images(folder, count, settings.seed)
        command = [sys.executable, "-m", "experiments.fit", "--data", str(folder), "--stream", "--epochs", "1"]
        command += ["--batch-size", str(settings.batch_size), "--hidden", "64", "--samples", "2", "--no-figures"]
        command += ["--out", str(Path(temporary) / "run"), "--seed", str(settings.seed)]
        stopped = fit(command, settings.stop_after)
        print(f"stopped after {stopped['place']}: {stopped['bytes'] / 1e9:.2f} GB", flush=True)
        whole = fit(command)
        print(f"went on after {whole['place']}: {whole['seconds']:.0f} s, {whole['bytes'] / 1e9:.2f} GB", flush=True)
        size = sum(path.stat().st_size for path in folder.rglob("*.npy"))
        epoch = cvae.runs.read_json(Path(temporary) / "run" / "summary.json")["seconds"]
    results = {"images": count, "bytes": float(size), "stopped": stopped, "resumed": whole, "training_seconds": epoch}
    config = {"gigabytes": settings.gigabytes, "batch_size": settings.batch_size, "seed": settings.seed}
    write(settings.out, "streaming", config, results, provenance)
    if max(stopped["bytes"], whole["bytes"]) > MOST_BYTES or stopped["place"] != whole["place"]:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
