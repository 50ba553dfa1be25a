"""Networks as pure functions: initialisation, independence of calls, and nothing computed to describe one."""

import jax
import numpy as np

import cvae
from cvae import networks

ARCHITECTURE = cvae.Architecture((5,), cvae.Label(3), 2, (64, 32))


def test_initialisation_is_he_et_als():
    params = networks.encoder(ARCHITECTURE).init(jax.random.key(0))
    kernel = np.asarray(params["mlp"]["layers"]["layer_1"]["kernel"])
    limit = np.sqrt(6 / 64)
    assert kernel.shape == (64, 32)
    assert np.abs(kernel).max() <= limit
    # Uniform on [-limit, limit]: standard deviation limit / sqrt(3), its own error under 5 of n values' spread.
    assert abs(kernel.std() - limit / np.sqrt(3)) < 5 * limit / np.sqrt(kernel.size)
    assert not np.asarray(params["mlp"]["layers"]["layer_1"]["bias"]).any()


def test_shapes_of_the_parameters():
    encoder = jax.eval_shape(networks.encoder(ARCHITECTURE).init, jax.random.key(0))
    decoder = jax.eval_shape(networks.decoder(ARCHITECTURE).init, jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, encoder) == {
        "mlp": {
            "layers": {
                "layer_0": {"kernel": (5 + 3, 64), "bias": (64,)},
                "layer_1": {"kernel": (64, 32), "bias": (32,)},
            }
        },
        "posterior": {"kernel": (32, 4), "bias": (4,)},
    }
    assert jax.tree.map(lambda leaf: leaf.shape, decoder) == {
        "mlp": {
            "layers": {
                "layer_0": {"kernel": (2 + 3, 32), "bias": (32,)},
                "layer_1": {"kernel": (32, 64), "bias": (64,)},
            }
        },
        "logits": {"kernel": (64, 5), "bias": (5,)},
    }


def test_calls_share_nothing():
    network = networks.decoder(ARCHITECTURE)
    one, two = network.init(jax.random.key(0)), network.init(jax.random.key(1))
    z, features = np.ones((4, 2), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    before = network.apply(one, z, features)
    network.apply(two, z, features)
    np.testing.assert_array_equal(network.apply(one, z, features), before)
    assert np.any(network.apply(two, z, features) != before)


def test_the_forward_pass_is_the_formula():
    network = networks.encoder(ARCHITECTURE)
    params = jax.tree.map(np.asarray, network.init(jax.random.key(2)))
    rng = np.random.default_rng(0)
    x, features = rng.random((4, 5), dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    hidden = np.concatenate([x, features], axis=1)
    for layer in ("layer_0", "layer_1"):
        weights = params["mlp"]["layers"][layer]
        hidden = np.maximum(hidden @ weights["kernel"] + weights["bias"], 0)
    mean, log_std = network.apply(params, x, features)
    head = hidden @ params["posterior"]["kernel"] + params["posterior"]["bias"]
    np.testing.assert_allclose(mean, head[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_std, 7 * np.tanh(head[:, 2:] / 7), rtol=1e-4, atol=1e-5)
