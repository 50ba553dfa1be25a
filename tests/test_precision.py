"""JAX's global settings: the same answers with 64 bits enabled, under strict dtype promotion, and when NaN is refused.

64 bits are enabled for a whole process, so this file is also the program that computes the answers in one.
"""

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.objectives import importance_estimate
from cvae.sweeps import fit_members, members

EVENT, SIZE = (4, 5, 1), 24
EVERYTHING = cvae.Training(
    epochs=2, batch_size=7, schedule="warmup_cosine", weight_decay=0.1, clip_norm=20.0, ema_decay=0.5,
    binarization="dynamic", beta_warmup=1, free_bits=0.1, hybrid_weight=0.7, shift=1, shift_prob=0.5,
    drop_block_prob=0.5,
)  # fmt: skip
STATIC = cvae.Training(epochs=2, batch_size=7, schedule="cosine", binarization="static")
PLAIN = cvae.Training(epochs=1, batch_size=7)
IWAE = cvae.Training(epochs=1, batch_size=7, objective="iwae", num_samples=2)
MIXED = cvae.Mixed((cvae.Label(3), cvae.Continuous(2, (1.5, -20.0), (0.5, 8.0)), cvae.Image(EVENT, "random_box")))


def examples():
    """Images with conditions of every kind, and rows."""
    rng = np.random.default_rng(3)
    images, rows = rng.integers(0, 256, (SIZE, *EVENT), dtype=np.uint8), 40 + 3 * rng.normal(size=(SIZE, 4))
    label, observed = rng.integers(0, 3, SIZE), rng.random((SIZE, *EVENT)) < 0.5
    continuous = rng.normal((1.5, -20.0), (0.5, 8.0), (SIZE, 2))
    return images, {"label": label, "continuous": continuous, "image": images, "observed": observed}, rows


def table():
    """A table of a column of each kind with missing cells, its likelihood, and conditions that may be missing."""
    rng = np.random.default_rng(4)
    paid = np.where(rng.random(SIZE) < 0.3, 0, rng.gamma(2.0, 3.0, SIZE))
    x = np.column_stack([rng.integers(0, 3, SIZE), 40 + 3 * rng.normal(size=SIZE), rng.poisson(2.0, SIZE),
                         rng.poisson(9.0, SIZE), rng.gamma(2.0, 3.0, SIZE), rng.random(SIZE) < 0.5, paid])  # fmt: skip
    x[rng.random(x.shape) < 0.2] = np.nan
    counts = cvae.Poisson.fitted(x[:, [2]]), cvae.NegativeBinomial.fitted(x[:, [3]])
    parts = (cvae.Categorical(3), cvae.Normal.fitted(x[:, [1]]), *counts, cvae.LogNormal.fitted(x[:, [4]]))
    mass = cvae.PointMass(cvae.LogNormal.fitted(np.where(x[:, [6]] == 0, np.nan, x[:, [6]])))
    columns = cvae.Columns((*parts, cvae.Bernoulli(), mass), tuple((k,) for k in range(7)))
    grade, size = cvae.Label(3, "grade"), cvae.Continuous(1, (2.0,), (0.5,), "size")
    condition = cvae.Mixed((cvae.Optional(grade), cvae.Optional(size), cvae.Exposure(name="months")))
    c = {"grade": rng.integers(-1, 3, SIZE), "size": rng.normal(2, 0.5, (SIZE, 1)), "months": rng.gamma(2.0, 3.0, SIZE)}
    c["size"][::5] = np.nan
    return x, c, cvae.Missing(columns), condition


def cases(rows):
    """Architecture and settings of training, by name."""
    small = {"latent_size": 2, "hidden": (7,)}
    mixed = {"condition": MIXED, "prior": "learned", "body": "residual", "conditioning": "film"}
    images = {"hidden": (3, 6), "body": "convolutional", "latent_layers": 2}
    return {
        "mixed": (cvae.Architecture(EVENT, **small, **mixed), EVERYTHING),
        "images": (cvae.Architecture(EVENT, **(small | images)), None),
        "pixels": (cvae.Architecture(EVENT, **small, likelihood=cvae.CategoricalPixels()), None),
        "logistic": (cvae.Architecture(EVENT, **small, likelihood=cvae.DiscretizedLogistic()), None),
        "table": (cvae.Architecture((7,), table()[3], likelihood=table()[2], **small), PLAIN),
        "rows": (cvae.Architecture((4,), **small, likelihood=cvae.Normal.fitted(rows)), IWAE),
    }


