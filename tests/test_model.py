"""The contracts of the four functions: pure, under JAX's transformations; masked latents; and what inputs they take."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.distributions import Masked, kl_terms
from cvae.model import check_examples
from cvae.origin import at_origin
from tests.conftest import BATCH, CLASSES, CONDITIONS, EVENT, LATENT, build, weights
from tests.oracles import CONDITIONS as LINEAR_CONDITIONS
from tests.oracles import linear_gaussian

Z = np.random.default_rng(6).normal(size=(BATCH, LATENT)).astype(np.float32)


def close(a, b, rtol=1e-4):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-5), a, b)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def outputs_of(model, params, x, z, c):
    """Posterior, prior and likelihood of a batch."""
    return model.encode(params, x, c), model.prior(params, c), model.decode(params, z, c)


def bound(model, params, noise, x, c):
    """The ELBO with this noise: compiling a random generator takes seconds."""
    q = model.encode(params, x, c)
    return model.decode(params, q.mean + q.std * noise, c).log_prob(x) - cvae.kl_divergence(q, model.prior(params, c))


def test_shapes_and_vmap_over_examples_is_the_batch(every_example):
    model, params, x, c = every_example

    def alone(x, z, c):
        one = outputs_of(model, params, x[None], z[None], {name: value[None] for name, value in c.items()})
        return jax.tree.map(lambda leaf: leaf[0], one)

    both = jax.jit(lambda params, x, z, c: (outputs_of(model, params, x, z, c), jax.vmap(alone)(x, z, c)))
    (q, p, px), one_by_one = both(params, x, Z, c)
    close(one_by_one, (q, jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (BATCH, LATENT)), p), px))
    assert q.shape == (BATCH, LATENT)
    assert p.shape == (BATCH if c else 1, LATENT)
    if model.architecture.prior == "standard":
        assert not np.any(p.mean) and not np.any(p.log_std)  # noqa: PT018
    assert px.mean.shape == px.log_terms(px.cast(x)).shape == (BATCH, *EVENT)
    assert px.log_prob(x).shape == (BATCH,)
    assert isinstance(px, Masked) == ("observed" in c)


def test_parameters_are_a_plain_nested_dict(every_example):
    def walk(tree):
        assert type(tree) is dict or isinstance(tree, jax.ShapeDtypeStruct)
        for name, branch in tree.items() if type(tree) is dict else ():
            assert type(name) is str
            walk(branch)

    params = jax.eval_shape(every_example.model.init, jax.random.key(0))
    walk(params)
    learned = {"prior"} if every_example.model.architecture.prior == "learned" else set()
    assert set(params) == {"encoder", "decoder"} | learned
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_vmap_over_keys_and_parameters_is_a_population(labelled):
    tiny = cvae.make(cvae.Architecture((2,), latent_size=1, hidden=(3,)))
    population = jax.jit(jax.vmap(tiny.init))(jax.random.split(jax.random.key(0), 3))
    kernels = population["decoder"]["layers"]["layer_0"]["linear"]["kernel"]
    assert kernels.shape == (3, 1, 3)
    assert len(np.unique(kernels)) == 9
    model, _, x, c = labelled
    members = [weights(model, seed) for seed in range(3)]
    score = jax.jit(lambda params: bound(model, params, Z, x, c))
    values = jax.jit(jax.vmap(score))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
    close(values, jnp.stack([score(member) for member in members]))
    assert np.all(values[0] != values[1])


def test_grad_reaches_every_parameter_and_the_image(every_example):
    model, params, x, c = every_example
    slope = jax.jit(jax.grad(lambda params, x: bound(model, params, Z, x, c).mean(), argnums=(0, 1)))
    gradient, pixels = slope(params, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    assert np.all(np.abs(pixels).max(axis=(1, 2, 3)) > 0)


def test_the_dtype_of_the_parameters_is_that_of_the_computation(labelled):
    model, params, x, c = labelled
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    run = jax.jit(lambda params: (outputs_of(model, params, x, Z, c), bound(model, params, Z, x, c)))
    (outputs, value), exact = run(half), run(params)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, value))} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(np.asarray(value, np.float32), exact, rtol=0.1)  # bfloat16 has three digits


def test_jit_changes_nothing_and_calls_leave_their_arguments_unchanged(labelled):
    model, params, x, c = labelled
    before = jax.tree.map(np.array, (params, x, c))
    eager = outputs_of(model, params, x, Z, c)
    same(before, (params, x, c))
    close(jax.jit(lambda params: outputs_of(model, params, x, Z, c))(params), eager)


def variants(condition, c):
    """Conditions that differ in one of their arrays in every row, by its name."""
    for part in getattr(condition, "parts", (condition,)):
        if isinstance(part, cvae.Label):
            yield part.name, c | {part.name: (c[part.name] + 1) % CLASSES}
        if isinstance(part, cvae.Continuous):
            yield part.name, c | {part.name: c[part.name] + np.float32(part.std)}
        if isinstance(part, cvae.Image):
            yield part.name, c | {part.name: (1.25 - c[part.name]).astype(np.float32)}
            turned = np.roll(c["observed"].reshape(BATCH, -1), 1, axis=1).reshape(BATCH, *EVENT)
            assert np.all(np.any(turned != c["observed"], axis=(1, 2, 3)))
            yield "observed", c | {"observed": turned}


@pytest.mark.parametrize(
    ("body", "conditioning"),
    [("mlp", "concat"), ("mlp", "film"), ("residual", "concat_all"), ("residual", "film"), ("convolutional", "concat")],
)
def test_every_condition_reaches_encoder_decoder_and_prior(body, conditioning):
    model, params, x, c = build(CONDITIONS["mixed"], body=body, conditioning=conditioning, prior="learned")

    @jax.jit
    def outputs(c):
        q, p, px = outputs_of(model, params, x, Z, c)
        named = {"q mean": q.mean, "q scale": q.log_std, "p mean": p.mean, "p scale": p.log_std}
        return {name: value.reshape(BATCH, -1) for name, value in (named | {"logits": px.base.logits}).items()}

    before, seen = outputs(c), set()
    for changed, other in variants(CONDITIONS["mixed"], c):
        for output, values in outputs(other).items():
            assert np.all(np.any(values != before[output], axis=1)), (changed, output)
        seen.add(changed)
    assert seen == set(CONDITIONS["mixed"].spec)


@pytest.mark.parametrize("name", ["image", "mixed"])
def test_observed_elements_are_not_scored_and_are_returned_unchanged(name, key):
    model, params, x, c = build(CONDITIONS[name])
    px, seen = model.decode(params, Z, c), c["observed"]
    same(px.log_prob(np.where(seen, np.nan, x)), px.log_prob(x))
    assert np.all(px.log_prob(np.where(seen, x, 1 - x)) != px.log_prob(x))
    for image in (px.mean, px.sample(key)):
        np.testing.assert_array_equal(np.asarray(image)[seen], x[seen])
        assert np.any(np.asarray(image)[~seen] != x[~seen])
    # Of a whole image the networks read the observed part alone.
    hidden = c | {"image": np.where(seen, x, 0.5).astype(np.float32)}
    same(outputs_of(model, params, x, Z, hidden)[0], outputs_of(model, params, x, Z, c)[0])


# Masked latents

MASK = np.array([1, 0, 1, 1], np.float32)
ACTIVE = np.flatnonzero(MASK)
MANY = 16  # examples, among which every label and every observed pixel occur
MASKED = {
    "mlp, film, label, learned": ("label", {"conditioning": "film", "prior": "learned"}),
    "residual, concat_all, label": ("label", {"body": "residual", "conditioning": "concat_all"}),
    "convolutional, film, label": ("label", {"body": "convolutional", "conditioning": "film", "hidden": (6, 7)}),
}


def narrow(params):
    """The weights of the active latents: columns of the heads, rows of the decoder's first layer."""
    params = jax.tree.map(np.asarray, params)
    for name in {"encoder", "prior"} & set(params):
        for head in ("mean", "log_std"):
            params[name][head] = {leaf: value[..., ACTIVE] for leaf, value in params[name][head].items()}
    decoder = params["decoder"]
    first = (decoder["enter"] if "enter" in decoder else decoder["layers"]["layer_0"])["linear"]
    first["kernel"] = np.delete(first["kernel"], np.flatnonzero(MASK == 0), axis=0)
    return params


