"""Two processes that fit one model, of which one is killed: does the other stop, and is the result the same to the bit?

    python -m tests.stress.processes              # ten kills, about ten minutes
    python -m tests.stress.processes --runs 2     # a short trial

Every run is the article's experiment on the digits by two processes on the loopback interface, one of which is killed
by SIGKILL at a random instant. The other must end within a minute. Then both are called again, and what they leave is
compared with an undisturbed run of two. Exits with code 1 if a process does not stop, or a result differs.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cvae
from cvae.settings import Count, Seed
from experiments.harness.cli import options, protected
from tests.stress.kills import difference, result
from tests.stress.record import ROOT, check_out, write

LONGEST = 60.0  # seconds until the other process must have stopped


@cvae.setting
class Settings:
    """Options."""

    runs: Count = 10
    """how many are disturbed"""
    epochs: Count = 40
    """of each of the two models"""
    seed: Seed = 0
    """of the instants and of which process is killed"""
    out: Path = Path("results/stress_processes.json")
    """JSON file to write"""


def start(out: Path, epochs: int) -> list[subprocess.Popen[bytes]]:
    """Start or resume a run by two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    run = ["--dataset", "digits", "--smoke", "--epochs", str(epochs), "--save-every", "1", "--no-figures"]
    together = ["--distributed", "--coordinator", address, "--num-processes", "2", "--out", str(out)]
    together += ["--coordinator-timeout", "45"]  # for one that is killed before it has connected
    command = [sys.executable, "-m", "experiments.mnist_label", *run, *together, "--process-id"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}
    return [
        subprocess.Popen(
            [*command, str(number)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for number in range(2)
    ]


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the end of a run, which must be without an error."""
    errors = [process.communicate(timeout=600)[1].decode() for process in processes]
    codes = [process.returncode for process in processes]
    if any(codes):
        raise RuntimeError(f"a run ended with codes {codes}:\n" + "\n".join(errors))


def kill(processes: list[subprocess.Popen[bytes]], victim: int, instant: float) -> float:
    """Kill one process at an instant; the seconds until the other had stopped, or infinity."""
    time.sleep(instant)
    processes[victim].kill()
    began = time.perf_counter()
    try:
        processes[1 - victim].wait(LONGEST)
        return time.perf_counter() - began
    except subprocess.TimeoutExpired:
        processes[1 - victim].kill()
        return float("inf")
    finally:
        for process in processes:
            process.communicate()


def main(settings: Settings) -> None:
    """Run, kill, resume and compare."""
    check_out(settings.out)
    rng, provenance = random.Random(settings.seed), cvae.runs.provenance()
    same, stopped = 0, []
    with tempfile.TemporaryDirectory() as folder:
        finish(start(Path(folder) / "first", settings.epochs))  # compiles
        whole, began = Path(folder) / "whole", time.perf_counter()
        finish(start(whole, settings.epochs))
        duration, expected = time.perf_counter() - began, result(whole)
        for number in range(1, settings.runs + 1):
            out, victim, instant = Path(folder) / str(number), rng.randrange(2), rng.uniform(0, duration)
            stopped.append(kill(start(out, settings.epochs), victim, instant))
            finish(start(out, settings.epochs))
            differs = difference(expected, result(out))
            same += differs is None
            what = "identical" if differs is None else f"{differs} differ"
            print(f"{number}: process {victim} killed after {instant:.1f} s: {what}; {stopped[-1]:.1f} s", flush=True)
    print(f"{same} of {settings.runs} bit-identical; the other process stopped after {max(stopped):.1f} s at most")
    config = {"runs": settings.runs, "epochs": settings.epochs, "seed": settings.seed}
    write(settings.out, "processes", config, {"same": same, "stopped": stopped, "seconds_a_run": duration}, provenance)
    if same < settings.runs or max(stopped) > LONGEST:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
