"""Networks as pure functions: initialisation, where a condition enters, convolutions, pruning."""

import jax
import numpy as np
import pytest

import cvae
from cvae import networks
from tests.conftest import weights
from tests.test_convolutions import correlated

ARCHITECTURE = cvae.Architecture((5,), cvae.Label(3), 2, (64, 32))
BODIES = ("plain", "residual")
WAYS = ("concat", "concat_all", "film")


def architecture(body: str, how: str, **fields) -> cvae.Architecture:
    return cvae.Architecture((5,), cvae.Label(3), 2, (7, 4), body, how, **fields)


def shapes(network: networks.Network) -> dict:
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(network.init, jax.random.key(0)))


def linear(inputs: int, outputs: int) -> dict:
    """The shapes of a linear layer."""
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def test_initialisation_is_he_et_als():
    params = networks.encoder(ARCHITECTURE).init(jax.random.key(0))
    weights = params["mlp"]["layers"]["layer_1"]["linear"]
    kernel = np.asarray(weights["kernel"])
    limit = np.sqrt(6 / 64)
    assert kernel.shape == (64, 32)
    assert np.abs(kernel).max() <= limit
    # Uniform on [-limit, limit]: standard deviation limit / sqrt(3), its own error under 5 of n values' spread.
    assert abs(kernel.std() - limit / np.sqrt(3)) < 5 * limit / np.sqrt(kernel.size)
    assert not np.asarray(weights["bias"]).any()


def test_initialisation_of_a_residual_body_is_lecuns():
    network = networks.encoder(cvae.Architecture((5,), cvae.Nothing(), 2, (64, 32), "residual"))
    params = jax.jit(network.init)(jax.random.key(0))
    for kernel, inputs in (
        (params["mlp"]["layers"]["layer_0"]["linear"]["kernel"], 64),
        (params["mlp"]["leave"]["leave_1"]["kernel"], 32),
    ):
        assert kernel.shape[0] == inputs
        # A standard deviation's own error is below its part of sqrt(2 n), as for a Gaussian, whose tails are cut here.
        assert abs(kernel.std() * np.sqrt(inputs) - 1) < 5 / np.sqrt(2 * kernel.size)


def test_shapes_of_the_parameters():
    assert shapes(networks.encoder(ARCHITECTURE)) == {
        "mlp": {"layers": {"layer_0": {"linear": linear(5 + 3, 64)}, "layer_1": {"linear": linear(64, 32)}}},
        "head": linear(32, 4),
    }
    assert shapes(networks.decoder(ARCHITECTURE)) == {
        "mlp": {"layers": {"layer_0": {"linear": linear(2 + 3, 32)}, "layer_1": {"linear": linear(32, 64)}}},
        "outputs": linear(64, 5),
    }
    assert shapes(networks.prior(ARCHITECTURE)) == {
        "mlp": {"layers": {"layer_0": {"linear": linear(3, 64)}, "layer_1": {"linear": linear(64, 32)}}},
        "head": linear(32, 4),
    }


def test_a_condition_enters_where_it_is_said_to():
    assert shapes(networks.encoder(architecture("plain", "concat_all")))["mlp"] == {
        "layers": {"layer_0": {"linear": linear(5 + 3, 7)}, "layer_1": {"linear": linear(7 + 3, 4)}}
    }
    assert shapes(networks.encoder(architecture("plain", "film")))["mlp"] == {
        "layers": {
            "layer_0": {"linear": linear(5, 7), "film": linear(3, 14)},
            "layer_1": {"linear": linear(7, 4), "film": linear(3, 8)},
        }
    }
    # A residual trunk keeps its width: the first of the decoder's widths, 4, is the last of the encoder's.
    assert shapes(networks.decoder(architecture("residual", "concat_all")))["mlp"] == {
        "enter": {"linear": linear(2 + 3, 4)},
        "layers": {"layer_0": {"linear": linear(4 + 3, 4)}, "layer_1": {"linear": linear(4 + 3, 7)}},
        "leave": {"leave_0": linear(4, 4), "leave_1": linear(7, 4)},
        "norms": {"norm_0": {"scale": (4,), "bias": (4,)}, "norm_1": {"scale": (4,), "bias": (4,)}},
    }


@pytest.mark.parametrize("body", BODIES)
def test_without_a_condition_every_way_of_entering_is_the_same(body):
    plain = [cvae.Architecture((5,), cvae.Nothing(), 2, (7, 4), body, how) for how in WAYS]
    one, *others = [(shapes(networks.encoder(a)), shapes(networks.decoder(a))) for a in plain]
    assert all(other == one for other in others)
    assert "film" not in str(one)
    # The prior has nothing but the condition, so it is its input whatever the way.
    one, *others = [shapes(networks.prior(architecture(body, how))) for how in WAYS]
    assert all(other == one for other in others)