@pytest.mark.parametrize(("name", "fields"), MASKED.values(), ids=MASKED.keys())
def test_a_masked_model_is_the_smaller_model(name, fields):
    """The same ELBO and the same gradients, and none for the weights of a masked latent."""
    fields = {"hidden": (7,)} | fields
    model, params, x, c = build(CONDITIONS[name], MANY, **fields)
    small = cvae.make(cvae.replace(model.architecture, latent_size=len(ACTIVE)))
    noise = np.random.default_rng(8).normal(size=(MANY, LATENT)).astype(np.float32)

    def score(model, noise):
        return jax.jit(jax.value_and_grad(lambda params: bound(model, params, noise, x, c).mean()))

    value, gradient = score(cvae.masked(model), noise)({"mask": MASK, "model": params})
    expected, small_gradient = score(small, noise[:, ACTIVE])(narrow(params))
    shapes = jax.eval_shape(small.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, small_gradient) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert not gradient["mask"].any()
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(narrow(gradient["model"])), jax.tree.leaves(small_gradient), strict=True
    )
    for (path, one), two in pairs:
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(two).max(), err_msg=str(path))
    whole, part = (
        sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(g)) for g in (gradient, small_gradient)
    )
    assert whole == pytest.approx(part, rel=1e-4)


@pytest.mark.parametrize("name", ["unconditional", "label", "mixed"])
def test_a_masked_latent_is_inert(name):
    prior = "standard" if name == "unconditional" else "learned"
    model, params, x, c = build(CONDITIONS[name], prior=prior)
    masked = cvae.masked(model)
    run = jax.jit(lambda params, z: outputs_of(masked, params, x, z, c))
    q, p, px = run({"mask": MASK, "model": params}, Z)
    np.testing.assert_array_equal(kl_terms(q, p)[:, MASK == 0], 0)
    assert np.all(kl_terms(q, p)[:, ACTIVE] > 0)
    close(q.mean[:, ACTIVE], model.encode(params, x, c).mean[:, ACTIVE])
    for hidden, free in ((MASK == 0, True), (MASK == 1, False)):
        moved = run({"mask": MASK, "model": params}, np.where(hidden, Z + 3, Z).astype(np.float32))[2]
        unchanged = np.asarray(moved.log_prob(x) == px.log_prob(x))
        assert np.all(unchanged if free else ~unchanged)


