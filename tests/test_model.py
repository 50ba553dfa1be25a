"""The contracts of the four functions: pure, under jit, vmap and grad; masked latents; and the door before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import likelihoods, networks
from cvae.distributions import Partial, kl_terms
from cvae.model import check_examples, default_preparation
from cvae.preparation import preparation
from tests.conftest import BATCH, CLASSES, CONDITIONS, EVENT, LATENT, build, stored, weights

Z = np.random.default_rng(6).normal(size=(BATCH, LATENT)).astype(np.float32)


def close(a, b, rtol=1e-4):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-5), a, b)


def everything(model, params, x, z, c):
    """What the model says of a batch: posterior, prior, likelihood."""
    return model.encode(params, x, c), model.prior(params, c), model.decode(params, z, c)


def bound(model, params, noise, x, c):
    """The ELBO with noise that is given: compiling a random generator takes seconds."""
    q = model.encode(params, x, c)
    return model.decode(params, q.mean + q.std * noise, c).log_prob(x) - cvae.kl_divergence(q, model.prior(params, c))


def test_shapes(every_example):
    model, params, x, c = every_example
    q, p, likelihood = everything(model, params, x, Z, c)
    assert q.mean.shape == q.log_std.shape == (BATCH, LATENT)
    assert p.mean.shape == p.log_std.shape == (BATCH if c else 1, LATENT)
    if model.architecture.prior == "standard":
        assert not p.mean.any()
        assert not p.log_std.any()
    assert likelihood.mean.shape == likelihood.log_terms(x).shape == (BATCH, *EVENT)
    assert likelihood.log_prob(x).shape == (BATCH,)
    assert isinstance(likelihood, Partial) == ("observed" in c)


def test_parameters_are_a_plain_nested_dict(every_example):
    def walk(tree):
        assert type(tree) in (dict,) or isinstance(tree, jax.ShapeDtypeStruct)
        for name, branch in tree.items() if type(tree) is dict else ():
            assert type(name) is str
            walk(branch)

    params = jax.eval_shape(every_example.model.init, jax.random.key(0))
    walk(params)
    learned = {"prior"} if every_example.model.architecture.prior == "learned" else set()
    assert set(params) == {"encoder", "decoder"} | learned
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_jit_changes_nothing_and_vmap_over_examples_is_the_batch(every_example):
    model, params, x, c = every_example

    def alone(x, z, c):
        one = everything(model, params, x[None], z[None], {name: value[None] for name, value in c.items()})
        return jax.tree.map(lambda leaf: leaf[0], one)

    both = jax.jit(lambda params, x, z, c: (everything(model, params, x, z, c), jax.vmap(alone)(x, z, c)))
    compiled, one_by_one = both(params, x, Z, c)
    outside = everything(model, params, x, Z, c)
    close(compiled, outside)
    q, p, likelihood = outside
    close(one_by_one, (q, jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (BATCH, LATENT)), p), likelihood))


def test_vmap_over_keys_and_parameters_is_a_population(labelled, key):
    tiny = cvae.make(cvae.Architecture((2,), cvae.Nothing(), 1, (3,)))
    keys = jax.random.split(key, 3)
    population, member = jax.jit(jax.vmap(tiny.init))(keys), tiny.init(keys[1])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(member))
    close(jax.tree.map(lambda leaf: leaf[1], population), member)
    model, _, x, c = labelled
    members = [weights(model, seed) for seed in range(3)]
    score = jax.jit(lambda params: bound(model, params, Z, x, c))
    values = jax.jit(jax.vmap(score))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
    assert values.shape == (3, BATCH)
    close(values, jnp.stack([score(member) for member in members]))
    assert np.all(values[0] != values[1])


def test_grad_reaches_every_parameter_and_the_picture(every_example):
    model, params, x, c = every_example
    slope = jax.jit(jax.grad(lambda params, x: bound(model, params, Z, x, c).mean(), argnums=(0, 1)))
    gradient, pixels = slope(params, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    assert np.all(np.abs(pixels).max(axis=(1, 2, 3)) > 0)


def test_gradient_is_the_finite_difference(labelled):
    model, params, x, c = labelled
    direction = weights(model, seed=9)

    @jax.jit
    def value(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return bound(model, moved, Z, x, c).mean()

    slope = float(jax.grad(value)(0.0))
    step = 1e-2
    difference = float(value(step) - value(-step)) / (2 * step)
    # Central differences are off by the third derivative times step^2, and by float32 rounding over the step.
    assert slope == pytest.approx(difference, rel=1e-2, abs=1e-2)


def test_calls_leave_their_arguments_alone(every_example):
    model, params, x, c = every_example
    before = jax.tree.map(np.array, (params, x, c))
    everything(model, params, x, Z, c)
    jax.tree.map(np.testing.assert_array_equal, before, (params, x, c))


def variants(condition, c):
    """Conditions of which one thing differs in every row, by what it is."""
    for part in getattr(condition, "parts", (condition,)):
        if isinstance(part, cvae.Label):
            yield part.name, c | {part.name: (c[part.name] + 1) % CLASSES}
        if isinstance(part, cvae.Continuous):
            yield part.name, c | {part.name: c[part.name] + np.float32(part.std)}
        if isinstance(part, cvae.Image):
            yield part.name, c | {part.name: np.where(c["observed"], 1.25 - c[part.name], 0).astype(np.float32)}
            turned = np.roll(c["observed"].reshape(BATCH, -1), 1, axis=1).reshape(BATCH, *EVENT)
            assert np.all(np.any(turned != c["observed"], axis=(1, 2, 3)))
            yield "observed", c | {"observed": turned}


@pytest.mark.parametrize("conditioning", ["concat", "concat_all", "film"])
@pytest.mark.parametrize("body", ["plain", "residual", "convolutional"])
@pytest.mark.parametrize("name", [name for name in CONDITIONS if name != "nothing"])
def test_the_condition_reaches_the_encoder_the_decoder_and_the_prior(name, body, conditioning):
    model, params, x, c = build(CONDITIONS[name], body=body, conditioning=conditioning, prior="learned")

    def outputs(c):
        q, p, likelihood = everything(model, params, x, Z, c)
        logits = likelihood.likelihood.logits if isinstance(likelihood, Partial) else likelihood.logits
        named = {"q mean": q.mean, "q scale": q.log_std, "p mean": p.mean, "p scale": p.log_std, "logits": logits}
        return {name: np.asarray(value).reshape(BATCH, -1) for name, value in named.items()}

    before, seen = outputs(c), set()
    for changed, other in variants(CONDITIONS[name], c):
        for output, values in outputs(other).items():
            assert np.all(np.any(values != before[output], axis=1)), (changed, output)
        seen.add(changed)
    assert seen == set(CONDITIONS[name].names)


@pytest.mark.parametrize("name", ["image", "mixed"])
def test_what_is_seen_does_not_count_and_is_returned_as_it_is(name, key):
    model, params, x, c = build(CONDITIONS[name])
    likelihood, seen = model.decode(params, Z, c), c["observed"]
    np.testing.assert_array_equal(likelihood.log_prob(np.where(seen, 1 - x, x)), likelihood.log_prob(x))
    assert np.all(likelihood.log_prob(np.where(seen, x, 1 - x)) != likelihood.log_prob(x))
    for picture in (likelihood.mean, likelihood.sample(key)):
        np.testing.assert_array_equal(np.asarray(picture)[seen], x[seen])
        assert np.any(np.asarray(picture)[~seen] != x[~seen])


def test_the_scale_is_bounded_whatever_the_weights():
    model, params, x, c = build(CONDITIONS["label"], prior="learned")
    for sign in (-1, 1):
        wild = jax.tree.map(lambda leaf, sign=sign: sign * 1e6 * jnp.ones_like(leaf), params)
        q, p = model.encode(wild, x, c), model.prior(wild, c)
        assert np.all(np.abs(q.log_std) <= 7)
        assert np.all(np.abs(p.log_std) <= 7)
        assert np.all(np.isfinite(cvae.kl_divergence(cvae.Normal(0 * q.mean, q.log_std), p._replace(mean=0 * p.mean))))


MASK = np.array([1, 0, 1, 1], np.float32)
KEPT = np.flatnonzero(MASK)
MANY = 16  # so many examples have every label and have seen every pixel
MASKED = {
    "plain, concat, label": ("label", {"prior": "standard"}),
    "plain, film, label, learned": ("label", {"conditioning": "film", "prior": "learned"}),
    "residual, concat_all, mixed, learned": (
        "mixed",
        {"body": "residual", "conditioning": "concat_all", "prior": "learned"},
    ),
    "convolutional, film, label": ("label", {"body": "convolutional", "conditioning": "film", "hidden": (6, 7)}),
}


def narrow(params):
    """The weights of the latents that are kept: columns of the heads, rows of the decoder's first layer."""
    params = jax.tree.map(np.asarray, params)
    for name in {"encoder", "prior"} & set(params):
        columns = np.concatenate([KEPT, LATENT + KEPT])
        params[name]["head"] = {leaf: value[..., columns] for leaf, value in params[name]["head"].items()}
    mlp = params["decoder"]["mlp"]
    first = (mlp["enter"] if "enter" in mlp else mlp["layers"]["layer_0"])["linear"]
    first["kernel"] = np.delete(first["kernel"], np.flatnonzero(MASK == 0), axis=0)
    return params


