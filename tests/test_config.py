"""Settings check themselves, hash, and go to JSON and back."""

import json

import jax
import numpy as np
import pytest

import cvae
from cvae import likelihoods
from cvae.config import Config, from_json, to_json
from tests.conftest import CONDITIONS, EVENT

CONFIG = Config(
    experiment="an experiment",
    dataset="digits",
    seed=3,
    training=cvae.Training(epochs=2, learning_rate=0.01),
    models={
        "cvae": cvae.Architecture((8, 8, 1), cvae.Label(10), 3, (16, 12)),
        "vae": cvae.Architecture((8, 8, 1), cvae.Nothing(), 3, (16, 12)),
    },
)


def test_json_and_back():
    assert from_json(Config, json.loads(json.dumps(to_json(CONFIG)))) == CONFIG


LIKELIHOODS = {
    "bernoulli": likelihoods.Bernoulli(),
    "continuous bernoulli": likelihoods.ContinuousBernoulli(),
    "normal": likelihoods.Normal(scale=0.7),
    "learned scale": likelihoods.Normal(bounds=(0.1, 3.0)),
}
# Everything a file must remember, no two settings at the same value, and none at its default.
FULL = Config(
    experiment="a sweep",
    dataset="digits",
    seed=4,
    training=cvae.Training(
        epochs=3,
        batch_size=7,
        learning_rate=0.01,
        schedule="warmup_cosine",
        weight_decay=0.02,
        clip_norm=0.5,
        average=0.99,
        num_samples=2,
        beta=0.4,
        beta_warmup=1,
        free_bits=0.03,
        patience=5,
        targets="dynamic",
    ),
    models={
        f"{name} {kind}": cvae.Architecture(
            EVENT, condition, 4, (7, 8), "residual", "film", "standard" if name == "nothing" else "learned", likelihood
        )
        for name, condition in CONDITIONS.items()
        for kind, likelihood in LIKELIHOODS.items()
    },
    sweep=cvae.Sweep((1, 2, 4), (0, 5), (0.5, 2.0), (1e-4, 3e-4, 1e-3)),
)


@pytest.mark.parametrize("config", [CONFIG, FULL], ids=["no sweep", "everything"])
def test_json_and_back_by_every_kind(config):
    written = json.loads(json.dumps(to_json(config)))
    read = from_json(Config, written)
    assert read == config
    assert hash(tuple(read.models.values())) == hash(tuple(config.models.values()))
    assert to_json(read) == written


def test_what_is_none_stays_none():
    written = to_json(CONFIG)
    assert written["sweep"] is written["training"]["clip_norm"] is written["training"]["patience"] is None
    assert to_json(FULL.models["label learned scale"])["likelihood"]["scale"] is None


def test_json_names_every_kind():
    written = to_json(FULL)["models"]["mixed normal"]
    assert [part["kind"] for part in written["condition"]["parts"]] == ["Label", "Image", "Continuous"]
    assert [part["name"] for part in written["condition"]["parts"]] == ["digit", "part", "stroke"]
    assert written["condition"]["kind"] == "Mixed"
    assert written["likelihood"]["kind"] == "Normal"


def test_numbers_of_numpy_are_written_too():
    sweep = cvae.Sweep(np.arange(1, 4), betas=np.float32([0.1, 3.0]), learning_rates=np.geomspace(1e-4, 1e-3, 3))
    assert from_json(cvae.Sweep, json.loads(json.dumps(to_json(sweep)))) == sweep