def test_a_full_mask_changes_nothing_and_masks_share_one_program(labelled, key):
    model, params, x, c = labelled
    masked = cvae.masked(model)
    assert cvae.masked(model) is masked
    np.testing.assert_array_equal(jax.jit(masked.init)(key)["mask"], np.ones(LATENT))
    full = {"mask": np.ones(LATENT, np.float32), "model": params}
    same(outputs_of(masked, full, x, Z, c), outputs_of(model, params, x, Z, c))
    score = jax.jit(lambda mask: bound(masked, {"mask": mask, "model": params}, Z, x, c))
    masks = np.tril(np.ones((LATENT, LATENT), np.float32))
    close(jax.jit(jax.vmap(score))(masks), jnp.stack([score(mask) for mask in masks]))


def test_models_that_cannot_be_masked_are_refused(labelled):
    with pytest.raises(ValueError, match=r"model must be made by cvae.make, got a model without an architecture"):
        cvae.masked(labelled.model._replace(architecture=None))
    ladder = cvae.make(cvae.Architecture(EVENT, CONDITIONS["label"], LATENT, latent_layers=2))
    with pytest.raises(ValueError, match="latent_layers must be 1 for a mask over the latents, got 2"):
        cvae.masked(ladder)


def test_a_model_pickles_by_its_architecture(labelled):
    for model in (labelled.model, cvae.masked(labelled.model), cvae.make(labelled.model.architecture)):
        assert pickle.loads(pickle.dumps(model)) == model
    assert cvae.masked(labelled.model) != labelled.model
    # Other functions are not those of the architecture: no other model comes back in their place.
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(labelled.model._replace(encode=lambda params, x, c: None))


# Inputs


def test_bad_examples_are_refused(labelled):
    model, params, x, c = labelled
    for wrong, message in ((x[0], r"x must have shape \[B, 2, 3, 1\], got \(2, 3, 1\)"), (x + 2, r"x must be floats")):
        with pytest.raises(ValueError, match=message):
            model.encode(params, wrong, c)
        with pytest.raises(ValueError, match=message):
            check_examples(model.architecture, wrong, c)


def test_inf_is_refused_under_a_normal_likelihood():
    model, params, x, c = build(CONDITIONS["label"], likelihood=cvae.Normal(), hidden=(7,))
    model.encode(params, x + 1, c)
    for each, params_of in ((model, params), (cvae.masked(model), {"mask": MASK, "model": params})):
        with pytest.raises(ValueError, match="all finite, got inf at row 0"):
            each.encode(params_of, np.full((3, *EVENT), np.inf, np.float32), c)


def test_bad_latents_and_conditions_are_refused(labelled, key):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"z must have shape \[B, 4\], got \(3, 5\)"):
        model.decode(params, jnp.zeros((3, 5)), c)
    with pytest.raises(ValueError, match="one entry per example of x, 2, got 3"):
        model.encode(params, x[:2], c)
    with pytest.raises(ValueError, match="one entry per example of x, 2, got 3"):
        model.decode(params, Z[:2], c)
    with pytest.raises(ValueError, match=r"got \[\]: \['label'\] missing"):
        model.prior(params, {})
    with pytest.raises(ValueError, match="got 5 at row 0"):
        cvae.elbo(model, params, key, x, {"label": np.array([CLASSES, 0, 0])})
    bad = c | {"age": np.zeros(BATCH)}
    for call in (model.encode, model.prior, model.decode):
        arguments = {model.encode: (x, bad), model.prior: (bad,), model.decode: (Z, bad)}[call]
        with pytest.raises(ValueError, match=r"\['age'\] unexpected"):
            call(params, *arguments)


