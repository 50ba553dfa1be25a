"""Fixtures: a small model with sizes that are all different, and examples for it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import pytest

import cvae

BATCH, EVENT, LATENT, CLASSES = 3, (2, 3, 1), 4, 5


class Example(NamedTuple):
    """A model, its parameters, and a batch."""

    model: cvae.CVAE
    params: dict
    x: np.ndarray
    c: dict


def build(condition, batch: int = BATCH) -> Example:
    model = cvae.make(cvae.Architecture(EVENT, condition, LATENT, (7, 8)))
    rng = np.random.default_rng(3)
    x = rng.random((batch, *EVENT), dtype=np.float32)
    c = {"label": rng.integers(0, CLASSES, batch)} if isinstance(condition, cvae.Label) else {}
    return Example(model, model.init(jax.random.key(0)), x, c)


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


@pytest.fixture
def key() -> jax.Array:
    """A key."""
    return jax.random.key(11)
