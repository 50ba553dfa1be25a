"""Seconds per training epoch of the article's CVAE, beside its peers: one run, in turn, on one machine.

    pip install -e '.[bench]'
    python -m benchmarks.epoch                               # about two minutes on two cores
    python -m benchmarks.epoch --examples 5000 --rounds 2    # a trial, in a minute

The model: 784 pixels + 10 label features -> 512 ReLU -> 2 latents; 2 + 10 -> 512 ReLU -> 784 logits. The loss is
cross-entropy plus KL, with one sample of z; Glorot initialisation, Adam at 1e-3, a new order of the examples every
epoch. The contenders are

    cvae      this library: one compiled scan over uint8 pixels on the device
    pytorch   a module, a DataLoader and a loop over its batches, eager
    keras     Keras 3 on JAX: `model.fit`
    floor     no model: an epoch's matrix products, at the rate JAX reaches on a large one in the same round

Each lives in a process of its own, so thread pools and imports do not meet. All compile and train one epoch
uncounted; then, in every round, each trains one epoch alone while the others wait for their turn. Ratios are taken
within a round and the median is over rounds, so a machine that drifts slows both sides of a ratio. They still need
a machine that does nothing else: on a busy one PyTorch's threads, which wait for each other many times a step, lose
far more than the others. The loss of the last epoch is shown because a contender that fits another model has no
place in the table.

Only the workers import the frameworks; the parent starts them, asks, and writes down what they say.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import IO, Any, Literal, NamedTuple, get_args

import numpy as np

import cvae
from cvae import checks
from experiments import command

Name = Literal["cvae", "pytorch", "keras", "floor"]
NAMES: tuple[Name, ...] = get_args(Name)
PEERS = {"pytorch": "torch", "keras": "keras"}  # and the package each comes from
REMEDY = "not installed: pip install -e '.[bench]'"

ROOT = Path(__file__).resolve().parent.parent
WORKER = "--worker"  # how the parent starts this module again; no option of the command

PIXELS, CLASSES, HIDDEN, LATENTS = 784, 10, 512, 2
LEARNING_RATE = 1e-3
BUSY = 0.5  # programs running beside this one from which on its figures are doubtful
SAME_LOSS = 0.05  # losses further apart than this fraction are pointed at


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch; every batch size must divide it"""
    batch_sizes: tuple[int, ...] = ()
    """examples a step, one or more; if left out 50, and on a GPU 50 500 5000"""
    rounds: int = 5
    """counted epochs of each contender, after one that is not"""
    contenders: tuple[Name, ...] = NAMES
    """who takes part; ratios need cvae and floor among them"""
    out: Path = Path("results/benchmark_epoch.json")
    """JSON file to write"""


class Examples(NamedTuple):
    """What everybody trains on, as stored."""

    x: np.ndarray  # [N, 28, 28, 1] uint8
    label: np.ndarray  # [N] int32


# ---- the floor


def epoch_flops(examples: int) -> int:
    """Floating-point operations of one epoch's matrix products; a multiplication and an addition are two.

        N * sum over layers i -> o of  2 i o (forward) + 2 i o (weights' gradient) + 2 i o (input's gradient)

    The encoder's first layer needs no gradient of its input, so it counts twice and the others three times.
    """
    first = (PIXELS + CLASSES) * HIDDEN
    others = 2 * HIDDEN * LATENTS + (LATENTS + CLASSES) * HIDDEN + HIDDEN * PIXELS
    return examples * 2 * (2 * first + 3 * others)


# ---- contenders: from examples and a batch size to a function that trains one epoch and returns its mean loss, in
# nats per example, when the machine is idle again. They import their framework on the first line: one per process.

Train = Callable[[], float]


def cvae_epoch(examples: Examples, batch_size: int) -> Train:
    """This library, as `cvae.fit` calls it."""
    import jax

    from cvae import training
    from cvae.evaluation import Terms

    init_key, train_key = jax.random.split(jax.random.key(0))
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(CLASSES), LATENTS, (HIDDEN,)))
    x, c = jax.device_put((examples.x, {"label": examples.label}))
    state = training.start(model.init(init_key), LEARNING_RATE)
    numbers = itertools.count()

    def train() -> float:
        nonlocal state
        key = jax.random.fold_in(train_key, next(numbers))
        state, terms = training.epoch(model, state, key, x, c, 1.0, batch_size=batch_size)
        jax.block_until_ready(state)  # type: ignore[no-untyped-call]
        return Terms(*map(float, terms)).loss

    return train