def test_small_integers_of_numpy_become_pythons():
    """Which do not overflow: the largest label of a file of bytes, and one more."""
    label = cvae.Label(np.array([3, 9], np.uint8).max() + 1)
    architecture = cvae.Architecture(
        tuple(np.array([28, 28, 1], np.uint8)), label, np.int8(100), (np.uint8(200),), latent_layers=np.int8(4)
    )
    assert type(architecture.condition.num_classes) is type(architecture.latent_size) is type(architecture.hidden[0])
    model = cvae.make(architecture)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert shapes["encoder"]["mlp"]["layers"]["layer_0"]["linear"]["kernel"].shape == (794, 200)
    assert shapes["encoder"]["head"]["kernel"].shape == (200, 50)
    assert cvae.Training(epochs=np.int8(100), batch_size=np.uint8(200)) == cvae.Training(epochs=100, batch_size=200)


@pytest.mark.parametrize("size", [np.timedelta64(3, "s"), True, np.True_, 2.0, "3"])
def test_what_is_no_whole_number_is_refused(size):
    """A span of time is an integer to NumPy."""
    with pytest.raises(ValueError, match="latent_size must be a whole number of at least 0"):
        cvae.Architecture(latent_size=size)
    with pytest.raises(ValueError, match=r"event_shape\[0\] must be a whole number of at least 1"):
        cvae.masks.fixed("left_half", (size, 4))


def test_a_span_of_time_is_no_weight():
    with pytest.raises(ValueError, match="beta must be a finite number above 0"):
        cvae.Training(beta=np.timedelta64(3, "s"))


@pytest.mark.parametrize("name", ["label/attribute", "", ".lock", "a\nb", 3])
def test_a_config_that_is_written_can_be_read(name):
    with pytest.raises(ValueError, match="models must have names of letters, digits, spaces and"):
        Config("test", "digits", 0, cvae.Training(), {name: cvae.Architecture()})


def test_pictures_that_can_be_halved_pass():
    for shape, hidden in (((5, 3, 2), (4, 8)), ((6, 2, 1), (4, 4, 8)), ((28, 28, 1), (4, 4, 4, 8))):
        assert cvae.Architecture(shape, hidden=hidden, body="convolutional").hidden == hidden


def test_architectures_are_hashable_and_models_are_shared():
    one = cvae.Architecture([8, 8, 1], cvae.Label(10), 3, [16])
    two = cvae.Architecture((8, 8, 1), cvae.Label(10), 3, (16,))
    assert one == two
    assert cvae.make(one) is cvae.make(two)


BAD_ARCHITECTURES = {
    "latents": ({"latent_size": 0}, "latent_size must be at least 1 without a condition, got 0"),
    "a prior of no latents": (
        {"latent_size": 0, "condition": cvae.Label(10), "prior": "learned"},
        "prior must be standard and latent_layers 1 without latents, got 'learned'",
    ),
    "layers": ({"latent_layers": 0}, "latent_layers must be a whole number of at least 1, got 0"),
    "layers of unequal size": (
        {"latent_size": 7, "latent_layers": 3},
        "latent_size must be a multiple of latent_layers, 3, got 7",
    ),
    "a guess for nobody": (
        {"condition": cvae.Label(10), "guess": True},
        "guess must be False where no prior is learned, got True",
    ),
    "negative latents": ({"latent_size": -2}, "latent_size .* got -2"),
    "half a latent": ({"latent_size": 2.5}, r"latent_size .* got 2\.5"),
    "a lone width": ({"hidden": 512}, "hidden must be a list of numbers, got 512"),
    "width": ({"hidden": (512, 0)}, r"hidden\[1\] must be a whole number of at least 1, got 0"),
    "no width": ({"hidden": ()}, "hidden must name at least one width"),
    "event": ({"event_shape": (28, -28, 1)}, r"event_shape\[1\] .* got -28"),
    "no event": ({"event_shape": ()}, "event_shape must name at least one axis"),
    "condition": ({"condition": "label"}, "condition must be a condition, got 'label'"),
    "class": ({"condition": cvae.Label}, "condition must be a condition, got <class"),
    "body": ({"body": "deep"}, "body must be one of plain, residual, convolutional, got 'deep'"),
    "convolutions of a row": (
        {"event_shape": (28,), "hidden": (4, 8), "body": "convolutional"},
        r"event_shape must be a picture \(H, W, C\) for a convolutional body, got \(28,\)",
    ),
    "convolutions without channels": (
        {"hidden": (8,), "body": "convolutional"},
        r"hidden must name channels and, last, a dense width for a convolutional body, got \(8,\)",
    ),
    "a height not halved": (
        {"event_shape": (6, 8, 1), "hidden": (4, 4, 4, 8), "body": "convolutional"},
        r"event_shape must have a height and a width divisible by 4 for the 3 resolutions of .* got \(6, 8, 1\)",
    ),
    "a width not halved": (
        {"event_shape": (8, 5, 1), "hidden": (4, 4, 8), "body": "convolutional"},
        r"event_shape must have a height and a width divisible by 2 for the 2 resolutions of .* got \(8, 5, 1\)",
    ),
    "conditioning": ({"conditioning": "add"}, "conditioning must be one of concat, concat_all, film, got 'add'"),
    "prior": ({"prior": "flow"}, "prior must be one of standard, learned, got 'flow'"),
    "prior of nothing": ({"prior": "learned"}, "prior must be standard without a condition, got learned"),
    "likelihood": ({"likelihood": "normal"}, "likelihood must be a likelihood, got 'normal'"),
    "distribution": ({"likelihood": cvae.Bernoulli}, "likelihood must be a likelihood, got <class"),
    "image": (
        {"condition": cvae.Image((28, 27, 1))},
        r"condition must be an image of \(28, 28, 1\), got \(28, 27, 1\)",
    ),
    "image in a mix": (
        {"condition": cvae.Mixed(digit=cvae.Label(10), part=cvae.Image((8, 8, 1)))},
        r"condition must be an image of \(28, 28, 1\), got \(8, 8, 1\)",
    ),
}


