"""Convolutions: nine products are the native one, and SciPy's; squares of pixels become channels and back."""

import jax
import numpy as np
import pytest
from scipy.ndimage import correlate

from cvae import convolutions


def correlated(x: np.ndarray, weights: dict) -> np.ndarray:
    """A convolution by SciPy, a plane at a time."""
    _, _, inputs, outputs = weights["kernel"].shape
    planes = [
        sum(correlate(x[..., i], weights["kernel"][None, :, :, i, o], mode="constant") for i in range(inputs))
        for o in range(outputs)
    ]
    return np.stack(planes, axis=-1) + weights["bias"]


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (1, 1)])
def test_nine_products_are_the_native_convolution(inputs, outputs, monkeypatch):
    """Values and gradients, also where a sweep gives the kernel an axis of members."""
    rng = np.random.default_rng(inputs)
    x = rng.normal(size=(2, 4, 5, inputs)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, inputs, outputs)).astype(np.float32)
    direction = rng.normal(size=(2, 2, 4, 5, outputs)).astype(np.float32)
    both = {}
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)

        @jax.jit  # a function of its own for each: what JAX has traced it remembers, whatever the backend
        def everything(x, kernels):
            value, transpose = jax.vjp(jax.vmap(convolutions.convolve, (None, 0)), x, kernels)
            return convolutions.convolve(x, kernels[0]), value, transpose(direction)

        native = "conv_general_dilated" in str(jax.make_jaxpr(everything)(x, kernels))
        assert native == (backend == "gpu")
        both[backend] = everything(x, kernels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), both["cpu"], both["gpu"])
    one, members, _ = both["cpu"]
    np.testing.assert_allclose(one, members[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one, correlated(x, {"kernel": kernels[0], "bias": 0}), rtol=1e-4, atol=1e-4)


def test_squares_of_pixels_become_channels_and_back():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    deep = convolutions.space_to_depth(x)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[1, 1, 2], np.concatenate([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]]))
    np.testing.assert_array_equal(convolutions.depth_to_space(deep), x)
