"""Damaged and hostile files: is each refused in one sentence, at once, and without memory?

    python -m benchmarks.fuzz                   # 10,000 files, half an hour on two cores
    python -m benchmarks.fuzz --files 400       # a short one

Mutated are the .npz files that `experiments.fit` takes, and the `config.json`, the `metrics.jsonl` and the checkpoints
of a run folder: bits are flipped, bytes cut out, put in, doubled and overwritten, numbers replaced by absurd ones, and,
of what is JSON, values by others of any type. Each file is then read as the project reads it. Right is a result, or a
`ValueError` of one line (of a checkpoint also one that is set aside). Wrong is any other exception, more than a second,
or more than 1 GB of memory. Prints the counts and every wrong file's number, which `--only` repeats, and exits with
code 1 if there is one.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

import cvae
from experiments import check, command

SECONDS = 1.0
BYTES = 2**30
ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 10**12, 10**400, -(2**63), 0.5, -1.5, 1e308, float("nan"), float("inf"),
    "", "x", "\ud800", "../../x", "label", "learned",
    [], [1], [[]], [10**6] * 3, {}, {"kind": "Label"}, {"kind": "Nothing"}, {"": {}},
)  # fmt: skip
SHAPE = (4, 4, 1)
ARCHITECTURE = cvae.Architecture(
    SHAPE, cvae.Mixed(label=cvae.Label(3), stroke=cvae.Continuous(2), image=cvae.Image(SHAPE, "left_half")), 2, (5,)
)
TRAINING = cvae.Training(epochs=3, batch_size=4, patience=3)


@dataclass(frozen=True)
class Settings:
    """Options."""

    files: int = 10_000
    """how many, of the four kinds in turn"""
    seed: int = 0
    """of the mutations"""
    out: Path = Path("results/benchmark_fuzz.json")
    """JSON file to write"""
    only: int | None = None
    """the file of this number alone, with the traceback of what it raises"""


def mutated(data: bytes, random_: random.Random) -> bytes:
    """Bytes with one to four mutations."""
    for _ in range(random_.randint(1, 4)):
        size = len(data)
        first = random_.randrange(size + 1)
        last = min(size, first + random_.choice((1, 2, 4, 8, 64, size)))
        piece = data[first:last]
        data = data[:first] + random_.choice((
            b"",
            piece + piece,
            random_.randbytes(len(piece)),
            bytes(len(piece)),
            b"\xff" * len(piece),
            bytes([piece[0] ^ 1 << random_.randrange(8)]) + piece[1:] if piece else b"0",
            str(random_.choice(ABSURD)).encode(errors="replace") + piece,
        )) + data[last:]  # fmt: skip
    return data


def mutated_json(data: Any, random_: random.Random) -> Any:
    """A value with something inside it replaced, left out or added."""
    inside: list[Any] = (
        list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    )
    if not inside or random_.randrange(5) == 0:
        return random_.choice(ABSURD)
    key, what = random_.choice(inside), random_.randrange(10)
    changed = data.copy()
    if what == 0:
        del changed[key]
    elif what == 1 and isinstance(data, dict):
        changed[random_.choice(("", "x", "kind", "depth"))] = random_.choice(ABSURD)
    else:
        changed[key] = mutated_json(data[key], random_)
    return changed


def mutated_text(text: str, random_: random.Random) -> bytes:
    """A line of JSON, or a whole document, mutated as a value or as bytes, or nested without end."""
    what = random_.randrange(20)
    if what == 0:
        return b"[" * 100_000
    if what < 6:
        return mutated(text.encode(), random_)
    lines = [text] if "\n}" in text else text.splitlines()
    number = random_.randrange(len(lines))
    lines[number] = json.dumps(mutated_json(json.loads(lines[number]), random_))
    return "\n".join(lines).encode()


class Folder:
    """A run folder and a file of arrays, each whole, of which mutated copies are made."""

    def __init__(self, folder: Path):
        rng = np.random.default_rng(0)
        self.folder, self.run = folder, folder / "run"
        self.arrays = folder / "arrays.npz"
        x, label = rng.random((8, *SHAPE), dtype=np.float32), rng.integers(0, 3, 8)
        np.savez_compressed(self.arrays, x=x, label=label)
        c = {"label": label, "stroke": rng.random((8, 2), dtype=np.float32)}
        config = cvae.config.Config("fuzz", "fuzz", 0, TRAINING, {"cvae": ARCHITECTURE})
        model = cvae.make(ARCHITECTURE)
        params = jax.jit(model.init)(jax.random.key(0))
        cvae.runs.start(self.run, config)
        keeper = cvae.runs.Keeper(self.run, "cvae", params, TRAINING, {}, save_every=1)
        key, after_epoch = jax.random.key(1), keeper.after
        with keeper.saver:
            after = cvae.fit(
                model, params, key, x, c, TRAINING, validation=(x, c), on_epoch=after_epoch, progress=False
            )
        cvae.runs.save(self.run, "cvae", after.params)
        self.readers: dict[str, Callable[[random.Random], object]] = {
            "npz": self.npz, "config": self.config, "metrics": self.metrics, "checkpoint": self.checkpoint,
        }  # fmt: skip

    def npz(self, random_: random.Random) -> object:
        """A file of arrays."""
        path = self.folder / "mutated.npz"
        path.write_bytes(mutated(self.arrays.read_bytes(), random_))
        return cvae.arrays.read(path)

    def config(self, random_: random.Random) -> object:
        """A config, and the parameters that it says are there."""
        copy = self.folder / "config"
        shutil.copytree(self.run / "checkpoints", copy / "checkpoints", dirs_exist_ok=True)
        (copy / "config.json").write_bytes(mutated_text((self.run / "config.json").read_text(), random_))
        return cvae.load(copy)

    def metrics(self, random_: random.Random) -> object:
        """Metrics, as they are checked."""
        copy = self.folder / "metrics"
        copy.mkdir(exist_ok=True)
        shutil.copy(self.run / "config.json", copy)
        (copy / "metrics.jsonl").write_bytes(mutated_text((self.run / "metrics.jsonl").read_text(), random_))
        return check.metrics_are_complete(copy)

    def checkpoint(self, random_: random.Random) -> object:
        """One file of the parameters, or of what a fit goes on from."""
        part = random_.choice(("checkpoints", "progress"))
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.run, copy)
        file = random_.choice([path for path in sorted((copy / part).rglob("*")) if path.is_file()])
        file.write_bytes(mutated(file.read_bytes(), random_))
        if part == "checkpoints":
            return cvae.load(copy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = cvae.runs.newest(copy / "progress" / "cvae", cvae.make(ARCHITECTURE), TRAINING)
        cvae.checks.require(found is not None and len(found.history) >= 2, "progress", "lose one checkpoint", found)
        return found


def memory() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcome(read: Callable[[random.Random], object], random_: random.Random) -> str:
    """What became of a file: `read`, `refused`, or what is wrong."""
    before, began = memory(), time.perf_counter()
    try:
        read(random_)
        word = "read"
    except Exception as error:
        # A ValueError of a library is one by inheritance: a text that cannot be decoded.
        one_line = type(error) in (ValueError, cvae.checkpoints.Damaged) and "\n" not in str(error)
        word = "refused" if one_line else f"{type(error).__name__}: {str(error)[:200]!r}"
    seconds, grown = time.perf_counter() - began, memory() - before
    if seconds > SECONDS:
        word = f"{seconds:.1f} s"
    return f"{grown / 2**20:.0f} MiB" if grown > BYTES else word


def main(settings: Settings) -> Counter[tuple[str, str]]:
    """Mutate and read; returns the counts of kind and outcome."""
    cvae.checks.whole_number("--files", settings.files)
    cvae.checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    counts: Counter[tuple[str, str]] = Counter()
    provenance = cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        kinds = list(folder.readers.items())
        for _, read in kinds:  # compiles, imports, opens
            outcome(read, random.Random(0))
        if settings.only is not None:
            kinds[settings.only % len(kinds)][1](random.Random(f"{settings.seed}-{settings.only}"))
            return counts
        slowest = 0.0
        for number in tqdm(range(settings.files), unit="file"):
            kind, read = kinds[number % len(kinds)]
            began = time.perf_counter()
            what = outcome(read, random.Random(f"{settings.seed}-{number}"))
            slowest = max(slowest, time.perf_counter() - began)
            if what not in ("read", "refused"):
                tqdm.write(f"{number}, {kind}: {what}")
                what = "wrong"
            counts[kind, what] += 1
    for kind, _ in kinds:
        print(f"{kind:10} " + ", ".join(f"{counts[kind, what]:,} {what}" for what in ("read", "refused", "wrong")))
    print(
        f"{settings.files:,} files; the slowest took {slowest:.2f} s; {memory() / 2**20:,.0f} MiB at most, JAX included"
    )
    results = {
        "kinds": {kind: {what: counts[kind, what] for what in ("read", "refused", "wrong")} for kind, _ in kinds},
        "slowest_seconds": slowest,
        "peak_memory_gb": memory() / 1e9,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    config = {"files": settings.files, "seed": settings.seed}
    cvae.runs.write_json(settings.out, {"benchmark": "fuzz", "config": config, "results": results} | provenance)
    if any(what == "wrong" for _, what in counts):
        sys.exit(1)
    return counts


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