@pytest.mark.parametrize(("fields", "message"), BAD_ARCHITECTURES.values(), ids=BAD_ARCHITECTURES.keys())
def test_bad_architectures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Architecture(**fields)


BAD_TRAINING = {
    "alpha": ({"alpha": 1.1}, "alpha must be a number from 0 to 1, got 1.1"),
    "alpha of iwae": ({"alpha": 0.5, "objective": "iwae"}, "alpha must be 1 with the iwae objective, got 0.5"),
    "shift": ({"shift": 0.5}, "shift must be a whole number of at least 0, got 0.5"),
    "moved": ({"moved": -0.1}, "moved must be a number from 0 to 1, got -0.1"),
    "omission": ({"omission": True}, "omission must be a number from 0 to 1, got True"),
    "frozen": ({"frozen": "guess"}, "frozen must be a list of names, got 'guess'"),
    "epochs": ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    "batch": ({"batch_size": -50}, "batch_size must be a whole number of at least 1, got -50"),
    "rate": ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
    "negative rate": ({"learning_rate": -1e-3}, "learning_rate .* got -0.001"),
    "no rate": ({"learning_rate": float("nan")}, "learning_rate .* got nan"),
    "infinite rate": ({"learning_rate": float("inf")}, "learning_rate .* got inf"),
    "beta": ({"beta": "one"}, "beta must be a finite number above 0, got 'one'"),
    "samples": ({"num_samples": 1.0}, "num_samples must be a whole number of at least 1, got 1.0"),
    "schedule": ({"schedule": "linear"}, "schedule must be one of constant, cosine, warmup_cosine, got 'linear'"),
    "decay": ({"weight_decay": -0.1}, "weight_decay must be a finite number of at least 0, got -0.1"),
    "clip": ({"clip_norm": 0.0}, "clip_norm must be a finite number above 0, got 0.0"),
    "average": ({"average": 1.0}, "average must be below 1, got 1.0"),
    "negative average": ({"average": -0.1}, "average must be a finite number of at least 0, got -0.1"),
    "objective": ({"objective": "vae"}, "objective must be one of elbo, iwae, got 'vae'"),
    "warm-up": ({"beta_warmup": 0.5}, "beta_warmup must be a whole number of at least 0, got 0.5"),
    "free bits": ({"free_bits": float("nan")}, "free_bits must be a finite number of at least 0, got nan"),
    "patience": ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
    "targets": ({"targets": "binary"}, "targets must be one of grey, dynamic, static, got 'binary'"),
    "iwae with beta": ({"objective": "iwae", "beta": 0.5}, "objective must be elbo to weigh the KL, got iwae"),
    "iwae with warm-up": ({"objective": "iwae", "beta_warmup": 2}, "objective must be elbo to weigh the KL, got iwae"),
    "iwae with free bits": (
        {"objective": "iwae", "free_bits": 0.1},
        "objective must be elbo to weigh the KL, got iwae",
    ),
}


