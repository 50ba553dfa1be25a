"""The settings of models and training: what is refused, and that they survive JSON."""

import json
import pickle

import jax
import numpy as np
import pytest

import cvae
from cvae.config import Config, parts_of
from cvae.settings import from_json, replace, to_json

EVENT, LABEL = (2, 3, 1), cvae.Label(10)
CONFIG = Config(
    experiment="an experiment",
    dataset="digits",
    seed=3,
    training=cvae.Training(epochs=2, learning_rate=0.01),
    models={
        "cvae": cvae.Architecture((8, 8, 1), LABEL, 3, (16, 12)),
        "vae": cvae.Architecture((8, 8, 1), cvae.Unconditional(), 3, (16, 12)),
    },
)
CONDITIONS = {
    "unconditional": cvae.Unconditional(),
    "label": cvae.Label(4, "digit"),
    "continuous": cvae.Continuous(2, (3.0, -20.0), (0.5, 8.0), "age"),
    "image": cvae.Image(EVENT, "left_half", "part", True, (0.25,), (0.75,)),
}
CONDITIONS["mixed"] = cvae.Mixed(tuple(CONDITIONS[name] for name in ("label", "image", "continuous")))
LIKELIHOODS = {
    "bernoulli": cvae.Bernoulli(),
    "continuous bernoulli": cvae.ContinuousBernoulli(),
    "normal": cvae.Normal(std=0.7),
    "standardised": cvae.Normal(bounds=(0.1, 3.0), location=(1e9,), scale=(2.5,)),
}
# No two settings have the same value, and none its default.
TRAINING = cvae.Training(
    epochs=3, batch_size=7, learning_rate=0.01, schedule="warmup_cosine", weight_decay=0.02, clip_norm=0.5,
    ema_decay=0.99, hybrid_weight=0.9, num_samples=2, beta=0.4, beta_warmup=1, free_bits=0.03, patience=5,
    binarization="dynamic", shift=4, shift_prob=0.25, drop_block_prob=0.125, hide_prob=0.0625,
    frozen=("guess",),
)  # fmt: skip
FULL = Config(
    "a sweep",
    "digits",
    4,
    TRAINING,
    {
        f"{name} {family}": cvae.Architecture(
            EVENT, condition, 4, (7, 8), "residual", "film", "standard" if name == "unconditional" else "learned",
            likelihood, 2, guess=name != "unconditional",
        )
        for name, condition in CONDITIONS.items()
        for family, likelihood in LIKELIHOODS.items()
    },
    cvae.Sweep((1, 2, 4), (0, 5), (0.5, 2.0), (1e-4, 3e-4, 1e-3)),
)  # fmt: skip


def as_written(setting):
    return json.loads(json.dumps(to_json(setting)))


@pytest.mark.parametrize("config", [CONFIG, FULL], ids=["no sweep", "everything"])
def test_json_pickle_and_hash(config):
    for copy in (from_json(Config, as_written(config)), pickle.loads(pickle.dumps(config))):
        assert copy == config
        assert to_json(copy) == to_json(config)
        for read, written in ((copy.training, config.training), (copy.models.values(), config.models.values())):
            assert hash(read if isinstance(read, cvae.Training) else tuple(read)) == hash(
                written if isinstance(written, cvae.Training) else tuple(written)
            )


def test_the_full_config_leaves_no_default_of_training():
    default = to_json(cvae.Training(objective="elbo"))
    assert {name for name, value in to_json(TRAINING).items() if value == default[name]} == {"objective"}


def test_a_setting_that_is_missing_has_its_default():
    """So that a run folder from before the setting existed can be read."""
    data = as_written(CONFIG)
    for group, name in ((data["training"], "shift"), (data["models"]["cvae"], "latent_layers"), (data, "sweep")):
        del group[name]
    assert from_json(Config, data) == CONFIG
    del data["dataset"]
    with pytest.raises(ValueError, match=r"^config\.dataset must be given"):
        from_json(Config, data)


def test_arrays_and_lists_are_settings():
    """The integers are Python's, which do not overflow: the largest label of a file of bytes, and one more."""
    label = cvae.Label(np.array([3, 9], np.uint8).max() + 1)
    one = cvae.Architecture(np.array([28, 28, 1], np.uint8), label, np.int8(100), [np.uint8(200)])
    two = cvae.Architecture((28, 28, 1), LABEL, 100, (200,))
    assert one == two
    assert cvae.make(one) is cvae.make(two)
    kernels = jax.tree.leaves(jax.eval_shape(cvae.make(one).init, jax.random.key(0)))
    assert {(784, 200), (10, 200)} <= {kernel.shape for kernel in kernels}
    sweep = cvae.Sweep(np.arange(1, 4), betas=np.float32([0.1, 3.0]), learning_rates=np.geomspace(1e-4, 1e-3, 3))
    assert from_json(cvae.Sweep, as_written(sweep)) == sweep


