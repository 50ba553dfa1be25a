"""Networks as pure functions: initialisation, where a condition enters, every formula in NumPy, convolutions."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import correlate

import cvae
from cvae import networks
from cvae.model import feature_sizes
from cvae.networks import conv
from cvae.networks.conv import convolve, depth_to_space, space_to_depth
from tests.conftest import build, weights

BODIES = ("mlp", "residual")
WAYS = ("concat", "concat_all", "film")
LABEL = cvae.Label(3)
IMAGE = (4, 6, 2)  # two resolutions, of 4x6 and 2x3
MIXED = cvae.Mixed((cvae.Label(3, "digit"), cvae.Image(IMAGE), cvae.Continuous(2, name="stroke")))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def architecture(body: str = "mlp", conditioning: str = "concat", condition=LABEL, **fields) -> cvae.Architecture:
    fields = {"event_shape": (5,), "latent_size": 2, "hidden": (7, 4), "prior": "learned"} | fields
    return cvae.Architecture(condition=condition, body=body, conditioning=conditioning, **fields)


def convolutional(condition, conditioning: str = "concat", **fields) -> cvae.Architecture:
    return architecture("convolutional", conditioning, condition, event_shape=IMAGE, hidden=(3, 5, 7), **fields)


def network(name: str, setting: cvae.Architecture) -> networks.Network:
    """The "encoder", "prior" or "decoder" of an architecture."""
    return getattr(networks, name)(networks.BODIES[setting.body], setting, feature_sizes(setting))


def shapes(name: str, setting: cvae.Architecture) -> dict:
    """The shapes of a network's parameters, without its heads."""
    leaves = jax.eval_shape(network(name, setting).init, jax.random.key(0))
    found = jax.tree.map(lambda leaf: leaf.shape, leaves)
    return {name: value for name, value in found.get("body", found).items() if name not in ("head", "size")}


def linear(inputs: int, outputs: int) -> dict:
    """The shapes of a dense layer."""
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def given(inputs: int, features: int, outputs: int) -> dict:
    """The shapes of a dense layer with the features of a condition beside its inputs."""
    return {"linear": linear(inputs, outputs), "features": (features, outputs)}


def test_initialisation():
    """He's, uniform, before ReLU; LeCun's in residual networks; small heads."""
    for body, path, inputs, variance in (
        ("mlp", ("layers", "layer_1", "linear"), 64, 2),
        ("residual", ("layers", "layer_0", "linear"), 64, 1),
        ("residual", ("leave", "leave_1"), 32, 1),
    ):
        params = jax.jit(network("encoder", architecture(body, hidden=(64, 32))).init)(jax.random.key(0))
        layer = params["body"]
        for part in path:
            layer = layer[part]
        kernel = np.asarray(layer["kernel"])
        assert kernel.shape[0] == inputs
        # The relative error of a standard deviation, at most that of a Gaussian's.
        assert abs(kernel.std() / np.sqrt(variance / inputs) - 1) < 5 / np.sqrt(2 * kernel.size)
        assert not np.any(layer["bias"])
        assert np.abs(params["log_std"]["kernel"]).max() < 0.6 / np.sqrt(32)


def test_inputs_and_features_are_initialised_as_one_layer():
    """A kernel of both has the variance 2 / (inputs + features), He's, in each of its parts."""
    first = network("decoder", architecture(hidden=(4, 900))).init(jax.random.key(0))["layers"]["layer_0"]
    parts = [np.asarray(first["linear"]["kernel"]), np.asarray(first["features"])]
    assert [len(part) for part in parts] == [2, 3]
    for part in parts:
        assert abs(part.std() / np.sqrt(2 / 5) - 1) < 5 / np.sqrt(2 * part.size)