@pytest.mark.parametrize(("name", "fields"), MASKED.values(), ids=MASKED.keys())
def test_a_masked_model_is_the_smaller_model(name, fields):
    """The same ELBO and the same gradients, and none for the weights of a masked latent: those that `prune` zeros."""
    fields = {"hidden": (7,)} | fields
    model, params, x, c = build(CONDITIONS[name], MANY, **fields)
    small = cvae.make(cvae.Architecture(EVENT, CONDITIONS[name], len(KEPT), **fields))
    noise = np.random.default_rng(8).normal(size=(MANY, LATENT)).astype(np.float32)

    def score(model, noise):
        return jax.jit(jax.value_and_grad(lambda params: bound(model, params, noise, x, c).mean()))

    value, gradient = score(cvae.masked(model), noise)({"mask": MASK, "model": params})
    expected, small_gradient = score(small, noise[:, KEPT])(narrow(params))
    assert jax.tree.map(jnp.shape, small_gradient) == jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(small.init, jax.random.key(0))
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert not gradient["mask"].any()
    for (path, one), two in zip(
        jax.tree_util.tree_leaves_with_path(narrow(gradient["model"])), jax.tree.leaves(small_gradient), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(two).max(), err_msg=str(path))

    pruned = networks.prune(jax.tree.map(jnp.ones_like, params), MASK)
    for (path, leaf), ones in zip(
        jax.tree_util.tree_leaves_with_path(gradient["model"]), jax.tree.leaves(pruned), strict=True
    ):
        still, zeroed = np.asarray(leaf) == 0, np.asarray(ones) == 0
        # A ReLU that no example wakes has no gradient either; a GELU always has one.
        np.testing.assert_array_equal(
            still & zeroed if model.architecture.body == "plain" else still, zeroed, str(path)
        )


