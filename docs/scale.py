"""Tables of `docs/scaling.md`: what was measured, and the cost model of a step beside it."""

from __future__ import annotations

from statistics import median

from docs.tables import SIZES, read, source
from experiments.harness.tables import render

HOSTS = (1, 10, 100, 1000)
NETWORK, LATENCY = 1.25e9, 5e-5  # bytes per second and seconds of a message, that the table of hosts assumes


def streaming() -> str:
    """An epoch from disk beside one from memory."""
    results = read("benchmark_streaming.json")["results"]
    seconds = [f"{median(results[name]['seconds']):.2f}" for name in ("memory", "disk")]
    body = [["seconds of an epoch from memory", seconds[0]], ["from disk", seconds[1]]]
    body.append(["from disk, relative to memory", f"{results['ratio']:.3f}"])
    return render(["55,000 images, batches of 512", "median"], body) + source("benchmark_streaming.json")


def stream_memory() -> str:
    """The memory of a fit to images on disk."""
    results = read("stress_streaming.json")["results"]
    body = [
        ["images on disk, GB", f"{results['bytes'] / 1e9:.1f}"],
        ["most memory, GB", f"{max(results[name]['bytes'] for name in ('stopped', 'resumed')) / 1e9:.2f}"],
        ["stopped after", results["stopped"]["place"]],
        ["went on after", results["resumed"]["place"]],
    ]
    return render([f"{results['images']:,} images of 64 x 64 x 3", ""], body) + source("stress_streaming.json")


def _steps() -> dict[str, tuple[float, float, float, float]]:
    """FLOP, bytes, and predicted and measured seconds of a step, of each model."""
    file, found = read("benchmark_epoch.json"), {}
    for case in file["config"]["sizes"]:
        measured = file["results"][case["size"]][str(case["batch_size"])]
        rate, bandwidth = (1e9 * median(measured["floor"][name]) for name in ("gflops", "gigabytes"))
        predicted = case["flops"] / rate + case["bytes"] / bandwidth
        found[case["size"]] = (case["flops"], case["bytes"], predicted, measured["cvae"]["median"] / 1000)
    return found


def cost() -> str:
    """What the cost model predicts of a step on one machine, beside what was measured."""
    body = [
        [
            SIZES[size],
            f"{flops / 1e9:.2f}",
            f"{size_bytes / 1e6:.0f}",
            f"{1000 * predicted:.1f}",
            f"{1000 * seconds:.1f}",
        ]
        for size, (flops, size_bytes, predicted, seconds) in _steps().items()
    ]
    head = ["a step", "GFLOP", "MB", "predicted, ms", "measured, ms"]
    return render(head, body) + source("benchmark_epoch.json")


def hosts() -> str:
    """The share of the time of a step that is computation, on several hosts, as the cost model has it."""
    body = []
    for size, (_, size_bytes, _, seconds) in _steps().items():
        shares = []
        for count in HOSTS:
            sent = 2 * (size_bytes / 7) * (count - 1) / count / NETWORK + 2 * (count - 1) * LATENCY
            shares.append(f"{seconds / (seconds + sent):.0%}")
        body.append([SIZES[size], f"{size_bytes / 7 / 1e6:.1f}", *shares])
    return render(["share of computation", "gradient, MB", *(f"{count:,} hosts" for count in HOSTS)], body)


def devices() -> str:
    """An epoch on devices and in processes that share a machine."""
    results = read("benchmark_devices.json")["results"]
    body = [
        [name, f"{median(row['seconds']):.2f}", f"{row['over_first']:.2f}", f"{row['loss']:.3f}"]
        for name, row in results.items()
    ]
    head = ["batches of 512, two cores", "seconds per epoch", "relative to the first", "loss"]
    return render(head, body) + source("benchmark_devices.json")


def start() -> str:
    """From a command to its first steps."""
    results = read("benchmark_start.json")["results"]
    names = {"cold": "nothing compiled before", "warm": "called before"}
    body = [[label, f"{median(results[name]):.1f}"] for name, label in names.items()]
    return render(["the article's experiment", "seconds"], body) + source("benchmark_start.json")


def members() -> str:
    """Sweeps by their number of members."""
    results = read("benchmark_members.json")["results"]
    body = [[name, f"{row['median']:.2f}", f"{row['over_one_by_one']:.2f}"] for name, row in results.items()]
    head = ["members", "seconds per epoch and member", "relative to one by one"]
    return render(head, body) + source("benchmark_members.json")


def precision() -> str:
    """What bfloat16 products cost in nats."""
    results = read("benchmark_precision.json")["results"]
    body = [
        [
            seed,
            *(
                f"{row[name]['value']:.3f} ± {row[name]['standard_error']:.3f}"
                for name in ("loss", "computing", "training")
            ),
        ]
        for seed, row in results.items()
    ]
    head = ["seed", "loss in float32", "more where computed in bfloat16", "more where trained in bfloat16"]
    return render(head, body) + source("benchmark_precision.json")