def test_the_order_of_the_widths_is_reversed_in_a_decoder():
    assert shapes("decoder", architecture()) == {
        "layers": {"layer_0": given(2, 3, 4), "layer_1": {"linear": linear(4, 7)}}
    }
    # A residual trunk is as wide as the first of the decoder's widths, 4.
    assert shapes("decoder", architecture("residual", "concat_all")) == {
        "enter": given(2, 3, 4),
        "layers": {"layer_0": given(4, 3, 4), "layer_1": given(4, 3, 7)},
        "leave": {"leave_0": linear(4, 4), "leave_1": linear(7, 4)},
        "norms": {"norm_0": {"scale": (4,), "bias": (4,)}, "norm_1": {"scale": (4,), "bias": (4,)}},
    }


@pytest.mark.parametrize("body", BODIES)
def test_without_a_condition_conditioning_makes_no_difference(body):
    def of(conditioning):
        setting = architecture(body, conditioning, cvae.Unconditional(), prior="standard")
        return shapes("encoder", setting), shapes("decoder", setting)

    one, *others = map(of, WAYS)
    assert all(other == one for other in others)
    assert "film" not in str(one)


def double(params: dict) -> dict:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def affine(weights: dict, h: np.ndarray) -> np.ndarray:
    return h @ weights["kernel"] + weights["bias"]


def gelu(h: np.ndarray) -> np.ndarray:
    """Hendrycks and Gimpel 2016, their approximation."""
    return h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))


def layer_norm(h: np.ndarray, weights: dict) -> np.ndarray:
    centred = h - h.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * weights["scale"] + weights["bias"]


def reference(body: dict, inputs: np.ndarray, features: np.ndarray, kind: str, conditioning: str) -> np.ndarray:
    """A body of two layers in NumPy, in double precision, from the equations."""

    def layer(weights: dict, hidden: np.ndarray, *, first: bool) -> np.ndarray:
        alone = hidden.shape[1] == 0
        hidden = affine(weights["linear"], features if alone else hidden)
        if not alone and (conditioning == "concat_all" or (conditioning == "concat" and first)):
            hidden = hidden + features @ weights["features"]
        if conditioning == "film" and not (first and alone):
            scale, shift = np.split(affine(weights["film"], features), 2, axis=1)
            hidden = (1 + scale) * hidden + shift
        return hidden

    if kind == "mlp":
        for i in range(2):
            inputs = np.maximum(layer(body["layers"][f"layer_{i}"], inputs, first=i == 0), 0)
        return inputs
    hidden = gelu(layer(body["enter"], inputs, first=True))
    for i in range(2):
        normed = layer_norm(hidden, body["norms"][f"norm_{i}"])
        inner = gelu(layer(body["layers"][f"layer_{i}"], normed, first=False))
        hidden = hidden + affine(body["leave"][f"leave_{i}"], inner)
    return hidden


def check_gaussian(found, params: dict, hidden: np.ndarray) -> None:
    """Compare with mean = W h + b and log std = 7 tanh((W' h + b') / 7)."""
    np.testing.assert_allclose(found.mean, affine(params["mean"], hidden), **CLOSE)
    np.testing.assert_allclose(found.log_std, 7 * np.tanh(affine(params["log_std"], hidden) / 7), **CLOSE)