@pytest.mark.parametrize("name", ["nothing", "label", "mixed"])
def test_a_masked_latent_is_inert(name):
    prior = "standard" if name == "nothing" else "learned"
    model, params, x, c = build(CONDITIONS[name], prior=prior)
    masked, params = cvae.masked(model), {"mask": MASK, "model": params}
    q, p, likelihood = everything(masked, params, x, Z, c)
    np.testing.assert_array_equal(kl_terms(q, p)[:, MASK == 0], 0)
    assert np.all(kl_terms(q, p)[:, KEPT] > 0)
    whole = model.encode(params["model"], x, c)
    np.testing.assert_array_equal(q.mean[:, KEPT], whole.mean[:, KEPT])
    np.testing.assert_array_equal(q.log_std[:, KEPT], whole.log_std[:, KEPT])
    for hidden, free in ((MASK == 0, True), (MASK == 1, False)):
        moved = masked.decode(params, np.where(hidden, Z + 3, Z).astype(np.float32), c)
        same = np.asarray(moved.log_prob(x) == likelihood.log_prob(x))
        assert np.all(same if free else ~same)
    # Whatever its weights are, even none at all.
    other = networks.prune(params["model"], MASK)
    jax.tree.map(
        np.testing.assert_array_equal, everything(masked, params | {"model": other}, x, Z, c), (q, p, likelihood)
    )


def test_a_full_mask_changes_nothing(every_example):
    model, params, x, c = every_example
    masked = cvae.masked(model)
    whole = everything(masked, {"mask": np.ones(LATENT, np.float32), "model": params}, x, Z, c)
    jax.tree.map(np.testing.assert_array_equal, whole, everything(model, params, x, Z, c))
    assert cvae.masked(model) is masked
    assert jax.eval_shape(masked.init, jax.random.key(0))["mask"].shape == (LATENT,)


def test_masks_are_swept_by_one_program(labelled):
    model, params, x, c = labelled
    masked = cvae.masked(model)
    masks = np.tril(np.ones((LATENT, LATENT), np.float32))
    score = jax.jit(lambda mask: bound(masked, {"mask": mask, "model": params}, Z, x, c))
    close(jax.jit(jax.vmap(score))(masks), jnp.stack([score(mask) for mask in masks]))


