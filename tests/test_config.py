"""Settings check themselves, hash, and go to JSON and back."""

import json

import pytest

import cvae
from cvae.config import Config, from_json, to_json

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


def test_architectures_are_hashable_and_models_are_shared():
    one = cvae.Architecture([8, 8, 1], cvae.Label(10), 3, [16])
    two = cvae.Architecture((8, 8, 1), cvae.Label(10), 3, (16,))
    assert one == two
    assert cvae.make(one) is cvae.make(two)


BAD_ARCHITECTURES = {
    "latents": ({"latent_size": 0}, "latent_size must be a whole number of at least 1, got 0"),
    "negative latents": ({"latent_size": -2}, "latent_size .* got -2"),
    "half a latent": ({"latent_size": 2.5}, r"latent_size .* got 2\.5"),
    "width": ({"hidden": (512, 0)}, r"hidden\[1\] must be a whole number of at least 1, got 0"),
    "no width": ({"hidden": ()}, "hidden must name at least one width"),
    "event": ({"event_shape": (28, -28, 1)}, r"event_shape\[1\] .* got -28"),
    "no event": ({"event_shape": ()}, "event_shape must name at least one axis"),
    "condition": ({"condition": "label"}, "condition must be a condition, got 'label'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_ARCHITECTURES.values(), ids=BAD_ARCHITECTURES.keys())
def test_bad_architectures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Architecture(**fields)


BAD_TRAINING = {
    "epochs": ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    "batch": ({"batch_size": -50}, "batch_size must be a whole number of at least 1, got -50"),
    "rate": ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
    "negative rate": ({"learning_rate": -1e-3}, "learning_rate .* got -0.001"),
    "no rate": ({"learning_rate": float("nan")}, "learning_rate .* got nan"),
    "infinite rate": ({"learning_rate": float("inf")}, "learning_rate .* got inf"),
    "beta": ({"beta": "one"}, "beta must be a finite number above 0, got 'one'"),
    "samples": ({"num_samples": 1.0}, "num_samples must be a whole number of at least 1, got 1.0"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_TRAINING.values(), ids=BAD_TRAINING.keys())
def test_bad_training_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Training(**fields)


def broken(path: list[str], value: object) -> dict:
    """The config's JSON with one entry replaced."""
    data = json.loads(json.dumps(to_json(CONFIG)))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


BAD_JSON = {
    "type": (["seed"], "3", "config.seed must be of type int, got '3'"),
    "bool for int": (["seed"], True, "config.seed must be of type int, got True"),
    "unknown field": (["colour"], 1, r"config must have the fields \['experiment', .*'colour'"),
    "nested value": (["models", "vae", "latent_size"], 0, "config.models.vae: latent_size must be a whole number"),
    "nested type": (["models", "vae", "hidden"], 5, "config.models.vae.hidden must be a list, got 5"),
    "element": (["models", "cvae", "hidden"], ["a"], r"config.models.cvae.hidden\[0\] must be of type int, got 'a'"),
    "kind": (["models", "cvae", "condition"], {"kind": "os.system"}, "condition.kind must be one of .*'Label'"),
    "no kind": (["models", "cvae", "condition"], [], "condition.kind must be one of"),
    "object": (["training"], [], "config.training must be an object"),
    "mapping": (["models"], [], "config.models must be an object"),
    "number": (["training", "beta"], None, "config.training.beta must be a number, got None"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_damaged_json_is_refused_by_name(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Config, broken(path, value))