@pytest.mark.parametrize("architecture", [cvae.Label(10), {}, None])
def test_a_model_is_made_of_an_architecture(architecture):
    with pytest.raises(ValueError, match=r"architecture must be a cvae\.Architecture, got"):
        cvae.make(architecture)


def test_a_model_is_moved_to_the_origin_with_its_densities():
    rng = np.random.default_rng(0)
    y, age = rng.normal(size=(MANY, 5)), rng.normal(size=(MANY, 2))
    x, values = 1e9 + y, 1.7e9 + 300 * age
    condition = cvae.Continuous(2, (1.7e9, 1.7e9), (300.0, 300.0))
    fields = {"event_shape": (5,), "likelihood": cvae.Normal(location=(1e9,), scale=(1.0,))}
    model, params, _, _ = build(condition, **fields)
    near, _, _, _ = build(cvae.replace(condition, mean=(0.0, 0.0)), **fields | {"likelihood": cvae.Normal()})
    for each, expected in ((model, near), (cvae.masked(model), cvae.masked(near))):
        moved, x_moved, c_moved = at_origin(each, x, {"continuous": values})
        assert moved == expected
        np.testing.assert_allclose(x_moved, y, atol=1e-6)
        np.testing.assert_allclose(c_moved["continuous"], 300 * age, atol=1e-4)
    # Functions of the user's own know their means themselves.
    oracle = linear_gaussian(exact=True, condition=LINEAR_CONDITIONS["continuous"])
    assert at_origin(oracle.model, oracle.x, oracle.c)[0] is oracle.model
    assert at_origin(near, y, {"continuous": age})[0] is near
    assert set(params) == {"encoder", "decoder"}


# Other architectures


def test_without_latents_a_model_is_a_deterministic_network(key):
    model, params, x, c = build(CONDITIONS["image"], latent_size=0)
    assert set(params) == {"decoder"}
    assert model.encode(params, x, c).mean.shape == (BATCH, 0)

    @jax.jit
    def run(params):
        exact = model.decode(params, jnp.zeros((BATCH, 0)), c).log_prob(x)
        weights = [
            cvae.log_weights(model, params, key, x, c, num_samples=2, proposal=proposal).value
            for proposal in ("posterior", "prior", "mixture")
        ]
        return exact, cvae.elbo(model, params, key, x, c).value, weights

    exact, value, weights = run(params)
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(weights, np.tile(exact, (3, 2, 1)), rtol=1e-6)


def test_the_guess_reaches_the_prior_alone():
    """It is the mean of a deterministic network, observed elements as they are; posterior and decoder ignore it."""
    model, params, x, c = build(CONDITIONS["image"], prior="learned", guess=True)
    plain = build(CONDITIONS["image"], latent_size=0)
    assert jax.tree.map(jnp.shape, params["guess"]) == jax.tree.map(jnp.shape, plain.params["decoder"])
    other = {**params, "guess": plain.params["decoder"]}
    assert np.any(model.prior(params, c).mean != model.prior(other, c).mean)
    same(model.encode(params, x, c), model.encode(other, x, c))
    same(model.decode(params, Z, c), model.decode(other, Z, c))
    # The prior is the encoder's network, of the guess in place of x.
    guess = plain.model.decode(plain.params, jnp.zeros((BATCH, 0)), c).mean
    np.testing.assert_array_equal(np.asarray(guess)[c["observed"]], c["image"][c["observed"]])
    as_encoder = {**other, "encoder": other["prior"]}
    close(model.prior(other, c), model.encode(as_encoder, guess, c))


def test_layers_of_latents_have_the_same_four_functions(key):
    model, params, x, c = build(CONDITIONS["label"], latent_layers=2, prior="learned", guess=True, hidden=(7,))

    @jax.jit
    def run(params, x, c):
        q, p = model.encode(params, x, c), model.prior(params, c)
        z, q_z = q.sample_with_conditional(key)
        p_z, px = p.conditional(z), model.decode(params, z, c)
        value = px.log_prob(x).mean() - kl_terms(q_z, p_z).sum(axis=1).mean()
        return value, (z, px.mean, q.prior.conditional(z).mean, p_z.mean)

    (_, (z, mean, of_q, of_p)), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params, x, c)
    assert (z.shape, mean.shape) == ((BATCH, LATENT), x.shape)
    np.testing.assert_allclose(of_q, of_p, rtol=1e-5, atol=1e-6)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