@pytest.mark.parametrize("conditioning", WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_the_forward_pass_is_the_formula(body, conditioning):
    rng = np.random.default_rng(0)
    x, z = rng.random((4, 5), np.float32), rng.normal(size=(4, 2)).astype(np.float32)
    c = {"label": np.array([0, 1, 2, 0])}
    features, flat = LABEL.encode(c), np.eye(3)[c["label"]]
    setting = architecture(body, conditioning)
    for name, inputs in (("encoder", x), ("prior", x[:, :0])):
        part = network(name, setting)
        params = weights(part)
        exact = double(params)
        hidden = reference(exact["body"], inputs, flat, body, conditioning)
        check_gaussian(jax.jit(part.apply)(params, inputs, features), exact, hidden)
    part = network("decoder", setting)
    params = weights(part)
    exact = double(params)
    outputs = affine(exact["head"], reference(exact, z, flat, body, conditioning))
    np.testing.assert_allclose(jax.jit(part.apply)(params, z, features), outputs, **CLOSE)


# Convolutions


def correlated(x: np.ndarray, weights: dict) -> np.ndarray:
    """A convolution by SciPy, a channel at a time."""
    _, _, inputs, outputs = weights["kernel"].shape
    planes = [
        sum(correlate(x[..., i], weights["kernel"][None, :, :, i, o], mode="constant") for i in range(inputs))
        for o in range(outputs)
    ]
    return np.stack(planes, axis=-1) + weights["bias"]


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (1, 1)])
def test_gradients_of_a_convolution_on_a_cpu_are_those_of_any_other(inputs, outputs, monkeypatch):
    """By products of a few images at a time; also where a sweep gives the kernel a leading axis, and forward."""
    rng = np.random.default_rng(inputs)
    x = rng.normal(size=(6, 4, 5, inputs)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, 3, inputs, outputs)).astype(np.float32)
    direction = rng.normal(size=(2, 6, 4, 5, outputs)).astype(np.float32)
    monkeypatch.setattr(conv, "CHUNK_BYTES", 2 * 4 * 4 * 5 * 3 * (inputs + outputs))
    both = {}
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)

        @jax.jit  # a function of its own for each: JAX caches what it has traced, whatever the backend
        def run(x, kernels):
            value, transpose = jax.vjp(jax.vmap(convolve, (None, 0)), x, kernels)
            forward = jax.jvp(convolve, (x, kernels[0]), (x + 1, kernels[1]))
            return convolve(x, kernels[0]), value, transpose(direction), forward

        in_chunks = "scan" in str(jax.make_jaxpr(run)(x, kernels))
        assert in_chunks == (backend == "cpu")
        both[backend] = run(x, kernels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), both["cpu"], both["gpu"])
    one, members, *_ = both["cpu"]
    np.testing.assert_allclose(one, members[0], **CLOSE)
    np.testing.assert_allclose(one, correlated(x, {"kernel": kernels[0], "bias": 0}), **CLOSE)


def test_the_gradient_of_a_kernel_stores_no_shifted_images():
    """It would take three times the memory of the images, which are all that a gradient needs."""
    x, kernel = jnp.ones((8, 4, 4, 3)), jnp.ones((3, 3, 3, 3))
    _, transpose = jax.linearize(lambda kernel: convolve(x, kernel), kernel)
    constants = jax.make_jaxpr(transpose)(kernel).consts
    assert max(value.size for value in constants) == x.size


SPREAD = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from cvae.networks.conv import convolve