PICTURE = (4, 6, 2)  # two resolutions, of 4x6 and 2x3
MIXED = cvae.Mixed(digit=cvae.Label(3), part=cvae.Image(PICTURE), stroke=cvae.Continuous(2))


def convolutional(condition, how: str = "concat", **fields) -> cvae.Architecture:
    return cvae.Architecture(PICTURE, condition, 2, (3, 5, 7), "convolutional", how, **fields)


def convolution(inputs: int, outputs: int) -> dict:
    """The shapes of a 3x3 convolution."""
    return {"kernel": (3, 3, inputs, outputs), "bias": (outputs,)}


def block(channels: int) -> dict:
    """The shapes of a residual block."""
    inside = {name: convolution(channels, channels) for name in ("inner", "outer")}
    return {"norm": {"scale": (channels,), "bias": (channels,)}, **inside}


def test_shapes_of_convolutions():
    blocks = {"block_0": block(3), "block_1": block(5)}
    flat = 2 * 3 * 5

    def contracting(channels: int, numbers: int) -> dict:
        return {
            "mlp": {
                "first": convolution(channels, 3),
                "blocks": blocks,
                "downs": {"down_1": linear(4 * 3, 5)},
                "enter": {"linear": linear(flat + numbers, 7)},
            },
            "head": linear(7, 4),
        }

    setting = convolutional(MIXED, prior="learned", likelihood=cvae.likelihoods.Normal())
    assert shapes(networks.encoder(setting)) == contracting(3 * 2, 5)
    assert shapes(networks.prior(setting)) == contracting(2 * 2, 5)
    assert shapes(networks.decoder(setting)) == {
        "mlp": {
            "enter": {"linear": linear(2 + 5 + 2 * 48, 7)},
            "grid": linear(7, flat),
            "given": convolution(2 * 2, 3),
            "blocks": blocks,
            "ups": {"up_1": linear(5, 4 * 3)},
        },
        "outputs": convolution(3, 2 * 2),
    }


@pytest.mark.parametrize("how", WAYS)
def test_a_label_enters_convolutions_at_the_dense_layer(how):
    setting = convolutional(cvae.Label(3), how, prior="learned")
    film = {"film": linear(3, 14)} if how == "film" else {}
    beside = 0 if how == "film" else 3
    assert shapes(networks.encoder(setting))["mlp"]["enter"] == {"linear": linear(30 + beside, 7)} | film
    assert shapes(networks.decoder(setting))["mlp"]["enter"] == {"linear": linear(2 + beside, 7)} | film
    assert "given" not in shapes(networks.decoder(setting))["mlp"]
    # Without a picture there is nothing to convolve, and nothing that film could scale.
    assert shapes(networks.prior(setting))["mlp"] == {"enter": {"linear": linear(3, 7)}}
    assert shapes(networks.encoder(convolutional(cvae.Nothing(), how)))["mlp"]["enter"] == {"linear": linear(30, 7)}


def gelu(h: np.ndarray) -> np.ndarray:
    """Hendrycks & Gimpel 2016, their approximation."""
    return h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


def layer_norm(h: np.ndarray, weights: dict) -> np.ndarray:
    centred = h - h.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * weights["scale"] + weights["bias"]


def block_reference(weights: dict, h: np.ndarray) -> np.ndarray:
    inner = correlated(layer_norm(h, weights["norm"]), weights["inner"])
    return h + correlated(gelu(inner), weights["outer"])