def test_a_masked_model_begins_with_all_its_latents(labelled, key):
    params = cvae.masked(labelled.model._replace(init=lambda key: {"weights": key})).init(key)
    np.testing.assert_array_equal(params.pop("mask"), np.ones(LATENT))
    assert params == {"model": {"weights": key}}
    with pytest.raises(ValueError, match=r"model must be one of `make`, got a model without an architecture"):
        cvae.masked(labelled.model._replace(architecture=None))


BAD_X = {
    "shape": (np.zeros((3, 6), np.float32), r"x must have shape \[B, 2, 3, 1\], got \(3, 6\)"),
    "rank": (np.zeros((2, 3, 1), np.float32), r"x must have shape \[B, 2, 3, 1\], got \(2, 3, 1\)"),
    "empty": (np.zeros((0, 2, 3, 1), np.float32), r"x must hold at least one example, got shape \(0, 2, 3, 1\)"),
    "range": (np.full((3, 2, 3, 1), 1.5, np.float32), r"x must be floats in \[0, 1\], got values from 1.5 to 1.5"),
    "negative": (np.full((3, 2, 3, 1), -0.1, np.float32), "got values from -0.1 to -0.1"),
    "nan": (np.full((3, 2, 3, 1), np.nan, np.float32), r"x must be floats in \[0, 1\], got 18 NaN"),
    "uint8": (np.zeros((3, 2, 3, 1), np.uint8), r"x must be floats in \[0, 1\] \(`cvae.prepare` .* got uint8 values"),
    "integers": (np.zeros((3, 2, 3, 1), np.int32), "got int32 values"),
    "a list": ([0.5, 0.5, 0.5], "x must be an array, got a list"),
}


@pytest.mark.parametrize(("x", "message"), BAD_X.values(), ids=BAD_X.keys())
def test_bad_pictures_are_refused(labelled, x, message):
    with pytest.raises(ValueError, match=message):
        labelled.model.encode(labelled.params, x, labelled.c)


@pytest.mark.parametrize("architecture", [cvae.Label(10), {}, None])
def test_a_model_is_made_of_an_architecture(architecture):
    with pytest.raises(ValueError, match="architecture must be an Architecture, got"):
        cvae.make(architecture)


def test_every_likelihood_has_its_support():
    beyond, infinite = np.full((3, *EVENT), 1.5, np.float32), np.full((3, *EVENT), np.inf, np.float32)
    for likelihood, x, message in (
        (likelihoods.Bernoulli(), beyond, r"x must be floats in \[0, 1\], got values from 1.5 to 1.5"),
        (likelihoods.ContinuousBernoulli(), beyond, r"x must be floats in \[0, 1\], got values from 1.5 to 1.5"),
        (likelihoods.Normal(), infinite, "x must be finite floats, got 18 NaN or infinite"),
        (likelihoods.Normal(scale=0.5), infinite, "x must be finite floats, got 18 NaN or infinite"),
    ):
        model, params, good, c = build(CONDITIONS["label"], likelihood=likelihood, hidden=(7,))
        model.encode(params, good, c)
        for masked, params_of in ((model, params), (cvae.masked(model), {"mask": MASK, "model": params})):
            with pytest.raises(ValueError, match=message):
                masked.encode(params_of, x, c)
        with pytest.raises(ValueError, match=message):
            check_examples(model, x, c)
        check_examples(model, np.zeros((3, *EVENT), np.uint8), c)
    model.encode(params, beyond, c)


def test_bad_latents_and_conditions_are_refused(labelled, key):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"z must have shape \[B, 4\], got \(3, 5\)"):
        model.decode(params, jnp.zeros((3, 5)), c)
    with pytest.raises(ValueError, match="one entry an example of x, 2 of them, got 3"):
        model.encode(params, x[:2], c)
    with pytest.raises(ValueError, match=r"got \[\]: \['label'\] missing"):
        model.prior(params, {})
    with pytest.raises(ValueError, match="got 5 at row 0"):
        cvae.elbo(model, params, key, x, {"label": np.array([CLASSES, 0, 0])})


def test_every_function_looks_at_its_condition(every_example):
    model, params, x, c = every_example
    bad = c | {"age": np.zeros(BATCH)}
    for call in (
        lambda: model.encode(params, x, bad),
        lambda: model.prior(params, bad),
        lambda: model.decode(params, Z, bad),
    ):
        with pytest.raises(ValueError, match=r"\['age'\] unexpected"):
            call()
    short = {name: value[:2] for name, value in c.items()}
    if short:
        with pytest.raises(ValueError, match="must hold one entry an example of x, 3 of them, got 2"):
            model.decode(params, Z, short)