def pytorch_epoch(examples: Examples, batch_size: int) -> Train:
    """A PyTorch loop as a careful user writes it: eager, data in memory, losses summed on the device."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        # JAX multiplies float32 in TF32 where a GPU has it, PyTorch only when told to.
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)

    class CVAE(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(PIXELS + CLASSES, HIDDEN)
            self.mean = nn.Linear(HIDDEN, LATENTS)
            self.log_var = nn.Linear(HIDDEN, LATENTS)
            self.decoder = nn.Linear(LATENTS + CLASSES, HIDDEN)
            self.logits = nn.Linear(HIDDEN, PIXELS)
            for layer in self.children():
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Any, c: Any) -> Any:
            hidden = functional.relu(self.encoder(torch.cat([x, c], dim=1)))
            mean, log_var = self.mean(hidden), self.log_var(hidden)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.logits(functional.relu(self.decoder(torch.cat([z, c], dim=1)))), mean, log_var

    def loss_of(x: Any, c: Any) -> Any:
        logits, mean, log_var = model(x, c)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * torch.sum(mean.square() + log_var.exp() - 1 - log_var)
        return (cross_entropy + kl) / len(x)

    x = torch.from_numpy(examples.x.reshape(-1, PIXELS).astype(np.float32) / 255)
    c = functional.one_hot(torch.from_numpy(examples.label).long(), CLASSES).float()
    loader = DataLoader(TensorDataset(x, c), batch_size=batch_size, shuffle=True, pin_memory=cuda)
    model = CVAE().to(device)
    # Not the default, and a third less time for this model's epoch on a CPU.
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def train() -> float:
        total = torch.zeros((), device=device)
        for x, c in loader:
            loss = loss_of(x.to(device, non_blocking=True), c.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if cuda:
            torch.cuda.synchronize()
        return float(total) / len(loader)

    return train


def keras_epoch(examples: Examples, batch_size: int) -> Train:
    """Keras 3 on JAX: a model with a loss of its own, fitted to arrays in memory."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(0)

    class CVAE(keras.Model):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = layers.Dense(HIDDEN, activation="relu")  # Glorot's uniform is the default
            self.mean = layers.Dense(LATENTS)
            self.log_var = layers.Dense(LATENTS)
            self.decoder = layers.Dense(HIDDEN, activation="relu")
            self.logits = layers.Dense(PIXELS)
            self.seed = keras.random.SeedGenerator(0)

        def call(self, inputs: Any) -> Any:
            x, c = inputs
            hidden = self.encoder(ops.concatenate([x, c], axis=1))
            mean, log_var = self.mean(hidden), self.log_var(hidden)
            z = mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)
            return self.logits(self.decoder(ops.concatenate([z, c], axis=1))), mean, log_var

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            logits, mean, log_var = y_pred
            cross_entropy = ops.sum(ops.binary_crossentropy(x[0], logits, from_logits=True), axis=1)
            kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - 1 - log_var, axis=1)
            return ops.mean(cross_entropy + kl)

    x = examples.x.reshape(-1, PIXELS).astype(np.float32) / 255
    c = np.eye(CLASSES, dtype=np.float32)[examples.label]
    model = CVAE()
    adam = keras.optimizers.Adam(LEARNING_RATE, epsilon=1e-8)
    # Callbacks every ten steps rather than every one: not the default either, and a little faster.
    model.compile(optimizer=adam, jit_compile=True, steps_per_execution=10)

    def train() -> float:
        # The loss comes out of the same program as the last step's weights, so reading it waits for both.
        history = model.fit((x, c), batch_size=batch_size, shuffle=True, verbose=0)
        return float(history.history["loss"][0])

    return train


EPOCH_OF: dict[str, Callable[[Examples, int], Train]] = {
    "cvae": cvae_epoch,
    "pytorch": pytorch_epoch,
    "keras": keras_epoch,
}


def matmul_rate(repeats: int = 5) -> float:
    """Floating-point operations a second of a large square float32 product in JAX, the best of several."""
    import jax

    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a).lower(square).compile()
    product(square).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        product(square).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


# ---- the worker: one contender in a process of its own


def accelerator(name: str) -> str | None:
    """The GPU that this contender's framework sees, by its kind; None for a CPU."""
    if name == "pytorch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    return None if jax.default_backend() == "cpu" else jax.devices()[0].device_kind


