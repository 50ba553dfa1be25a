"""Likelihoods of counts, categories and 8-bit pixels: what outputs mean, what encoders see, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import cvae
from cvae.settings import replace
from tests.conftest import BATCH, CLASSES, EVENT, LATENT, build

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson([2.0, 40.0, 0.3], (400, 3))
OUTPUTS = RNG.normal(size=(3, 6)).astype(np.float32)
FAMILIES = {
    "poisson": cvae.Poisson((0.5,), (0.6,)),
    "negative binomial": cvae.NegativeBinomial((0.5,), (0.6,)),
    "categorical": cvae.Categorical(5),
    "categorical pixels": cvae.CategoricalPixels(),
    "discretised logistic": cvae.DiscretizedLogistic(),
}


def x_of(family, shape):
    """Examples that a family can score."""
    if isinstance(family, cvae.Bernoulli):
        return RNG.integers(0, 256, shape, dtype=np.uint8)
    return RNG.integers(0, 5, shape)


def test_outputs_of_counts_are_the_logarithms_of_mean_and_size():
    poisson = cvae.Poisson((0.5, -1.0), (1.0, 1.0)).distribution(jnp.asarray(OUTPUTS[:, :2]), (2,))
    np.testing.assert_allclose(poisson.log_rate, [0.5, -1.0] + 10 * np.tanh(OUTPUTS[:, :2] / 10), rtol=1e-5)
    family = cvae.NegativeBinomial((0.5,), (1.0,))
    assert family.num_outputs((3,)) == 6
    outputs = OUTPUTS.reshape(3, 3, 2)
    found = family.distribution(jnp.asarray(OUTPUTS), (3,))
    np.testing.assert_allclose(found.log_mean, 0.5 + 10 * np.tanh(outputs[..., 0] / 10), rtol=1e-5)
    np.testing.assert_allclose(found.log_size, 6 * np.tanh(outputs[..., 1] / 6), rtol=1e-5)
    extreme = family.distribution(jnp.asarray(1e6 * OUTPUTS), (3,))
    assert np.isfinite(extreme.log_prob(np.array([[0, 3, 10**6]] * 3))).all()


def test_outputs_of_categories_and_pixels_are_their_parameters():
    logits = RNG.normal(size=(3, 10)).astype(np.float32)
    assert cvae.Categorical(5).num_outputs((2,)) == 10
    np.testing.assert_array_equal(cvae.Categorical(5).distribution(logits, (2,)).logits, logits.reshape(3, 2, 5))
    assert cvae.CategoricalPixels().num_outputs(EVENT) == 6 * 256
    logits = RNG.normal(size=(3, 6 * 256)).astype(np.float32)
    pixels = cvae.CategoricalPixels().distribution(logits, EVENT)
    np.testing.assert_array_equal(pixels.logits, logits.reshape(3, *EVENT, 256))
    assert cvae.DiscretizedLogistic().num_outputs((3,)) == 6
    logistic = cvae.DiscretizedLogistic().distribution(jnp.zeros((3, 6)), (3,))
    np.testing.assert_allclose(logistic.location, 0.5)
    np.testing.assert_allclose(logistic.log_scale, -2)


def test_encoders_see_logarithms_of_counts_and_one_hot_categories():
    family = cvae.NegativeBinomial.fitted(COUNTS)
    features = np.asarray(family.features(COUNTS), np.float64)
    expected = (np.log1p(COUNTS) - np.log1p(COUNTS.mean(axis=0))) / np.log1p(COUNTS).std(axis=0)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(family.features(jnp.asarray(COUNTS)), expected, atol=1e-5)
    x = np.array([[0, 4], [3, 1], [np.nan, 2]])
    one_hot = np.concatenate([np.eye(5)[[0, 3, 0]], np.eye(5)[[4, 1, 2]]], axis=1)
    one_hot[2, :5] = 0
    for array in (x, jnp.asarray(x, jnp.float32)):
        np.testing.assert_array_equal(cvae.Categorical(5).features(array), one_hot)
    np.testing.assert_array_equal(cvae.Categorical(5).features(x[:2].astype(int)), one_hot[:2])
    assert cvae.Categorical(5).feature_shape((7, 2)) == (7, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_scores_and_draws_by_its_likelihood(name):
    model, params, _, c = build(cvae.Label(CLASSES), likelihood=FAMILIES[name], hidden=(7,))
    x, key = x_of(FAMILIES[name], (BATCH, *EVENT)), jax.random.key(3)
    terms = jax.jit(lambda c: cvae.elbo(model, params, key, x, c))(c)
    assert np.isfinite(terms.value).all()
    other = {"label": (c["label"] + 1) % CLASSES}
    z = RNG.normal(size=(BATCH, LATENT)).astype(np.float32)
    px = model.decode(params, z, c)
    for moved in (model.decode(params, z, other), model.decode(params, z + 1, c)):
        assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(px), jax.tree.leaves(moved), strict=True))
    draws = jax.jit(lambda c: cvae.sample(model, params, key, c))(c)
    FAMILIES[name].spec(EVENT).check("x", draws)  # what is drawn can be scored
    broken = np.asarray(jax.jit(lambda c: cvae.sample(model, params, key, c))({"label": np.array([0, CLASSES, 1])}))
    assert np.isnan(broken[1]).all()
    assert np.isfinite(broken[[0, 2]]).all()


@pytest.mark.parametrize("kind", [cvae.Poisson, cvae.NegativeBinomial])
def test_fitted_counts_have_the_mean_of_the_data_per_unit_of_exposure(kind):
    exposure = RNG.uniform(0.5, 12, 400)
    counts = RNG.poisson(exposure[:, None] * [3.0, 0.2])
    family = kind.fitted(counts, exposure)
    np.testing.assert_allclose(np.exp(family.location), counts.sum(axis=0) / exposure.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.exp(kind.fitted(COUNTS).location), COUNTS.mean(axis=0), rtol=1e-9)
    holes = RNG.random(counts.shape) < 0.2
    known = kind.fitted(np.where(holes, np.nan, counts), exposure)
    expected = [counts[~h, k].sum() / exposure[~h].sum() for k, h in enumerate(holes.T)]
    np.testing.assert_allclose(np.exp(known.location), expected, rtol=1e-9)
    constant = kind.fitted(np.array([[0.0, np.nan], [0.0, np.nan]]))
    np.testing.assert_allclose(np.exp(constant.location), [0.25, 1])
    assert np.isfinite(constant.features(np.zeros((3, 2)))).all()
    images = kind.fitted(COUNTS.reshape(100, 4, 3), np.ones(100))
    np.testing.assert_allclose(images.location, kind.fitted(COUNTS).location)


def test_a_poisson_of_0_outputs_is_that_of_the_data():
    family = cvae.Poisson.fitted(COUNTS)
    expected = stats.poisson(COUNTS.mean(axis=0)).logpmf(COUNTS).sum(axis=1)
    found = family.distribution(jnp.zeros((400, 3)), (3,)).log_prob(COUNTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_exposure_multiplies_the_mean_that_a_model_decodes():
    condition = cvae.Mixed((cvae.Label(CLASSES), cvae.Exposure(0.7, 0.5, "months")))
    model, params, _, _ = build(condition, likelihood=cvae.Poisson(), hidden=(7,))
    c = {"label": np.array([0, 1, 2]), "months": np.array([0.5, 2.0, 12.0])}
    features = condition.encode(c).numbers
    np.testing.assert_allclose(features[:, -1], (np.log(c["months"]) - 0.7) / 0.5, rtol=1e-5)
    # With weights of 0, the exposure is a factor and nothing else.
    z, flat = np.zeros((BATCH, LATENT), np.float32), jax.tree.map(jnp.zeros_like, params)
    mean = np.asarray(model.decode(flat, z, c).mean).reshape(3, -1)
    np.testing.assert_allclose(mean, np.repeat(c["months"][:, None], 6, axis=1), rtol=1e-5)


BAD_FITS = {
    "negative": (lambda: cvae.Poisson.fitted(COUNTS - 5), r"^x must be whole numbers in \[0, inf\), or NaN .*, got -"),
    "half": (lambda: cvae.NegativeBinomial.fitted(COUNTS + 0.5), "^x must be whole numbers in .*, got [0-9]+.5 at row"),
    "infinite": (lambda: cvae.Poisson.fitted(COUNTS + np.inf), "^x must be whole numbers in .*, got inf at row 0"),
    "row": (lambda: cvae.Poisson.fitted(COUNTS[:, 0]), r"^x must have shape \[N, \*event\], got \(400,\)"),
    "exposure": (lambda: cvae.Poisson.fitted(COUNTS, np.ones(3)), r"^exposure must be .* shape \(\) or \(400,\), got"),
    "no exposure": (lambda: cvae.Poisson.fitted(COUNTS, 0.0), "^exposure must be a finite number of at least 1e-30"),
    "lengths": (lambda: cvae.Poisson((0.0, 1.0)), "^scale must have one number per location, 2, got 1"),
    "channels": (
        lambda: cvae.make(cvae.Architecture((3,), likelihood=cvae.Poisson((0.0, 1.0), (1.0, 1.0)))),
        "^location must have 1 or 3 numbers, got 2",
    ),
    "one class": (lambda: cvae.Categorical(1), "^num_classes must be greater than or equal to 2, got 1"),
}


@pytest.mark.parametrize(("construct", "message"), BAD_FITS.values(), ids=BAD_FITS.keys())
def test_bad_counts_and_settings_are_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


def test_pixels_are_bytes_or_grey_levels_and_nothing_else():
    for name in ("categorical pixels", "discretised logistic"):
        model, params, _, _ = build(cvae.Unconditional(), likelihood=FAMILIES[name], hidden=(7,))
        x, key = x_of(FAMILIES[name], (BATCH, *EVENT)), jax.random.key(3)
        one, two = (cvae.elbo(model, params, key, each, {}).value for each in (x, np.float32(x / 255)))
        np.testing.assert_allclose(one, two, rtol=1e-5)
        with pytest.raises(ValueError, match=r"^x must be floats, or uint8 in 255ths, in \[0, 1\], got 2"):
            cvae.elbo(model, params, key, x / 255 + 2, {})


def test_families_are_hashable_settings():
    assert len({*FAMILIES.values(), replace(FAMILIES["poisson"])}) == len(FAMILIES)