def test_shapes_are_refused_inside_jit_too(labelled):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"x must have shape \[B, 2, 3, 1\], got \(3, 6\)"):
        jax.jit(model.encode)(params, x.reshape(3, 6), c)
    with pytest.raises(ValueError, match="one-hot"):
        jax.jit(model.encode)(params, x, {"label": np.eye(CLASSES)[c["label"]]})
    jax.jit(model.encode)(params, x + 1, {"label": c["label"] + CLASSES})


def test_raw_examples_are_checked_as_they_are_stored(every_example):
    model, _, x, c = every_example
    raw = stored(model.architecture.condition, np.random.default_rng(1))
    check_examples(model, x, raw)
    check_examples(model, (255 * x).astype(np.uint8), raw)
    for bad_x, bad_c, message in (
        (x[:, :1], raw, r"x must have shape \[B, 2, 3, 1\]"),
        (x + 1, raw, r"x must be floats in \[0, 1\]"),
        (x, raw | {"age": x}, r"\['age'\] unexpected"),
    ):
        with pytest.raises(ValueError, match=message):
            check_examples(model, bad_x, bad_c)
    if set(c) != set(raw):
        with pytest.raises(ValueError, match="unexpected"):
            check_examples(model, x, c)
    check_examples(model._replace(architecture=None), "anything", None)


def test_a_model_knows_its_preparation(labelled):
    label = CONDITIONS["label"]
    assert default_preparation(labelled.model) is preparation(label, "grey")
    assert default_preparation(labelled.model, "dynamic") is preparation(label, "dynamic")
    assert default_preparation(labelled.model._replace(architecture=None)) is preparation(cvae.Nothing(), "grey")


def test_without_latents_a_model_is_a_deterministic_network(key):
    model, params, x, c = build(CONDITIONS["image"], latent_size=0)
    assert set(params) == {"decoder"}
    assert model.encode(params, x, c).mean.shape == (BATCH, 0)
    likelihood = model.decode(params, jnp.zeros((BATCH, 0)), c)
    terms = cvae.elbo(model, params, key, x, c)
    np.testing.assert_array_equal(terms.value, likelihood.log_prob(x))
    weights_ = cvae.log_weights(model, params, key, x, c, num_samples=3).value
    np.testing.assert_allclose(weights_, np.tile(terms.value, (3, 1)), rtol=1e-6)


def test_the_guess_reaches_the_prior_alone(key):
    """It is the mean of a deterministic network, with what is seen as it is; posterior and decoder do not hear it."""
    model, params, x, c = build(CONDITIONS["image"], prior="learned", guess=True)
    plain = build(CONDITIONS["image"], latent_size=0)
    assert jax.tree.map(jnp.shape, params["guess"]) == jax.tree.map(jnp.shape, plain.params["decoder"])
    other = {**params, "guess": plain.params["decoder"]}
    changed = model.prior(other, c).mean
    assert np.any(model.prior(params, c).mean != changed)
    jax.tree.map(np.testing.assert_array_equal, model.encode(params, x, c), model.encode(other, x, c))
    # What the prior is given, from the deterministic model itself.
    guess = plain.model.decode(plain.params, jnp.zeros((BATCH, 0)), c).mean
    np.testing.assert_array_equal(np.where(c["observed"], guess, 0), np.where(c["observed"], c["image"], 0))
    network = cvae.networks.prior(model.architecture)
    features = model.architecture.condition.encode(c)
    expected = network.apply(other["prior"], guess.reshape(BATCH, -1), features)
    np.testing.assert_allclose(changed, expected.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("guess", [False, True])
def test_layers_of_latents_are_behind_the_same_four_functions(guess, key):
    model, params, x, c = build(CONDITIONS["mixed"], latent_layers=2, prior="learned", guess=guess)
    q, p = jax.jit(model.encode)(params, x, c), jax.jit(model.prior)(params, c)
    z = jax.jit(lambda q: q.sample(key))(q)
    assert z.shape == (BATCH, LATENT)
    assert jax.jit(model.decode)(params, z, c).mean.shape == x.shape
    given = jax.jit(lambda p: p.given(z).mean)
    np.testing.assert_allclose(given(q.prior), given(p), rtol=1e-5, atol=1e-6)
    one = jax.vmap(lambda x, c: model.encode(params, x[None], jax.tree.map(lambda v: v[None], c)).sample(key))
    assert jax.eval_shape(one, x, c).shape == (BATCH, 1, LATENT)
    gradient = jax.jit(jax.grad(lambda params: cvae.elbo(model, params, key, x, c).value.mean()))(params)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    with pytest.raises(ValueError, match="latent_layers must be 1 for a mask over the latents, got 2"):
        cvae.model.masked(model)