mesh = jax.make_mesh((8,), ("data",))
images = jax.ShapeDtypeStruct((48, 28, 28, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
kernel = jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
loss = jax.jit(jax.grad(lambda kernel, x, weights: (convolve(x, kernel) * weights).sum()))
print(loss.lower(kernel, images, images).compile().as_text())
"""


def test_images_that_are_spread_over_devices_stay_where_they_are():
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SPREAD],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "all-reduce" in done.stdout
    assert "all-gather" not in done.stdout


def test_squares_of_pixels_become_channels_and_back():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    deep = space_to_depth(x)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[1, 1, 2], np.concatenate([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]]))
    np.testing.assert_array_equal(depth_to_space(deep), x)


def convolution(inputs: int, outputs: int) -> dict:
    """The shapes of a 3x3 convolution."""
    return {"kernel": (3, 3, inputs, outputs), "bias": (outputs,)}


@pytest.mark.parametrize("conditioning", WAYS)
def test_a_label_enters_convolutions_at_the_dense_layer(conditioning):
    setting = convolutional(LABEL, conditioning)
    beside = {"film": linear(3, 14)} if conditioning == "film" else {"features": (3, 7)}
    encoder, decoder = shapes("encoder", setting), shapes("decoder", setting)
    assert encoder["first"] == convolution(2, 3)
    assert encoder["enter"] == {"linear": linear(2 * 3 * 5, 7)} | beside
    assert decoder["enter"] == {"linear": linear(2, 7)} | beside
    assert "image" not in decoder
    # Without an image there is nothing to convolve, and nothing that film could scale.
    assert shapes("prior", setting) == {"enter": {"linear": linear(3, 7)}}


def block(weights: dict, h: np.ndarray) -> np.ndarray:
    inner = correlated(layer_norm(h, weights["norm"]), weights["inner"])
    return h + correlated(gelu(inner), weights["outer"])


def quarters(h: np.ndarray) -> list[np.ndarray]:
    return [h[:, i::2, j::2] for i in range(2) for j in range(2)]


@pytest.fixture
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("_float64")  # in float32, a layer norm over three channels of nearly one value loses digits
def test_convolutions_are_the_formula():
    """From the equations, with squares of pixels taken one by one; two outputs per element."""
    rng = np.random.default_rng(0)
    setting = convolutional(MIXED, likelihood=cvae.Normal())
    x, z = rng.random((3, *IMAGE), np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    observed = rng.random((3, *IMAGE)) < 0.5
    c = {"digit": np.array([2, 0, 1]), "image": x, "observed": observed, "stroke": z[:, ::-1]}
    features = MIXED.encode(c)
    seen, numbers = np.where(observed, x, 0), np.concatenate([np.eye(3)[c["digit"]], c["stroke"]], axis=1)
    images = np.concatenate([seen, observed], axis=-1)
    flat = np.concatenate([numbers, seen.reshape(3, -1), observed.reshape(3, -1)], axis=1)

    for name, inputs, channels in (("encoder", x, [x, images]), ("prior", x[:, :0, 0, 0], [images])):
        part = network(name, setting)
        params = double(weights(part))
        body = params["body"]
        hidden = block(body["blocks"]["block_0"], correlated(np.concatenate(channels, axis=-1), body["first"]))
        hidden = affine(body["steps"]["step_1"], np.concatenate(quarters(hidden), axis=-1))
        hidden = block(body["blocks"]["block_1"], hidden).reshape(3, -1) / np.sqrt(6)
        hidden = gelu(affine(body["enter"]["linear"], hidden) + numbers @ body["enter"]["features"])
        check_gaussian(jax.jit(part.apply)(params, inputs, features), params, hidden)

    part = network("decoder", setting)
    params = double(weights(part))
    hidden = gelu(affine(params["enter"]["linear"], z) + flat @ params["enter"]["features"])
    hidden = block(params["blocks"]["block_1"], affine(params["grid"], hidden).reshape(3, 2, 3, 5))
    full = np.zeros((3, 4, 6, 3))
    for square, values in zip(
        quarters(full), np.split(affine(params["steps"]["step_1"], hidden), 4, axis=-1), strict=True
    ):
        square[:] = values
    hidden = block(params["blocks"]["block_0"], full + correlated(images, params["image"]))
    outputs = correlated(hidden, params["last"]).reshape(3, -1)
    assert outputs.shape == (3, 2 * np.prod(IMAGE))
    np.testing.assert_allclose(jax.jit(part.apply)(params, z, features), outputs, **CLOSE)


def test_convolutions_take_images_of_any_size():
    """Padded to a multiple of 4 and cropped: every pixel of x matters, and every pixel is predicted."""
    shape = (7, 5, 2)
    fields = {"event_shape": shape, "body": "convolutional", "hidden": (3, 4, 5, 7), "prior": "learned"}
    model, params, x, c = build(cvae.Image(shape, "right_half"), 2, **fields)

    @jax.jit
    def run(x):
        def head(x):
            q = model.encode(params, x, c)
            return (q.mean**2).sum() + q.log_std.sum()

        q = model.encode(params, x, c)
        return q.mean, model.decode(params, q.mean, c).mean, jax.grad(head)(x)

    mean, predicted, slope = run(jnp.asarray(x))
    assert predicted.shape == x.shape
    assert np.all(np.isfinite(mean))
    assert np.all(slope != 0)
    hidden = ~model.architecture.condition.fixed
    assert np.all((predicted != x)[:, hidden])


# Layers of latents


@pytest.mark.parametrize("body", BODIES)
def test_layers_of_latents_are_the_formula(body):
    """A layer below is h + V z, a narrow residual block, and its head; the posterior is relative to the prior."""
    setting = architecture(body, hidden=(10, 10), latent_size=6, latent_layers=3)
    rng = np.random.default_rng(0)
    c = {"label": np.array([0, 1, 2, 0])}
    features, flat = LABEL.encode(c), np.eye(3)[c["label"]]
    x, z = rng.random((4, 5), np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    encoder, prior = network("encoder", setting), network("prior", setting)
    params, prior_params = weights(encoder), weights(prior)

    def conditionals(params, inputs):
        params = double(params)
        hidden = reference(params["body"], inputs, flat, body, "concat")
        means, log_stds = [affine(params["mean"], hidden)], [affine(params["log_std"], hidden)]
        for number in (1, 2):
            below = params["below"][f"layer_{number}"]
            h = hidden + affine(below["above"], z[:, : 2 * number])
            inner = gelu(affine(below["enter"], layer_norm(h, below["norm"])))
            assert inner.shape == (4, 2)
            mean, log_std = np.split(affine(below["head"], h + affine(below["leave"], inner)), 2, axis=1)
            means.append(mean)
            log_stds.append(log_std)
        return np.concatenate(means, axis=1), 7 * np.tanh(np.concatenate(log_stds, axis=1) / 7)

    @jax.jit
    def run(params, prior_params):
        p = prior.apply(prior_params, x[:, :0], features)
        q, alone = encoder.apply(params, x, features, p), encoder.apply(params, x, features)
        return [(each.mean, each.log_std) for each in (p.conditional(z), q.conditional(z), alone.conditional(z))]

    of_p, departure = conditionals(prior_params, x[:, :0]), conditionals(params, x)
    expected = [of_p, tuple(a + b for a, b in zip(of_p, departure, strict=True)), departure]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), run(params, prior_params), expected)


def test_a_hierarchy_starts_near_its_prior():
    """Its heads start small, so that draws do not multiply on their way down."""
    setting = architecture("residual", hidden=(16,), latent_size=6, latent_layers=3)
    model = cvae.make(setting)
    params = jax.jit(model.init)(jax.random.key(0))
    x, c = np.random.default_rng(0).random((64, 5), np.float32), {"label": np.arange(64) % 3}
    kl = jax.jit(cvae.elbo, static_argnums=0)(model, params, jax.random.key(1), x, c).kl
    assert np.all(kl > 0)
    assert np.all(kl < 1)


# A body of one's own


@pytest.mark.parametrize("body", ["mlp", "residual", "convolutional"])
def test_factors_in_bfloat16_change_the_third_digit(body):
    """Parameters, outputs and gradients stay in float32; bfloat16 has eight bits, a part in 256."""
    hidden = (4, 6, 8) if body == "convolutional" else (32, 32)
    architecture = cvae.Architecture((4, 4, 1), cvae.Label(3), 2, hidden, body=body)
    coarse = cvae.make(cvae.replace(architecture, precision="bfloat16"))
    exact = cvae.make(architecture)
    params, x = weights(exact), np.random.default_rng(0).random((5, 4, 4, 1), np.float32)
    c = {"label": np.arange(5) % 3}

    def loss(params, model):
        return cvae.elbo(model, params, jax.random.key(0), x, c).value.mean()

    values = [jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, model) for model in (exact, coarse)]
    (fine, gradient), (rough, rounded) = values
    assert rough.dtype == jnp.float32
    assert 0 < abs(rough - fine) < 0.02 * abs(fine)
    norm = optax.tree.norm(gradient)
    assert 0 < optax.tree.norm(jax.tree.map(jnp.subtract, gradient, rounded)) < 0.05 * norm
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded)} == {jnp.dtype(jnp.float32)}
