"""Damaged and hostile files: is each refused in one sentence, quickly, and in bounded memory?

    python -m tests.stress.fuzz                   # 10,000 files, about half an hour on two cores
    python -m tests.stress.fuzz --files 400       # a short trial

Damaged are the .npz files that `experiments.fit` takes, and `config.json`, `metrics.jsonl` and the checkpoints of a run
folder: bits are flipped, bytes removed, inserted, doubled and overwritten, numbers replaced by absurd ones, and values
of JSON by others of any type. Each file is then read as the project reads it. Right is a result, or a `ValueError` of
one line; for a checkpoint also an older one in its place. Wrong is any other exception, more than a second, or more
than 1 GB of memory. Prints the number of every wrong file, which `--only` repeats, and then exits with code 1.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

import cvae
from benchmarks.rounds import peak_memory
from cvae.checkpoints import Checkpointer
from cvae.config import Config
from cvae.settings import Count, CountOrZero, Seed
from cvae.training import init_state
from experiments import check
from experiments.harness.cli import RunSettings, options, protected
from experiments.harness.run import Run
from tests.stress.record import check_out, write

SECONDS = 1.0
BYTES = 2**30
ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 10**12, 10**400, -(2**63), 0.5, -1.5, 1e308, float("nan"), float("inf"),
    "", "x", "\ud800", "../../x", "label", "learned",
    [], [1], [[]], [10**6] * 3, {}, {"kind": "Label"}, {"kind": "Unconditional"}, {"": {}},
)  # fmt: skip
SHAPE = (4, 4, 1)
CONDITION = cvae.Mixed((cvae.Label(3), cvae.Continuous(2, name="stroke"), cvae.Image(SHAPE, "left_half")))
ARCHITECTURE = cvae.Architecture(SHAPE, CONDITION, 2, (5,))
TRAINING = cvae.Training(epochs=3, batch_size=4, patience=3)


@cvae.setting
class Settings:
    """Options."""

    files: Count = 10_000
    """how many, of the four kinds in turn"""
    seed: Seed = 0
    """of the damage"""
    out: Path = Path("results/stress_fuzz.json")
    """JSON file to write"""
    only: CountOrZero | None = None
    """read the file of this number alone, and show the traceback of what it raises"""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to four changes."""
    for _ in range(rng.randint(1, 4)):
        size = len(data)
        first = rng.randrange(size + 1)
        last = min(size, first + rng.choice((1, 2, 4, 8, 64, size)))
        piece = data[first:last]
        data = data[:first] + rng.choice((
            b"",
            piece + piece,
            rng.randbytes(len(piece)),
            bytes(len(piece)),
            b"\xff" * len(piece),
            bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:] if piece else b"0",
            str(rng.choice(ABSURD)).encode(errors="replace") + piece,
        )) + data[last:]  # fmt: skip
    return data


def damaged_json(data: Any, rng: random.Random) -> Any:
    """A value with something inside it replaced, removed or added."""
    inside: list[Any] = (
        list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    )
    if not inside or rng.randrange(5) == 0:
        return rng.choice(ABSURD)
    key, what = rng.choice(inside), rng.randrange(10)
    changed = data.copy()
    if what == 0:
        del changed[key]
    elif what == 1 and isinstance(data, dict):
        changed[rng.choice(("", "x", "kind", "depth"))] = rng.choice(ABSURD)
    else:
        changed[key] = damaged_json(data[key], rng)
    return changed


def damaged_text(text: str, rng: random.Random) -> bytes:
    """A JSON document, or one of lines, damaged as a value, as bytes, or nested without end."""
    what = rng.randrange(20)
    if what == 0:
        return b"[" * 100_000
    if what < 6:
        return damaged(text.encode(), rng)
    lines = [text] if "\n}" in text else text.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = json.dumps(damaged_json(json.loads(lines[number]), rng))
    return "\n".join(lines).encode()


