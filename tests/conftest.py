"""Fixtures: small models of sizes that all differ, for every condition, prior and body, with a batch of examples.

Weights are drawn by NumPy, biases included: initialising a model compiles for seconds, and leaves biases 0.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# The suite compiles hundreds of small programs and runs each for a moment: without most optimisations of the compiler,
# and with its older and simpler code for loops, it takes half the time. Set before JAX is imported; commands that tests
# start inherit it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith("0.10."):  # XLA stops at a flag that it does not know
    simpler = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {simpler}".strip()
# The test workers and those commands share what any of them has compiled, in this run of the suite or an earlier one.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = Path(os.environ.get("CVAE_CACHE_DIR") or Path.home() / ".cache" / "cvae", "compiled_tests")
    if cache.exists() and sum(file.stat().st_size for file in cache.iterdir()) > 2**30:
        shutil.rmtree(cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

import cvae
from cvae.config import parts_of

# `--hypothesis-profile` on the command line overrides this.
settings.register_profile("quick", max_examples=7, deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("quick")

BATCH, EVENT, LATENT, CLASSES = 3, (2, 3, 1), 4, 5

CONDITIONS = {
    "unconditional": cvae.Unconditional(),
    "label": cvae.Label(CLASSES),
    "continuous": cvae.Continuous(2, (3.0, -20.0), (0.5, 8.0)),
    "image": cvae.Image(EVENT, "random_box"),
    "mixed": cvae.Mixed(
        (
            cvae.Label(CLASSES, "digit"),
            cvae.Image(EVENT, "random_box"),
            cvae.Continuous(2, (1.0, 40.0), (0.1, 6.0), "stroke"),
        )
    ),
}
# Every condition, with either prior (one is learned from a condition), and every body.
CASES = {
    "unconditional": (CONDITIONS["unconditional"], {}),
    "label": (CONDITIONS["label"], {}),
    "continuous-learned": (CONDITIONS["continuous"], {"prior": "learned"}),
    "image": (CONDITIONS["image"], {"conditioning": "concat_all"}),
    "mixed-learned": (CONDITIONS["mixed"], {"prior": "learned"}),
    "mixed-residual": (CONDITIONS["mixed"], {"prior": "learned", "body": "residual", "conditioning": "film"}),
    "mixed-convolutional": (CONDITIONS["mixed"], {"prior": "learned", "body": "convolutional"}),
}


class Example(NamedTuple):
    """A model, its parameters, and a batch."""

    model: cvae.CVAE
    params: dict
    x: np.ndarray
    c: dict


def draw_conditions(condition: cvae.Condition, rng: np.random.Generator, x: np.ndarray) -> dict:
    """Conditions for the examples x, float32 and int64 arrays by name; of every image some place is hidden."""
    c = {}
    for part in parts_of(condition):
        if isinstance(part, cvae.Label):
            c[part.name] = rng.integers(0, part.num_classes, len(x))
        if isinstance(part, cvae.Continuous):
            c[part.name] = (part.mean + part.std * rng.normal(size=(len(x), part.dim))).astype(np.float32)
        if isinstance(part, cvae.Image):
            c[part.name] = x
        if "observed" in part.spec:
            c["observed"] = rng.random(x.shape) < 0.5
            c["observed"][:, 0] = False
    return c


def weights(model, seed: int = 5) -> dict:
    """Parameters of a model or network, of the shapes of its `init` and none of them 0: kernels as wide as He's."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "mask":
            return jnp.ones(leaf.shape)
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if name in ("kernel", "features"):
            return jnp.asarray(noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1]))))
        return jnp.asarray((name == "scale") + np.float32(0.2) * noise)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))


def build(condition: cvae.Condition, batch: int = BATCH, **fields) -> Example:
    """A model with this condition and these fields of its architecture, and a batch of examples."""
    fields = {"event_shape": EVENT, "latent_size": LATENT, "hidden": (7, 8)} | fields
    model = cvae.make(cvae.Architecture(condition=condition, **fields))
    rng = np.random.default_rng(3)
    x = rng.random((batch, *model.architecture.event_shape), dtype=np.float32)
    return Example(model, weights(model), x, draw_conditions(condition, rng, x))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long files that are late in the alphabet first: one that starts last leaves the other process idle."""
    items.sort(key=lambda item: item.path.name not in ("test_training.py", "test_sweeps.py"))


@pytest.fixture(scope="session")
def labelled() -> Example:
    """A model conditioned on a label."""
    return build(cvae.Label(CLASSES))


@pytest.fixture(scope="session")
def plain() -> Example:
    """An unconditional model."""
    return build(cvae.Unconditional())


@pytest.fixture(scope="session", params=["label", "unconditional"])
def example(request, labelled, plain) -> Example:
    """Either of them."""
    return labelled if request.param == "label" else plain


@pytest.fixture(scope="session", params=CASES.values(), ids=CASES.keys())
def every_example(request) -> Example:
    """A model of every condition, prior and body."""
    condition, fields = request.param
    return build(condition, **fields)


@pytest.fixture
def key() -> jax.Array:
    """A key."""
    return jax.random.key(11)