def work(name: str, folder: Path) -> None:
    """Answer the parent, a line of JSON for a line of JSON, until it closes the pipe.

    The first line out names the accelerator. Then `{"batch_size": B}` makes a fresh model and trains its
    uncounted epoch, and a line without it trains one epoch more. The answer is the seconds of the epoch and its
    loss; the floor's, the seconds its products would take and the FLOP/s it measured.
    """
    # What frameworks print belongs to stderr; the line to the parent is ours alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    examples = Examples(np.load(folder / "x.npy"), np.load(folder / "label.npy"))
    answer(accelerator=accelerator(name))
    train: Train | None = None
    for line in sys.stdin:
        question = json.loads(line)
        if name == "floor":
            rate = matmul_rate()
            answer(seconds=epoch_flops(len(examples.x)) / rate, flops=rate)
            continue
        if "batch_size" in question:
            train = EPOCH_OF[name](examples, question["batch_size"])
        assert train is not None
        began = time.perf_counter()
        loss = train()
        answer(seconds=time.perf_counter() - began, loss=loss)


class WorkerDiedError(Exception):
    """A worker ended without an answer; the message is how, and the last lines it wrote to stderr."""


class Worker:
    """The parent's end of a worker."""

    def __init__(self, name: Name, folder: Path) -> None:
        self.name = name
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        # JAX would reserve most of a GPU's memory for the first process that comes.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.epoch", WORKER, name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
        )

    def ask(self, **question: Any) -> None:
        """Send a question, unless the worker is gone: then `answer` says so."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer.

        Raises:
            WorkerDiedError: there will be none.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return dict(json.loads(line))
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()[-8:]
        raise WorkerDiedError("\n    ".join([f"died with exit status {status}", *lines]))

    def kill(self) -> None:
        """End the process now; harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


# ---- the parent


def load_examples(number: int) -> tuple[Examples, str]:
    """The first examples of MNIST's training split, or random pixels without it, and which of the two.

    A random picture is its class's random stencil at a random brightness: the speed is the same, and a label that
    never reached the networks would still show in the loss.
    """
    try:
        train = cvae.data.load("mnist").train
    except cvae.data.DataUnavailable as error:
        print(f"random pixels instead of MNIST: {error}", file=sys.stderr)
        draw = np.random.default_rng(0).integers
        label = draw(CLASSES, size=number, dtype=np.int32)
        stencils = draw(2, size=(CLASSES, 28, 28, 1), dtype=np.uint8)
        brightness = draw(256, size=(number, 1, 1, 1), dtype=np.uint8)
        return Examples(stencils[label] * brightness, label), "random"
    checks.require(number <= len(train.x), "--examples", f"be at most {len(train.x)}, as many as MNIST has", number)
    return Examples(train.x[:number], train.label[:number]), "mnist"


def check(settings: Settings, batch_sizes: tuple[int, ...]) -> None:
    """Refuse settings that cannot be measured.

    Raises:
        ValueError: names the option, the rule and what came.
    """
    checks.whole_number("--examples", settings.examples)
    checks.whole_number("--rounds", settings.rounds)
    once = len(set(settings.contenders)) == len(settings.contenders) > 0
    checks.require(once, "--contenders", "be one or more names, each once", " ".join(settings.contenders))
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    for size in batch_sizes:
        checks.whole_number("--batch-sizes", size)
        # The peers train on a short last batch and this library leaves it out: let there be none.
        checks.require(settings.examples % size == 0, "--batch-sizes", f"divide {settings.examples} examples", size)


class Crew:
    """The workers that are alive, and why the others are not."""

    def __init__(self, contenders: tuple[Name, ...], folder: Path) -> None:
        self.left_out: dict[str, str] = {}
        self.died = False
        self.workers: dict[str, Worker] = {}
        for name in contenders:
            if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
                self.left_out[name] = REMEDY
                print(f"{name}: {REMEDY}", file=sys.stderr)
            else:
                self.workers[name] = Worker(name, folder)

    def answer(self, name: str, **question: Any) -> dict[str, Any] | None:
        """Ask a worker, if there is a question, and wait for its answer; None if it died, and then it is gone."""
        worker = self.workers[name]
        try:
            if question:
                worker.ask(**question)
            return worker.answer()
        except WorkerDiedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            self.left_out[name], self.died = str(error).splitlines()[0], True  # the rest names folders
            self.workers.pop(name).kill()
            return None

    def close(self) -> None:
        """End everybody."""
        for worker in self.workers.values():
            worker.kill()


def load_average() -> float | None:
    """Programs that wanted a core over the last minute, on average; None where the system does not say.

    Says on stderr when they are too many to measure beside.
    """
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: {load:.1f} other programs were running over the last minute: measure again", file=sys.stderr)
    return load