def test_settings_that_go_together_pass():
    assert cvae.Architecture(likelihood=cvae.Normal()).likelihood == cvae.Normal()
    assert cvae.Architecture(condition=LABEL, latent_size=0).prior == "standard"
    assert cvae.Training(objective="iwae", num_samples=5).beta == 1
    for shape, hidden in (((5, 3, 2), (4, 8)), ((28, 28, 1), (4, 4, 4, 8)), ((33, 47, 1), (4, 4, 8))):
        assert cvae.Architecture(shape, hidden=hidden, body="convolutional").hidden == hidden
    assert parts_of(CONDITIONS["mixed"]) == CONDITIONS["mixed"].parts
    assert parts_of(LABEL) == (LABEL,)


CONDITION = (
    r"^condition must be a cvae\.Condition, such as cvae\.Unconditional\(\.\.\.\) or cvae\.Label\(\.\.\.\).* got "
)
LIKELIHOOD = (
    r"^likelihood must be a cvae\.Likelihood, such as cvae\.Bernoulli\(\.\.\.\) or cvae\.Normal\(\.\.\.\) or .*, got "
)
BAD_ARCHITECTURES = {
    "no latents": ({"latent_size": 0}, "^latent_size must be at least 1 without a condition, got 0"),
    "a prior of no latents": (
        {"latent_size": 0, "condition": LABEL, "prior": "learned"},
        "^prior must be standard where latent_size is 0, got learned",
    ),
    "layers": ({"latent_layers": 0}, "^latent_layers must be greater than or equal to 1, got 0"),
    "layers of unequal size": (
        {"latent_size": 7, "latent_layers": 3},
        "^latent_size must be a multiple of latent_layers \\(3\\), got 7",
    ),
    "guess": ({"condition": LABEL, "guess": True}, "^guess must be False unless the prior is learned, got True"),
    "int32": ({"latent_size": 2**31}, "^latent_size must be less than 2147483648, got 2147483648"),
    "width": ({"hidden": (512, 0)}, r"^hidden\[1\] must be greater than or equal to 1, got 0"),
    "event": ({"event_shape": (28, -28, 1)}, r"^event_shape\[1\] must be .* got -28"),
    "word for a condition": ({"condition": "label"}, CONDITION + "'label'"),
    "body": ({"body": "deep"}, "^body must be one of mlp, residual, convolutional, got 'deep'"),
    "convolutions of a row": (
        {"event_shape": (28,), "hidden": (4, 8), "body": "convolutional"},
        r"^event_shape must be an image \(H, W, C\) for a convolutional body, got \(28,\)",
    ),
    "convolutions without channels": (
        {"hidden": (8,), "body": "convolutional"},
        r"^hidden must have channels and, last, a dense width for a convolutional body, got \(8,\)",
    ),
    "conditioning": ({"conditioning": "add"}, "^conditioning must be 'concat', 'concat_all' or 'film', got 'add'"),
    "prior": ({"prior": "flow"}, "^prior must be 'standard' or 'learned', got 'flow'"),
    "unconditional prior": (
        {"prior": "learned"},
        "^prior must be standard for a model .*, got learned",
    ),
    "word for a likelihood": ({"likelihood": "normal"}, LIKELIHOOD + "'normal'"),
    "distribution": ({"likelihood": cvae.distributions.Normal(1, 2)}, LIKELIHOOD + "Normal"),
    "image": (
        {"condition": cvae.Image((28, 27, 1))},
        r"^condition must be an image of x's shape \(28, 28, 1\), got \(28, 27, 1\)",
    ),
    "image in a mix": (
        {"condition": cvae.Mixed((LABEL, cvae.Image((8, 8, 1))))},
        r"^condition must be an image of x's shape \(28, 28, 1\), got \(8, 8, 1\)",
    ),
}


@pytest.mark.parametrize(("fields", "message"), BAD_ARCHITECTURES.values(), ids=BAD_ARCHITECTURES.keys())
def test_bad_architectures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Architecture(**fields)


