"""The benchmarks measure what they say: rounds, ratios, the arithmetic of the floor, and a worker's answers."""

import json
import math

import jax
import numpy as np
import pytest

import cvae
from benchmarks import contenders, epoch, floor, members, precision, rounds, saving, streaming
from benchmarks.workers import Crew, command_of
from cvae.settings import replace


def test_flops_are_those_of_the_model():
    """Each weight costs a product forwards, one for its gradient, and one for its input's, if that needs one."""
    model = cvae.Architecture(condition=cvae.Label(10))
    leaves = jax.tree_util.tree_leaves_with_path(floor.parameters(model))
    kernels = [math.prod(leaf.shape) for path, leaf in leaves if path[-1].key in ("kernel", "features")]
    first, label = 784 * 512, 10 * 512  # of the encoder, and the label's in it and in the decoder
    assert {first, label} <= set(kernels)
    assert floor.step_flops(model, 7) == 7 * 2 * (3 * sum(kernels) - first - 2 * label)
    assert floor.adam_bytes(model) == 28 * (sum(kernels) + 512 + 2 + 2 + 512 + 784)


def test_flops_of_convolutions():
    """Of 9 I O weights each, at every pixel; the first reads the data, whose gradient is not needed."""
    model = cvae.Architecture((4, 4, 1), cvae.Label(2), 1, (3, 5), body="convolutional")
    convolutions = 16 * 9 * (3 * (2 * 1 * 3 + 4 * 3 * 3) - 1 * 3)
    dense = 3 * (16 * 3 * 5 + 2 * 5 + 1 * 5 + 5 * 16 * 3) + 2 * (2 * 5 + 2 * 5)
    assert floor.step_flops(model, 7) == 7 * 2 * (convolutions + dense)


SMALL = {"article": ((6,), 2), "residual": ((6, 5), 8), "convolutional": ((3, 4, 5), 2)}