@partial(jax.jit, static_argnums=0)
def measure(model, params, key, x, c) -> dict:
    """Scores and draws of a model, as one program."""
    return {
        "elbo": cvae.elbo(model, params, key, x, c),
        "estimate": importance_estimate(model, params, key, x, c, num_samples=3, proposal="mixture"),
        "sample": cvae.sample(model, params, key, c),
    }


def answers() -> dict[str, np.ndarray]:
    """What a user computes, by name; "double" is in the names of what float64 parameters gave."""
    images, c, rows = examples()
    key, found = jax.random.key(5), {}
    for name, (architecture, training) in cases(rows).items():
        model = cvae.make(architecture)
        if name == "table":
            x, given = table()[:2]
        else:
            x, given = rows if name == "rows" else images, {n: c[n] for n in architecture.condition.spec}
        validation = (rows, {}) if name == "rows" else None
        params = found[name, "init"] = jax.jit(model.init)(key)
        if training:
            fitted = cvae.fit(model, params, key, x, given, training, validation=validation, progress=False)
            params = found[name, "params"] = fitted.params
            found[name, "history"] = [(epoch.train, epoch.validation) for epoch in fitted.history]
        found[name, "measured"] = measure(model, params, key, x, given)
        if jax.config.jax_enable_x64 and name != "images":
            double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
            if training is None or name == "mixed":
                found[name, "measured", "double"] = measure(model, double, key, x, given)
            else:
                fitted = cvae.fit(model, double, key, x, given, training, progress=False)
                found[name, "params", "double"] = fitted.params
    sweep = members(cvae.Sweep((1, 2), betas=(0.5, 2.0)))[1:3]
    model = cvae.make(cvae.Architecture(EVENT, cvae.Label(3), 2, (7,)))
    trained = fit_members(model, sweep, images, {"label": c["label"]}, STATIC, parallel=2)
    found["sweep"] = [one.params for one in trained]
    return {
        f"{name}{jax.tree_util.keystr(path)}": np.asarray(leaf)
        for name, value in found.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(value)
    }


@pytest.fixture(scope="module")
def single() -> dict[str, np.ndarray]:
    """The answers of 32 bits, where JAX refuses to promote dtypes and to compute NaN."""
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        warnings.simplefilter("ignore")  # of losses that rise: nothing is learned in two epochs
        return answers()


@pytest.fixture(scope="module")
def enabled(tmp_path_factory) -> dict[str, np.ndarray]:
    """The answers of a process in which 64 bits are enabled."""
    path = tmp_path_factory.mktemp("enabled") / "answers.npz"
    command = [sys.executable, "-W", "ignore", "-m", "tests.test_precision", str(path)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as file:
        return dict(file)


def test_enabling_64_bits_changes_no_answer(single, enabled):
    """Parameters are float32 either way, so everything is computed in 32 bits, from the same random numbers."""
    assert {name for name in enabled if "double" not in name} == set(single)
    for name in single:
        assert np.isfinite(single[name]).all(), name
        assert enabled[name].dtype == single[name].dtype, name
        atol = 1e-4 * max(1, np.abs(single[name]).max())
        np.testing.assert_allclose(enabled[name], single[name], rtol=0, atol=atol, err_msg=name)


def test_float64_parameters_compute_in_float64(enabled):
    double = {name: value for name, value in enabled.items() if "double" in name}
    assert len(double) > 10
    for name, value in double.items():
        assert value.dtype == np.float64, name
        assert np.isfinite(value).all(), name


if __name__ == "__main__":
    np.savez(sys.argv[1], **answers())