def test_convolutions_are_the_formula():
    """In double precision, from the equations, squares of pixels taken one by one."""
    rng = np.random.default_rng(0)
    setting = convolutional(MIXED, "concat", prior="learned")
    x, z = rng.random((3, 48), np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    features = rng.normal(size=(3, MIXED.width)).astype(np.float32)
    # The label's three, twice the picture's 48, the two numbers.
    planes = [features[:, 3:51].reshape(-1, *PICTURE), features[:, 51:99].reshape(-1, *PICTURE)]
    numbers = np.concatenate([features[:, :3], features[:, 99:]], axis=1)

    def affine(weights: dict, h: np.ndarray) -> np.ndarray:
        return h @ weights["kernel"] + weights["bias"]

    def quarters(h: np.ndarray) -> list[np.ndarray]:
        return [h[:, i::2, j::2] for i in range(2) for j in range(2)]

    for network, inputs, pictures in (
        (networks.encoder(setting), (x, features), [x.reshape(-1, *PICTURE), *planes]),
        (networks.prior(setting), (features[:, :0], features), planes),
    ):
        params = weights(network)
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        mlp = exact["mlp"]
        hidden = correlated(np.concatenate(pictures, axis=-1), mlp["first"])
        hidden = block_reference(mlp["blocks"]["block_0"], hidden)
        hidden = affine(mlp["downs"]["down_1"], np.concatenate(quarters(hidden), axis=-1))
        hidden = block_reference(mlp["blocks"]["block_1"], hidden).reshape(3, -1) / np.sqrt(6)
        hidden = gelu(affine(mlp["enter"]["linear"], np.concatenate([hidden, numbers], axis=1)))
        head = affine(exact["head"], hidden)
        mean, log_std = jax.jit(network.apply)(params, *inputs)
        np.testing.assert_allclose(mean, head[:, :2], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(log_std, 7 * np.tanh(head[:, 2:] / 7), rtol=1e-4, atol=1e-4)

    network = networks.decoder(setting)
    params = weights(network)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    mlp = exact["mlp"]
    hidden = gelu(affine(mlp["enter"]["linear"], np.concatenate([z, features], axis=1)))
    hidden = block_reference(mlp["blocks"]["block_1"], affine(mlp["grid"], hidden).reshape(3, 2, 3, 5))
    full = np.zeros((3, 4, 6, 3))
    for square, values in zip(quarters(full), np.split(affine(mlp["ups"]["up_1"], hidden), 4, axis=-1), strict=True):
        square[:] = values
    hidden = block_reference(mlp["blocks"]["block_0"], full + correlated(np.concatenate(planes, axis=-1), mlp["given"]))
    outputs = correlated(hidden, exact["outputs"]).reshape(3, -1)
    np.testing.assert_allclose(jax.jit(network.apply)(params, z, features), outputs, rtol=1e-4, atol=1e-4)


def test_calls_share_nothing():
    network = networks.decoder(ARCHITECTURE)
    one, two = weights(network, 1), weights(network, 2)
    z, features = np.ones((4, 2), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    before = network.apply(one, z, features)
    network.apply(two, z, features)
    np.testing.assert_array_equal(network.apply(one, z, features), before)
    assert np.any(network.apply(two, z, features) != before)


def reference(mlp: dict, inputs: np.ndarray, features: np.ndarray, body: str, how: str) -> np.ndarray:
    """The body of a network in NumPy, in double precision, from the equations."""

    def layer(weights: dict, hidden: np.ndarray, *, first: bool) -> np.ndarray:
        if how == "concat_all" or (how == "concat" and first):
            hidden = np.concatenate([hidden, features], axis=1)
        hidden = hidden @ weights["linear"]["kernel"] + weights["linear"]["bias"]
        if how == "film":
            scale, shift = np.split(features @ weights["film"]["kernel"] + weights["film"]["bias"], 2, axis=1)
            hidden = (1 + scale) * hidden + shift
        return hidden

    if body == "plain":
        for i in range(2):
            inputs = np.maximum(layer(mlp["layers"][f"layer_{i}"], inputs, first=i == 0), 0)
        return inputs
    hidden = gelu(layer(mlp["enter"], inputs, first=True))
    for i in range(2):
        normed, leave = layer_norm(hidden, mlp["norms"][f"norm_{i}"]), mlp["leave"][f"leave_{i}"]
        inner = gelu(layer(mlp["layers"][f"layer_{i}"], normed, first=False))
        hidden = hidden + inner @ leave["kernel"] + leave["bias"]
    return hidden


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_the_forward_pass_is_the_formula(body, how):
    rng = np.random.default_rng(0)
    x, z = rng.random((4, 5), np.float32), rng.normal(size=(4, 2)).astype(np.float32)
    features = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    close = {"rtol": 1e-4, "atol": 1e-4}

    def double(params: dict) -> dict:
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    setting = architecture(body, how)
    for network, inputs, entering in (
        (networks.encoder(setting), (x, features), how),
        (networks.prior(setting), (features[:, :0], features), "not at all"),
    ):
        params = weights(network)
        exact = double(params)
        seen = inputs[0] if inputs[0].size else features
        hidden = reference(exact["mlp"], seen, features, body, entering)
        head = hidden @ exact["head"]["kernel"] + exact["head"]["bias"]
        mean, log_std = network.apply(params, *inputs)
        np.testing.assert_allclose(mean, head[:, :2], **close)
        np.testing.assert_allclose(log_std, 7 * np.tanh(head[:, 2:] / 7), **close)
    params = weights(networks.decoder(setting))
    exact = double(params)
    outputs = reference(exact["mlp"], z, features, body, how) @ exact["outputs"]["kernel"] + exact["outputs"]["bias"]
    np.testing.assert_allclose(networks.decoder(setting).apply(params, z, features), outputs, **close)


@pytest.mark.parametrize("body", [*BODIES, "convolutional"])
def test_pruning_touches_the_heads_and_the_decoders_first_layer_alone(body):
    setting = convolutional(MIXED, prior="learned")
    model = cvae.make(setting if body == "convolutional" else architecture(body, "concat_all", prior="learned"))
    params = weights(model)
    before = jax.tree.map(np.array, params)
    pruned = networks.prune(params, np.array([0.0, 1.0], np.float32))
    jax.tree.map(np.testing.assert_array_equal, params, before)
    zeroed = {
        jax.tree_util.keystr(path): np.argwhere(np.asarray(new) != np.asarray(old))
        for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(pruned), jax.tree.leaves(params), strict=True)
        if np.any(new != old)
    }
    first = "['mlp']['layers']['layer_0']" if body == "plain" else "['mlp']['enter']"
    heads = [f"['{name}']['head']['{leaf}']" for name in ("encoder", "prior") for leaf in ("bias", "kernel")]
    assert sorted(zeroed) == sorted([*heads, f"['decoder']{first}['linear']['kernel']"])
    for name in heads:
        assert set(zeroed[name][:, -1]) == {0, 2}  # the mean and the log std of latent 0
    assert set(zeroed[f"['decoder']{first}['linear']['kernel']"][:, 0]) == {0}
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(pruned), strict=True):
        assert np.all(np.asarray(new)[np.asarray(old != new)] == 0)
    kept = networks.prune(params, np.ones(2, np.float32))
    jax.tree.map(np.testing.assert_array_equal, kept, params)


@pytest.mark.parametrize("body", BODIES)
def test_layers_of_latents_are_the_formula(body):
    """A layer below is h + V z, a narrow residual block, and its head; the posterior departs from the prior."""
    setting = cvae.Architecture((5,), cvae.Label(3), 6, (10, 10), body, prior="learned", latent_layers=3)
    features = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    rng = np.random.default_rng(0)
    x, z = rng.random((4, 5), np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    close = {"rtol": 1e-4, "atol": 1e-4}
    network, prior = networks.encoder(setting), networks.prior(setting)
    params, prior_params = weights(network), weights(prior)
    p = prior.apply(prior_params, features[:, :0], features)

    def conditionals(params, hidden):
        means, log_stds = [], []
        for number in range(3):
            if number == 0:
                outputs = hidden @ params["head"]["kernel"] + params["head"]["bias"]
            else:
                below = params["below"][f"layer_{number}"]
                h = hidden + z[:, : 2 * number] @ below["above"]["kernel"] + below["above"]["bias"]
                normed = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-6)
                normed = normed * below["norm"]["scale"] + below["norm"]["bias"]
                inner = jax.nn.gelu(normed @ below["enter"]["kernel"] + below["enter"]["bias"])
                assert inner.shape == (4, 2)
                h = h + inner @ below["leave"]["kernel"] + below["leave"]["bias"]
                outputs = h @ below["head"]["kernel"] + below["head"]["bias"]
            means.append(outputs[:, :2])
            log_stds.append(7 * np.tanh(outputs[:, 2:] / 7))
        return np.concatenate(means, axis=1), np.concatenate(log_stds, axis=1)

    at_p = p.given(z)
    expected = conditionals(prior_params, reference(prior_params["mlp"], features, features, body, "not at all"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), tuple(at_p), expected)
    departure = conditionals(params, reference(params["mlp"], x, features, body, "concat"))
    at_q = network.apply(params, x, features, p).given(z)
    np.testing.assert_allclose(at_q.mean, at_p.mean + departure[0], **close)
    np.testing.assert_allclose(at_q.log_std, at_p.log_std + departure[1], **close)
    alone = network.apply(params, x, features).given(z)  # of a standard prior nothing is departed from
    np.testing.assert_allclose(alone.mean, departure[0], **close)


def test_heads_of_several_layers_start_small():
    """The posterior then starts near the prior, and draws do not multiply on their way down."""
    setting = cvae.Architecture((5,), cvae.Label(3), 8, (32,), "residual", prior="learned", latent_layers=4)
    model = cvae.make(setting)
    params = jax.jit(model.init)(jax.random.key(0))
    x, c = np.random.default_rng(0).random((64, 5), np.float32), {"label": np.arange(64) % 3}
    kl = jax.jit(cvae.elbo, static_argnums=0)(model, params, jax.random.key(1), x, c).kl
    assert np.all(kl > 0)
    assert np.all(kl < 1)