IWAE = "^objective must be elbo where beta, beta_warmup, free_bits or hybrid_weight is set, got iwae"
BAD_TRAINING = {
    "weight": ({"hybrid_weight": 1.1}, "^hybrid_weight must be less than or equal to 1, got 1.1"),
    "shift_prob": ({"shift_prob": -0.1}, "^shift_prob must be greater than or equal to 0, got -0.1"),
    "drop_block_prob": ({"drop_block_prob": 2}, "^drop_block_prob must be less than or equal to 1, got 2"),
    "frozen": ({"frozen": "guess"}, "^frozen must be a valid tuple, got 'guess'"),
    "epochs": ({"epochs": 0}, "^epochs must be greater than or equal to 1, got 0"),
    "batch_size": ({"batch_size": -50}, "^batch_size must be greater than or equal to 1, got -50"),
    "rate": ({"learning_rate": 0.0}, "^learning_rate must be greater than 0, got 0.0"),
    "schedule": ({"schedule": "linear"}, "^schedule must be 'constant', 'cosine' or 'warmup_cosine', got 'linear'"),
    "decay": ({"weight_decay": -0.1}, "^weight_decay must be greater than or equal to 0, got -0.1"),
    "clip": ({"clip_norm": 0.0}, "^clip_norm must be greater than 0, got 0.0"),
    "ema_decay": ({"ema_decay": 1.0}, "^ema_decay must be less than 1, got 1.0"),
    "objective": ({"objective": "vae"}, "^objective must be 'elbo' or 'iwae', got 'vae'"),
    "patience": ({"patience": 0}, "^patience must be greater than or equal to 1, got 0"),
    "binarization": ({"binarization": "grey"}, "^binarization must be 'none', 'dynamic' or 'static', got 'grey'"),
    "iwae with beta": ({"objective": "iwae", "beta": 0.5}, IWAE),
    "iwae with warm-up": ({"objective": "iwae", "beta_warmup": 2}, IWAE),
    "iwae with free bits": ({"objective": "iwae", "free_bits": 0.1}, IWAE),
    "iwae with a hybrid": ({"objective": "iwae", "hybrid_weight": 0.5}, IWAE),
}


@pytest.mark.parametrize(("fields", "message"), BAD_TRAINING.values(), ids=BAD_TRAINING.keys())
def test_bad_training_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Training(**fields)


BAD_SWEEPS = {
    "no sizes": ({"latent_sizes": ()}, "^latent_sizes must have at least 1 item"),
    "twice": ({"latent_sizes": (2, 3, 2)}, r"^latent_sizes must have every value once, got \[2, 3, 2\]"),
    "the same name": ({"betas": (0.1, 0.1 + 1e-15)}, "^betas must have every value once"),
    "no latents": ({"latent_sizes": (2, 0)}, r"^latent_sizes\[1\] must be greater than or equal to 1, got 0"),
    "large seed": ({"seeds": (0, 2**32)}, r"^seeds\[1\] must be less than 4294967296, got 4294967296"),
    "beta": ({"betas": (1.0, 0.0)}, r"^betas\[1\] must be greater than 0, got 0.0"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SWEEPS.values(), ids=BAD_SWEEPS.keys())
def test_bad_sweeps_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Sweep(**fields)


@pytest.mark.parametrize("name", ["label/attribute", "", ".lock", "a\nb", "../a", "a" * 101])
def test_models_have_names_that_a_folder_can_have(name):
    message = r"^models must have names of letters, digits, spaces and _\.\+-, got '"
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, models={name: cvae.Architecture()})
    assert set(replace(CONFIG, models={"a b-1.5_+c": cvae.Architecture()}).models) == {"a b-1.5_+c"}


def broken(path, value):
    """The full config's JSON with one entry replaced."""
    data = place = as_written(FULL)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


MIX, NORMAL = ["models", "mixed normal", "condition"], ["models", "label normal", "likelihood"]
BAD_JSON = {
    "seed": (["seed"], -1, r"^config\.seed must be greater than or equal to 0, got -1"),
    "size": (["models", "label normal", "latent_size"], -1, r"^config\.models\.label normal\.latent_size must .* -1"),
    "together": (["models", "label normal", "latent_size"], 7, r"^config\.models\.label normal: latent_size must .* 7"),
    "element": (["models", "label normal", "hidden", 1], "a", r"^config\.models\.label normal\.hidden\[1\] .* got 'a'"),
    "mapping": (["models"], [], r"^config\.models must be a valid dictionary, got \[\]"),
    "model": (["models", "label normal"], None, r"^config\.models\.label normal must be a dictionary.* got None"),
    "name": (["models", "../a"], as_written(cvae.Architecture()), r"^config: models must have names .* got '\.\./a'"),
    "iwae": (["training", "objective"], "iwae", r"^config\.training: objective must be elbo"),
    "kind": ([*MIX, "kind"], "os.system", r"condition: kind must be one of Unconditional, Label, .*, got 'os.system'"),
    "no condition": (MIX, [], r"^config\.models\.mixed normal\.condition: condition must be a cvae\.Condition"),
    "part": ([*MIX, "parts", 0, "num_classes"], 1, r"condition: Mixed\.parts\[0\]: Label\.num_classes must .* got 1"),
    "mask": ([*MIX, "parts", 1, "mask"], "top", r"Image\.mask must be 'quadrants_1', .* got 'top'"),
    "image": ([*MIX, "parts", 1, "event_shape"], [9, 9, 1], r"^config\.models\.mixed normal: condition must be an im"),
    "family": ([*NORMAL, "kind"], "Gumbel", r"likelihood: kind must be one of Bernoulli, .*Normal.*, got 'Gumbel'"),
    "axis": (["sweep", "betas"], [1, 1], r"^config\.sweep: betas must have every value once"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_damaged_json_is_refused_by_path(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Config, broken(path, value))