class Originals:
    """An intact run folder and .npz file; each reader reads a damaged copy of one of their files."""

    def __init__(self, folder: Path):
        rng = np.random.default_rng(0)
        self.folder, self.run, self.arrays = folder, folder / "run", folder / "arrays.npz"
        x, label = rng.random((8, *SHAPE), dtype=np.float32), rng.integers(0, 3, 8)
        np.savez_compressed(self.arrays, x=x, label=label)
        examples = x, {"label": label, "stroke": rng.random((8, 2), dtype=np.float32), "image": x}
        config = Config("fuzz", "fuzz", 0, TRAINING, {"cvae": ARCHITECTURE})
        with Run(config, self.run, RunSettings(save_every=1), x) as run:
            run.fit("cvae", examples, examples)
        params = jax.eval_shape(cvae.make(ARCHITECTURE).init, jax.random.key(0))
        self.like = {"state": jax.eval_shape(lambda p: init_state(p, TRAINING), params), "best": params}
        self.readers: dict[str, Callable[[random.Random], object]] = {
            "npz": self.npz, "config": self.config, "metrics": self.metrics, "checkpoint": self.checkpoint,
        }  # fmt: skip

    def npz(self, rng: random.Random) -> object:
        """A file of arrays."""
        path = self.folder / "damaged.npz"
        path.write_bytes(damaged(self.arrays.read_bytes(), rng))
        return cvae.data.read_npz(path)

    def config(self, rng: random.Random) -> object:
        """A config, and the parameters that it describes."""
        copy = self.folder / "config"
        shutil.copytree(self.run / "params", copy / "params", dirs_exist_ok=True)
        (copy / "config.json").write_bytes(damaged_text((self.run / "config.json").read_text(), rng))
        return cvae.load(copy)

    def metrics(self, rng: random.Random) -> object:
        """Metrics, as `experiments.check` reads them."""
        copy = self.folder / "metrics"
        copy.mkdir(exist_ok=True)
        shutil.copy(self.run / "config.json", copy)
        (copy / "metrics.jsonl").write_bytes(damaged_text((self.run / "metrics.jsonl").read_text(), rng))
        return check.metrics_are_complete(copy)

    def checkpoint(self, rng: random.Random) -> object:
        """One file of the parameters, or of the checkpoints of a fit."""
        name = rng.choice(("params", "checkpoints"))
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.run, copy)
        file = rng.choice([path for path in sorted((copy / name).rglob("*")) if path.is_file()])
        file.write_bytes(damaged(file.read_bytes(), rng))
        if name == "params":
            return cvae.load(copy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Checkpointer(copy / "checkpoints" / "cvae") as checkpointer:
                newest = checkpointer.newest(self.like)
        assert newest is not None, "all checkpoints are lost"
        assert newest.step >= TRAINING.epochs - 1, f"only checkpoint {newest.step} is left"
        return newest


def outcome(read: Callable[[random.Random], object], rng: random.Random) -> str:
    """What became of a file: `read`, `refused`, or what is wrong."""
    before, began = peak_memory() or 0, time.perf_counter()
    try:
        read(rng)
        word = "read"
    except Exception as error:
        # A library's error may be a subclass of ValueError, such as for text that cannot be decoded.
        refused = type(error) is ValueError and "\n" not in str(error)
        word = "refused" if refused else f"{type(error).__name__}: {str(error)[:200]!r}"
    seconds, grown = time.perf_counter() - began, (peak_memory() or 0) - before
    if seconds > SECONDS:
        word = f"{seconds:.1f} s"
    return f"{grown / 2**20:.0f} MiB" if grown > BYTES else word


def main(settings: Settings) -> Counter[tuple[str, str]]:
    """Damage and read; returns the counts of kind and outcome."""
    check_out(settings.out)
    counts: Counter[tuple[str, str]] = Counter()
    provenance, slowest = cvae.runs.provenance(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        kinds = list(Originals(Path(folder)).readers.items())
        for _, read in kinds:  # compiles and imports
            outcome(read, random.Random(0))
        if settings.only is not None:
            kinds[settings.only % len(kinds)][1](random.Random(f"{settings.seed}-{settings.only}"))
            return counts
        for number in tqdm(range(settings.files), unit="file"):
            kind, read = kinds[number % len(kinds)]
            began = time.perf_counter()
            what = outcome(read, random.Random(f"{settings.seed}-{number}"))
            slowest = max(slowest, time.perf_counter() - began)
            if what not in ("read", "refused"):
                tqdm.write(f"{number}, {kind}: {what}")
                what = "wrong"
            counts[kind, what] += 1
    results = {kind: {what: counts[kind, what] for what in ("read", "refused", "wrong")} for kind, _ in kinds}
    for kind, each in results.items():
        print(f"{kind:10} " + ", ".join(f"{count:,} {what}" for what, count in each.items()))
    memory = (peak_memory() or 0) / 1e9
    print(f"{settings.files:,} files; the slowest took {slowest:.2f} s; {memory:.2f} GB at most, JAX included")
    config = {"files": settings.files, "seed": settings.seed}
    measured = {"kinds": results, "slowest_seconds": slowest, "peak_memory_gb": memory}
    write(settings.out, "fuzz", config, measured, provenance)
    return counts


def command(settings: Settings) -> None:
    """Exit with code 1 if a file was read wrongly."""
    if any(what == "wrong" for _, what in main(settings)):
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: command(options(Settings, __doc__, package="tests.stress")))
