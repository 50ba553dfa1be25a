"""An epoch of one fit on 1, 2, 4 and 8 devices that share this machine, and in two processes of one core each.

    python -m benchmarks.devices                          # about five minutes on two cores
    python -m benchmarks.devices --epochs 3 --rounds 1    # a short trial

The command is `experiments.mnist_label` with batches of 512. The devices are ones that XLA is told to make of the CPU:
they add no speed, so what is seen is the cost of spreading a batch, and that the loss is the same. Two processes with a
core each are compared with one that has two threads. On an accelerator nothing is forced, and one line is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import Field

import cvae
from benchmarks import rounds
from cvae import checks
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

ROOT = Path(__file__).resolve().parent.parent
SAME_LOSS = 1e-4  # relative


@cvae.setting
class Settings:
    """Options of the benchmark."""

    devices: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    """numbers of devices in one process"""
    epochs: Annotated[Count, Field(ge=2)] = 4
    """epochs of each fit, of which the first is not counted"""
    rounds: Count = 3
    """fits of each"""
    out: Path = Path("results/benchmark_devices.json")
    """JSON file to write"""


def fit(epochs: int, devices: int, processes: int = 1) -> rounds.Row:
    """Fit in processes of so many devices; the median seconds of an epoch of the CVAE, and its last loss."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.mnist_label", "--no-figures", "--out", f"{folder}/run"]
        command += ["--epochs", str(epochs), "--batch-size", "512"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        together = ["--distributed", "--coordinator", address, "--num-processes", str(processes), "--process-id"]
        started = [
            subprocess.Popen(
                [*_on_core(number, processes), *command, *([*together, str(number)] if processes > 1 else [])],
                cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for number in range(processes)
        ]  # fmt: skip
        errors = [process.communicate()[1] for process in started]
        codes = [process.returncode for process in started]
        checks.require(codes == [0] * processes, "the fit", "end well", f"{codes}: {errors[0][-500:]}")
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["model"] == "cvae"]
    return {"seconds": median(line["seconds"] for line in own[1:]), "loss": own[-1]["train"]["loss"]}


def _on_core(number: int, processes: int) -> list[str]:
    """The beginning of a command that has one core to itself, where several share the machine."""
    return ["taskset", "-c", str(number)] if processes > 1 and shutil.which("taskset") else []


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "devices") as record:
        contenders = {
            f"1 process, {count} device{'s' * (count > 1)}": partial(fit, settings.epochs, count)
            for count in settings.devices
        }
        contenders["2 processes, a core each"] = partial(fit, settings.epochs, 1, 2)
        rows = rounds.interleave(contenders, settings.rounds, "devices")
        first, results, body = next(iter(rows)), {}, []
        for name, each in rows.items():
            seconds, loss = rounds.seconds_of(each), each[-1]["loss"]
            same = abs(loss / rows[first][-1]["loss"] - 1) < SAME_LOSS
            checks.require(same, f"the loss of {name}", f"be that of {first}", loss)
            ratio = rounds.ratio(seconds, rounds.seconds_of(rows[first]))
            results[name] = {"seconds": seconds, "loss": loss, "over_first": ratio}
            body.append([name, rounds.spread(seconds), f"{ratio:.2f}", f"{loss:.4f}"])
        print(render(["batches of 512", "seconds per epoch", "relative to the first", "loss"], body))
        config: dict[str, Any] = {"devices": settings.devices, "epochs": settings.epochs, "rounds": settings.rounds}
        record["config"], record["results"] = config, results


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