@pytest.mark.parametrize(("fields", "message"), BAD_TRAINING.values(), ids=BAD_TRAINING.keys())
def test_bad_training_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Training(**fields)


def test_settings_that_go_together_pass():
    assert cvae.Training(objective="iwae", num_samples=5).beta == 1
    assert cvae.Training(clip_norm=None, patience=None, average=0, weight_decay=0) == cvae.Training()


BAD_SWEEPS = {
    "empty": ({"latent_sizes": ()}, "latent_sizes must name at least one value, got none"),
    "empty axis": ({"latent_sizes": (2,), "betas": []}, "betas must name at least one value, got none"),
    "twice": ({"latent_sizes": (2, 3, 2)}, r"latent_sizes must name every value once, got \[2, 3, 2\]"),
    "seed twice": ({"latent_sizes": (2,), "seeds": [1, 1]}, r"seeds must name every value once, got \[1, 1\]"),
    "no latents": ({"latent_sizes": (2, 0)}, r"latent_sizes\[1\] must be a whole number of at least 1, got 0"),
    "seed": ({"latent_sizes": (2,), "seeds": (0, -1)}, r"seeds\[1\] must be a whole number of at least 0, got -1"),
    "large seed": ({"latent_sizes": (2,), "seeds": (2**32,)}, r"seeds\[0\] must be below 2\*\*32, got 4294967296"),
    "beta": ({"latent_sizes": (2,), "betas": (1.0, 0.0)}, r"betas\[1\] must be a finite number above 0, got 0.0"),
    "rate": ({"latent_sizes": (2,), "learning_rates": ("a",)}, r"learning_rates\[0\] .* above 0, got 'a'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SWEEPS.values(), ids=BAD_SWEEPS.keys())
def test_bad_sweeps_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Sweep(**fields)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, None])
def test_a_config_has_a_seed(seed):
    with pytest.raises(ValueError, match="seed must be"):
        Config("an experiment", "digits", seed, cvae.Training())


def broken(config: Config, path: list, value: object) -> dict:
    """The config's JSON with one entry replaced."""
    data = json.loads(json.dumps(to_json(config)))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


BAD_JSON = {
    "type": (["seed"], "3", "config.seed must be of type int, got '3'"),
    "bool for int": (["seed"], True, "config.seed must be of type int, got True"),
    "unknown field": (["colour"], 1, r"config must have the fields \['experiment', .*'colour'"),
    "nested value": (["models", "vae", "latent_size"], -1, "config.models.vae: latent_size must be a whole number"),
    "nested type": (["models", "vae", "hidden"], 5, "config.models.vae.hidden must be a list, got 5"),
    "element": (["models", "cvae", "hidden"], ["a"], r"config.models.cvae.hidden\[0\] must be of type int, got 'a'"),
    "kind": (["models", "cvae", "condition"], {"kind": "os.system"}, "condition.kind must be one of .*'Label'"),
    "no kind": (["models", "cvae", "condition"], [], "condition.kind must be one of"),
    "object": (["training"], [], "config.training must be an object"),
    "mapping": (["models"], [], "config.models must be an object"),
    "folder": (["models", "../cvae"], {}, r"config.models must have names of letters, .*, got '../cvae'"),
    "line": (["models", "a\nb"], None, r"config.models must have names of letters, .*, got 'a\\nb'"),
    "number": (["training", "beta"], None, "config.training.beta must be a number, got None"),
}