def measure(crew: Crew, batch_size: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Warm everybody up, then let everybody train an epoch a round, alone, each round beginning with another."""
    for name in list(crew.workers):
        if answer := crew.answer(name, batch_size=batch_size):
            print(f"batch {batch_size}, warm-up: {name} {answer['seconds']:.2f} s", file=sys.stderr)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in crew.workers}
    for number in range(rounds):
        line = []
        names = list(crew.workers)
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if answer := crew.answer(name, epoch=number):
                rows[name].append(answer)
                line.append(f"{name} {answer['seconds']:.2f} s")
        print(f"batch {batch_size}, round {number + 1} of {rounds}: {', '.join(line)}", file=sys.stderr)
    return {name: rows[name] for name in crew.workers}


def summarise(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians over rounds: of the seconds, and of the ratios taken within each round."""
    seconds = {name: [answer["seconds"] for answer in answers] for name, answers in rows.items()}

    def ratio(name: str, other: str) -> float | None:
        if other not in seconds:
            return None
        return float(median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)))

    summary = {}
    for name, answers in rows.items():
        summary[name] = {
            "seconds": seconds[name],
            "median": median(seconds[name]),
            "over_cvae": ratio(name, "cvae"),
            "over_floor": ratio(name, "floor"),
        }
        if name == "floor":
            summary[name]["gflops"] = [answer["flops"] / 1e9 for answer in answers]  # a second
        else:
            summary[name]["loss"] = answers[-1]["loss"]
    return summary


def report(results: dict[int, dict[str, dict[str, Any]]], flops: int) -> None:
    """Print the table, and a word where the contenders' losses do not agree."""

    def times(ratio: float | None) -> str:
        return "-" if ratio is None else f"{ratio:.2f}"

    print("\n| batch | contender | seconds an epoch, median (min - max) | over cvae | over floor | loss, nats |")
    print("|---:|---|---:|---:|---:|---:|")
    for batch_size, summary in results.items():
        for name, row in summary.items():
            spread = f"{row['median']:.3f} ({min(row['seconds']):.3f} - {max(row['seconds']):.3f})"
            loss = f"{row['loss']:.1f}" if "loss" in row else "-"
            ratios = f"{times(row['over_cvae'])} | {times(row['over_floor'])}"
            print(f"| {batch_size} | {name} | {spread} | {ratios} | {loss} |")
    rates = [rate for summary in results.values() if "floor" in summary for rate in summary["floor"]["gflops"]]
    if rates:
        print(f"\nfloor: {flops / 1e9:.1f} GFLOP an epoch, at {median(rates):.0f} GFLOP/s in the median")
    for batch_size, summary in results.items():
        losses = [row["loss"] for row in summary.values() if "loss" in row]
        if losses and max(losses) > (1 + SAME_LOSS) * min(losses):
            print(f"\nbatch {batch_size}: the losses differ by more than {SAME_LOSS:.0%}: is it one model?")


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    check(settings, settings.batch_sizes)
    examples, data = load_examples(settings.examples)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    load = load_average()
    commit = cvae.runs.commit()  # before a long run, in which the source may change
    with tempfile.TemporaryDirectory() as folder:
        for name, array in examples._asdict().items():
            np.save(Path(folder) / f"{name}.npy", array)
        crew = Crew(settings.contenders, Path(folder))
        try:
            ready = [crew.answer(name) for name in list(crew.workers)]
            gpu = any(answer and answer["accelerator"] for answer in ready)
            batch_sizes = settings.batch_sizes or ((50, 500, 5000) if gpu else (50,))
            check(settings, batch_sizes)
            results = {size: summarise(measure(crew, size, settings.rounds)) for size in batch_sizes}
        finally:
            crew.close()
    flops = epoch_flops(settings.examples)
    report(results, flops)
    # Only now, with the workers gone: looking at the devices makes this process take hold of a GPU too.
    provenance = cvae.runs.provenance() | {"commit": commit}
    measured = {name for summary in results.values() for name in summary}
    provenance["versions"] |= {PEERS[name]: metadata.version(PEERS[name]) for name in sorted(measured & PEERS.keys())}
    record = {
        "benchmark": "epoch",
        "config": {
            "data": data,
            "examples": settings.examples,
            "batch_sizes": list(batch_sizes),
            "rounds": settings.rounds,
            "contenders": list(settings.contenders),
            "flops": flops,
        },
        "load_average": load,  # of other programs, before the start
        "results": results,
        "left_out": crew.left_out,
    }
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")
    for name, reason in crew.left_out.items():
        print(f"{name}: {reason}")
    if crew.died:
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        work(sys.argv[2], Path(sys.argv[3]))
    else:
        command.run(main, Settings, __doc__)
