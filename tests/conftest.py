"""Fixtures: small models with sizes that are all different, one for every condition and prior, and examples for them.

Weights are drawn here by NumPy, biases included: initialising a model compiles for seconds, and leaves biases 0.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version
from typing import NamedTuple

# The suite compiles hundreds of small programs and runs each for a moment: without the compiler's last optimisations,
# and with its older and simpler way to write a loop, it takes half the time. Inherited by the commands that tests
# start; before JAX is imported.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
if version("jaxlib").startswith("0.10."):  # XLA stops at a flag it does not know, and this one will not stay
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_llvm_disable_expensive_passes=true"
        " --xla_cpu_parallel_codegen_split_count=1"
    )
# And what one process of this session has compiled the others take from a folder: its workers, and those commands.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cvae-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

import cvae

# The command line's `--hypothesis-profile` is read after this file, and has the last word.
settings.register_profile("quick", max_examples=7, deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("quick")

BATCH, EVENT, LATENT, CLASSES = 3, (2, 3, 1), 4, 5

CONDITIONS = {
    "nothing": cvae.Nothing(),
    "label": cvae.Label(CLASSES),
    "continuous": cvae.Continuous(2, mean=(3.0, -20.0), std=(0.5, 8.0)),
    "image": cvae.Image(EVENT, "random_box"),
    "mixed": cvae.Mixed(
        digit=cvae.Label(CLASSES),
        part=cvae.Image(EVENT, "random_box"),
        stroke=cvae.Continuous(2, mean=(1.0, 40.0), std=(0.1, 6.0)),
    ),
}
# Every condition with every prior it can have: a prior is learned from something. And one of them by convolutions.
CASES = {
    f"{name}-{prior}": (condition, {"prior": prior})
    for name, condition in CONDITIONS.items()
    for prior in ("standard", "learned")
    if (name, prior) != ("nothing", "learned")
} | {"mixed-convolutional": (CONDITIONS["mixed"], {"prior": "learned", "body": "convolutional"})}


class Example(NamedTuple):
    """A model, its parameters, and a batch."""

    model: cvae.CVAE
    params: dict
    x: np.ndarray
    c: dict


def stored(condition, rng: np.random.Generator, batch: int = BATCH) -> dict:
    """Raw conditions as a data set stores them, by the condition's own names."""
    c = {}
    for part in getattr(condition, "parts", (condition,)):
        if isinstance(part, cvae.Label):
            c[part.name] = rng.integers(0, part.num_classes, batch)
        if isinstance(part, cvae.Continuous):
            c[part.name] = (part.mean + part.std * rng.normal(size=(batch, part.dim))).astype(np.float32)
        if "observed" in part.stored_names:
            c["observed"] = rng.random((batch, *part.event_shape)) < 0.5
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
        if name == "kernel":
            return jnp.asarray(noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1]))))
        return jnp.asarray((name == "scale") + np.float32(0.2) * noise)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))


def build(condition, batch: int = BATCH, **fields) -> Example:
    """A model of this condition, with more fields of its architecture, and a batch of examples complete for it."""
    model = cvae.make(cvae.Architecture(EVENT, condition, **{"latent_size": LATENT, "hidden": (7, 8)} | fields))
    rng = np.random.default_rng(3)
    x = rng.random((batch, *EVENT), dtype=np.float32)
    c = condition.complete(jax.random.key(1), x, stored(condition, rng, batch))
    return Example(model, weights(model), x, {name: np.asarray(value) for name, value in c.items()})


@pytest.fixture(scope="session")
def labelled() -> Example:
    """A model told a label."""
    return build(cvae.Label(CLASSES))


@pytest.fixture(scope="session")
def plain() -> Example:
    """A model told nothing."""
    return build(cvae.Nothing())


@pytest.fixture(scope="session", params=["label", "nothing"])
def example(request, labelled, plain) -> Example:
    """Either of them."""
    return labelled if request.param == "label" else plain


@pytest.fixture(scope="session", params=CASES.values(), ids=CASES.keys())
def every_example(request) -> Example:
    """A model of every condition, with a standard and with a learned prior."""
    condition, fields = request.param
    return build(condition, **fields)


@pytest.fixture
def key() -> jax.Array:
    """A key."""
    return jax.random.key(11)