def test_a_setting_that_is_not_there_has_its_default():
    """So that a run folder from before the setting existed can be read."""
    data = json.loads(json.dumps(to_json(CONFIG)))
    for path in (("training", "alpha"), ("training", "shift"), ("models", "cvae", "latent_layers")):
        place = data
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
    assert from_json(Config, data) == CONFIG
    del data["dataset"]
    with pytest.raises(ValueError, match="config must have the fields"):
        from_json(Config, data)


@pytest.mark.parametrize(("path", "value", "message"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_damaged_json_is_refused_by_name(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Config, broken(CONFIG, path, value))


MIX, NUMBERS = ["models", "mixed normal", "condition"], ["models", "continuous learned scale", "condition"]
BAD_FULL = {
    "part's kind": (
        [*MIX, "parts", 1, "kind"],
        "Mixed",
        r"mixed normal.condition.parts\[1\].kind must be one of \['Cont",
    ),
    "part's value": ([*MIX, "parts", 0, "num_classes"], 1, r"mixed normal.condition.parts\[0\]: num_classes must be"),
    "part's mask": ([*MIX, "parts", 1, "mask"], "top", r"mixed normal.condition.parts\[1\]: mask must be one of"),
    "parts' names": ([*MIX, "parts", 2, "name"], "digit", "mixed normal.condition: parts must have a name each, got"),
    "no parts": ([*MIX, "parts"], [], "mixed normal.condition: Mixed must name at least one condition, got none"),
    "parts": ([*MIX, "parts"], {}, "mixed normal.condition.parts must be a list"),
    "another image": (
        [*MIX, "parts", 1, "event_shape"],
        [9, 9, 1],
        r"mixed normal: condition must be an image of \(2, 3",
    ),
    "mean": ([*NUMBERS, "mean"], [1.0, "a"], r"scale.condition.mean\[1\] must be a number, got 'a'"),
    "means": ([*NUMBERS, "mean"], [1.0], "scale.condition: mean must hold dim = 2 numbers, got 1"),
    "name": ([*NUMBERS, "name"], None, "scale.condition.name must be of type str, got None"),
    "scale": (["models", "label normal", "likelihood", "scale"], -1, "label normal.likelihood: scale must be a finite"),
    "family": (
        ["models", "label normal", "likelihood", "kind"],
        "Poisson",
        "likelihood.kind must be one of .*'Normal'",
    ),
    "no family": (["models", "label normal", "likelihood"], None, "likelihood.kind must be one of"),
    "film": (["models", "label normal", "conditioning"], "add", "label normal: conditioning must be one of"),
    "clip": (["training", "clip_norm"], "a", "config.training.clip_norm must be a number, got 'a'"),
    "patience": (["training", "patience"], 1.5, "config.training.patience must be of type int, got 1.5"),
    "iwae": (["training", "objective"], "iwae", "config.training: objective must be elbo to weigh the KL"),
    "axis": (["sweep", "betas"], [], "config.sweep: betas must name at least one value"),
    "axis twice": (["sweep", "betas"], [1, 1], "config.sweep: betas must name every value once"),
    "axis value": (["sweep", "seeds", 1], 0.5, r"config.sweep.seeds\[1\] must be of type int, got 0.5"),
    "no axis": (["sweep"], {"seeds": [0]}, "config.sweep must have the fields"),
    "seed": (["seed"], -1, "config: seed must be a whole number of at least 0, got -1"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD_FULL.values(), ids=BAD_FULL.keys())
def test_damaged_settings_of_every_kind_are_refused_by_path(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Config, broken(FULL, path, value))