@pytest.mark.parametrize("name", SMALL)
def test_pytorch_computes_the_same_loss(name):
    """With weights that are a function of their place alone, whatever the names of the layers."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_models

    hidden, latents = SMALL[name]
    architecture = replace(contenders.SIZES[name].architecture, hidden=hidden, latent_size=latents)

    def weights(inputs, outputs):
        return np.sin(1 + np.arange(inputs)[:, None] + 2.5 * np.arange(outputs)) / inputs**0.5

    def fill(leaf):
        if leaf.ndim == 1:
            return np.cos(np.arange(leaf.size)).astype(np.float32)
        return weights(leaf.size // leaf.shape[-1], leaf.shape[-1]).astype(np.float32).reshape(leaf.shape)

    model = cvae.make(architecture)
    params = jax.tree.map(fill, floor.parameters(architecture))
    theirs = torch_models.CVAE(architecture)
    assert sum(p.numel() for p in theirs.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(params))
    for path, p in theirs.named_parameters():
        shape = tuple(p.shape)
        axes = (2, 3, 1, 0) if len(shape) == 4 else (1, 0)
        value = fill(np.empty([shape[a] for a in axes] if len(shape) > 1 else shape))
        if path.startswith("decoder.steps"):  # depth_to_space orders them otherwise
            value = value.reshape(*value.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(value.shape)
        p.data = torch.from_numpy(np.ascontiguousarray(value.transpose(np.argsort(axes)) if len(shape) > 1 else value))
    rng = np.random.default_rng(0)
    x, label = rng.integers(0, 256, (3, 28, 28, 1), np.uint8), np.array([1, 4, 9], np.int32)
    c = {"label": label} if name != "residual" else {"image": x}
    key, layers = jax.random.key(0), architecture.latent_layers
    keys = [jax.random.fold_in(key, layer) for layer in range(layers)] if layers > 1 else [key]
    noise = np.concatenate([jax.random.normal(key, (3, latents // layers)) for key in keys], axis=1)
    ours = -cvae.elbo(model, params, key, x, c).value.mean()
    loss = theirs(*torch_models.inputs(architecture, x, label), torch.from_numpy(noise))
    assert float(loss.detach()) == pytest.approx(float(ours), rel=1e-5)


def test_every_round_starts_with_another_and_a_dead_contender_is_left_out():
    calls = []

    def call(name):
        calls.append(name)
        return None if calls.count("b") == 2 and name == "b" else {"seconds": float(len(calls))}

    rows = rounds.interleave({name: (lambda name=name: call(name)) for name in "abc"}, 3, "test")
    assert "".join(calls) == "abc" + "bca" + "ac"
    assert {name: [row["seconds"] for row in each] for name, each in rows.items()} == {"a": [1, 6, 7], "c": [3, 5, 8]}


def test_steps_are_those_of_the_model_or_what_the_examples_allow():
    settings = epoch.Settings(sizes=("residual", "convolutional"))
    assert epoch.cases(settings, gpu=False) == [("residual", 200, 200), ("convolutional", 100, 20)]
    assert [case.steps for case in epoch.cases(settings, gpu=True)] == [200, 110, 11, 20, 20, 11]


def test_ratios_are_taken_within_a_round():
    rows = {
        "cvae": [{"seconds": 1.0, "loss": 2.0}, {"seconds": 4.0, "loss": 1.5}, {"seconds": 2.0, "loss": 1.0}],
        "floor": [{"seconds": seconds, "flops": 1e9, "bytes": 1e9} for seconds in (0.5, 2.0, 0.4)],
    }
    summary = epoch.summarize(rows, steps=10)
    assert summary["cvae"]["median"] == 200.0
    assert summary["cvae"]["over_floor"] == 2.0  # the median of 2, 2 and 5; the ratio of the medians would be 4
    assert summary["floor"]["over_cvae"] == 0.5
    assert summary["cvae"]["loss"] == 1.0
    assert rounds.quartiles([2.0, 2.0, 5.0, 3.0, 1.0]) == {"ratio": 2.0, "quartiles": (2.0, 3.0)}


def test_workers_train_and_a_dead_one_is_left_out(capfd):
    rng = np.random.default_rng(0)
    examples = rounds.Examples(rng.integers(0, 256, (100, 28, 28, 1), np.uint8), rng.integers(0, 10, 100, np.int32))
    commands = {name: command_of(name) for name in ("cvae", "no_contender", "floor")}
    with Crew(commands, examples) as crew:
        rows = epoch.measure(crew, 25, 2, names=("cvae", "no_contender"), examples=50)
        floors = epoch.measure(crew, 25, 2, names=("floor",), size="residual")
    assert list(rows) == ["cvae"]
    assert list(floors) == ["floor"]
    assert list(crew.left_out) == ["no_contender"]
    assert "KeyError" in capfd.readouterr().err
    assert all(row["seconds"] > 0 and 50 < row["loss"] < 600 for row in rows["cvae"])


def test_a_saved_epoch_is_compared_with_its_neighbors():
    """The first two, with compilation, are not counted; the machine slows down all along."""
    slower = [1 + n / 10 for n in range(10)]
    seconds = [100.0, 100.0, *slower]
    for n in range(2, len(seconds)):  # seconds[n] is from the end of epoch n + 1
        seconds[n] *= 1.02 if saving.is_saved(n + 1) else 1
    saved, unsaved = saving.neighbors(seconds)
    assert saved == pytest.approx([1.02 * s for s in slower[1:-1:2]])
    compared = saving.compare(saved, unsaved)
    assert compared["ratio"] == pytest.approx(1.02)
    assert compared["standard_error"] == pytest.approx(0, abs=1e-9)


def test_results_say_where_they_come_from(tmp_path):
    out = tmp_path / "results" / "benchmark_x.json"
    with rounds.record(out, "x") as found:
        found |= {"config": {"rounds": 1}, "results": {"median": 2.0}, "versions": {"torch": "2"}}
    record = json.loads(out.read_text())
    assert record["results"]["median"] == 2.0
    assert {"jax", "torch"} <= record["versions"].keys()
    assert {"benchmark", "config", "load_average", "date", "commit", "versions", "machine"} <= record.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            lambda: epoch.cases(epoch.Settings(batch_sizes=(50, 56_000)), gpu=False),
            "--batch-sizes must be at most 55000, the examples, got 56000",
        ),
        (lambda: epoch.cases(epoch.Settings(steps=(5,)), gpu=False), "--steps must be 3 numbers, one per model"),
        (lambda: epoch.Settings(rounds=0), "rounds must be greater than or equal to 1, got 0"),
        (
            lambda: epoch.cases(epoch.Settings(contenders=("cvae", "cvae")), gpu=False),
            "--contenders must be names, each once",
        ),
    ],
)
def test_bad_options_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


def test_bfloat16_is_measured_in_nats(tmp_path):
    """Other products than those of float32, by little."""
    precision.main(precision.Settings(dataset="digits", seeds=(3,), epochs=1, out=tmp_path / "precision.json"))
    found = json.loads((tmp_path / "precision.json").read_text())["results"]["3"]
    assert 0 < abs(found["computing"]["value"]) < 0.01 * found["loss"]["value"]
    assert 0 < found["computing"]["standard_error"] < found["loss"]["standard_error"]
    assert 0 < abs(found["training"]["value"]) < 0.1 * found["loss"]["value"]


def test_members_and_arrays_on_disk_are_measured(tmp_path):
    """Short versions of two benchmarks; the second refuses losses that differ."""
    members.main(members.Settings(members=(1, 2), examples=100, rounds=2, out=tmp_path / "members.json"))
    found = json.loads((tmp_path / "members.json").read_text())["results"]
    assert list(found) == ["1, one by one", "2, one by one", "2, side by side"]
    assert found["2, one by one"]["over_one_by_one"] == 1
    streaming.main(streaming.Settings(examples=100, batch_size=20, rounds=2, out=tmp_path / "streaming.json"))
    found = json.loads((tmp_path / "streaming.json").read_text())["results"]
    assert len(found["disk"]["seconds"]) == len(found["memory"]["seconds"]) == 2
    assert found["ratio"] > 0
