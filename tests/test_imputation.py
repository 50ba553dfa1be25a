"""Imputations, contributions and encodings against the exact conditionals of linear-Gaussian models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.distributions import Normal, compound, discrete
from cvae.imputation import posterior_moments
from tests.oracles import BATCH, EVENT, NOISE, linear_gaussian, linear_ladder

HIDDEN = np.array([[0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1]], bool)


def with_missing(*, exact):
    """The linear-Gaussian oracle where NaN marks a missing element; its encoder is the posterior of those there."""
    oracle = linear_gaussian(exact=exact)
    condition = oracle.model.architecture.condition

    def encode(params, x, c):
        p, there = oracle.model.prior(params, c), ~jnp.isnan(x)
        residual = jnp.where(there, x - condition.encode(c).flat @ params["V"].T, 0) @ params["W"] / NOISE**2
        precision = jnp.exp(-2 * p.log_std) + there @ params["W"] ** 2 / NOISE**2
        mean = (p.mean * jnp.exp(-2 * p.log_std) + residual) / precision
        return Normal(mean + params["shift"], -0.5 * jnp.log(precision) + params["widen"])

    def decode(params, z, c):
        return compound.Missing(oracle.model.decode(params, z, c))

    likelihood = cvae.Missing(cvae.Normal(std=NOISE))
    architecture = cvae.replace(oracle.model.architecture, likelihood=likelihood)
    return oracle._replace(model=cvae.CVAE(oracle.model.init, encode, oracle.model.prior, decode, architecture))


def moments(oracle, f):
    """Mean [N, 5] and covariance [5, 5] of p(x | c), f the features of c."""
    p, _, _, _ = oracle.double()
    mean = (p["m0"] + f @ p["M"].T) @ p["W"].T + f @ p["V"].T
    return mean, p["W"] @ np.diag(np.exp(2 * p["log_s0"])) @ p["W"].T + NOISE**2 * np.eye(EVENT)


def conditional(oracle, x, f):
    """Mean and standard deviation of every missing element given those that are there, NaN elsewhere."""
    means, covariance = moments(oracle, f)
    mean, std = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for row, (values, centre) in enumerate(zip(x, means, strict=True)):
        gone = np.isnan(values)
        slope = covariance[np.ix_(gone, ~gone)] @ np.linalg.inv(covariance[np.ix_(~gone, ~gone)])
        mean[row, gone] = centre[gone] + slope @ (values - centre)[~gone]
        std[row, gone] = np.sqrt(np.diag(covariance[np.ix_(gone, gone)] - slope @ covariance[np.ix_(~gone, gone)]))
    return mean, std


@pytest.mark.parametrize("exact", [True, False])
def test_imputations_are_the_exact_conditionals(exact):
    oracle = with_missing(exact=exact)
    copies, draws, samples = 100, 10, 400
    x, c = oracle._replace(x=np.where(HIDDEN, np.nan, oracle.x)).repeated(copies)
    found = cvae.impute(*oracle[:2], jax.random.key(1), x, c, num_draws=draws, num_samples=samples, batch_size=300)
    mean, std = (values[::copies] for values in conditional(oracle, x, oracle.double()[2].repeat(copies, axis=0)))
    means = found.mean.reshape(BATCH, copies, EVENT)
    error = means.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(np.abs(means.mean(axis=1) - mean)[HIDDEN] < 5 * error[HIDDEN])
    assert np.all(means.std(axis=1)[HIDDEN] < 0.3 * std[HIDDEN]), "the mean has no noise of p(x | z, c)"
    drawn = found.draws.reshape(BATCH, copies * draws, EVENT)
    # Draws of one row share its importance samples: by so much their means vary more than those of independent ones.
    assert np.all(np.abs(drawn.mean(axis=1) - mean)[HIDDEN] < 5 * (std / np.sqrt(copies * draws) + error)[HIDDEN])
    assert np.all(np.abs(drawn.std(axis=1) / std - 1)[HIDDEN] < 0.15)
    kept = np.broadcast_to(x[:, None], found.draws.shape)
    for values, original in ((found.draws, kept), (found.mean, x), (found.low, x), (found.high, x)):
        there = ~np.isnan(original)
        np.testing.assert_array_equal(values[there], original[there])
    assert np.all(found.effective_samples <= samples * (1 + 1e-4))
    if exact:  # all weights are the same
        np.testing.assert_allclose(found.effective_samples, samples, rtol=1e-3)


def test_intervals_hold_the_truth_nine_times_in_ten():
    oracle, rng, size = with_missing(exact=False), np.random.default_rng(0), 900
    row = rng.normal(size=(size, 4)).astype(np.float32)
    centre, covariance = moments(oracle, np.asarray(row, np.float64))
    truth = centre + rng.multivariate_normal(np.zeros(EVENT), covariance, size)
    gone = rng.permuted(np.tile([True, True, False, False, False], (size, 1)), axis=1)
    x = np.where(gone, np.nan, truth).astype(np.float32)
    found = cvae.impute(*oracle[:2], jax.random.key(2), x, {"row": row}, num_draws=1, batch_size=100)
    inside = ((found.low <= truth) & (truth <= found.high))[gone]
    assert abs(inside.mean() - 0.9) < 5 * np.sqrt(0.09 / len(inside))
    below = (truth < found.low)[gone]
    assert abs(below.mean() - 0.05) < 5 * np.sqrt(0.0475 / len(below))


def test_a_category_is_the_most_probable_under_the_weights():
    logits = jnp.log(jnp.array([[[0.6, 0.3, 0.1]], [[0.1, 0.3, 0.6]], [[0.1, 0.5, 0.4]]]))
    numbers = Normal(jnp.array([[1.0], [2.0], [6.0]]), jnp.zeros((3, 1)))
    columns = compound.Columns((discrete.Categorical(logits), numbers), ((1,), (0,)))
    weights = jnp.array([0.3, 0.3, 0.4])
    assert np.exp(logits)[:, 0].T @ weights == pytest.approx([0.25, 0.38, 0.37])
    np.testing.assert_allclose(columns.mixture_mean(weights), [0.3 + 0.6 + 2.4, 1], rtol=1e-6)
    np.testing.assert_allclose(compound.Missing(columns).mixture_mean(weights), [3.3, 1], rtol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_contributions_are_the_expected_log_densities(exact):
    oracle, copies = linear_gaussian(exact=exact), 200
    x, c = oracle.repeated(copies)
    terms = cvae.contributions(*oracle[:2], jax.random.key(3), x, c, num_samples=300, batch_size=600)
    terms = terms.reshape(BATCH, copies, EVENT).astype(np.float64)
    p, values, f, _ = oracle.double()
    mean, covariance = oracle.exact_posterior()
    residual = values - mean @ p["W"].T - f @ p["V"].T
    spread = np.einsum("di,bij,dj->bd", p["W"], covariance, p["W"])
    expected = -0.5 * np.log(2 * np.pi * NOISE**2) - (residual**2 + spread) / (2 * NOISE**2)
    error = terms.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(np.abs(terms.mean(axis=1) - expected) < 5 * error)
    relative = cvae.contributions(*oracle[:2], jax.random.key(4), x, c, num_samples=300, relative=True)
    relative = relative.reshape(BATCH, copies, EVENT).astype(np.float64)
    usual = -0.5 * np.log(2 * np.pi * np.e * NOISE**2)  # less the entropy of the noise
    error = relative.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(np.abs(relative.mean(axis=1) - (expected - usual)) < 5 * error)
    total = terms.sum(axis=2)
    assert np.all(np.abs(total.mean(axis=1) - expected.sum(axis=1)) < 5 * total.std(axis=1) / np.sqrt(copies))


def test_missing_elements_contribute_nothing():
    oracle = with_missing(exact=False)
    x = np.where(HIDDEN, np.nan, oracle.x)
    for relative in (False, True):
        terms = cvae.contributions(
            *oracle[:2], jax.random.key(3), x, oracle.c, num_samples=10, relative=relative
        )  # fmt: skip
        assert np.all((terms == 0) == HIDDEN)


def test_the_moments_of_a_posterior():
    oracle = linear_gaussian(exact=True)
    found = posterior_moments(*oracle[:2], jax.random.key(0), oracle.x, oracle.c)
    mean, covariance = oracle.exact_posterior()
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(found.std, np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), rtol=1e-4)


def test_the_moments_of_a_ladder_are_those_of_its_draws():
    """The second layer's mean depends on the first layer: its variance is that of both."""
    ladder = linear_ladder(exact=False)
    architecture = cvae.Architecture((EVENT,), cvae.Label(3), 2, latent_layers=2, likelihood=cvae.Normal())
    count = 2000
    # One example, as the oracle's encoder gives the posteriors of its three and reads no x.
    model = ladder.model._replace(
        encode=lambda params, x, c: jax.tree.map(lambda leaf: leaf[:1] if leaf.ndim == 2 else leaf,
                                                 ladder.model.encode(params, x, c)),
        architecture=architecture,
    )  # fmt: skip
    found = posterior_moments(model, {}, jax.random.key(0), ladder.x[:1], {"label": np.array([0])}, num_samples=count)
    variance = np.diag(ladder.posterior_covariance)
    assert np.all(np.abs(found.mean[0] - ladder.posterior_mean[0]) < 5 * np.sqrt(variance / count))
    np.testing.assert_allclose(found.std[0], np.sqrt(variance), rtol=5 / np.sqrt(2 * count))


@pytest.mark.parametrize(
    ("condition", "change", "message"),
    [
        ("row", {}, "model must have a likelihood cvae.Missing .*, got 'Normal'"),
        ("image", {}, "model must have missing elements in x .*cvae.sample"),
        ("missing", {"num_draws": 0}, "num_draws must be an integer of at least 1, got 0"),
        ("missing", {"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
    ],
)
def test_what_cannot_be_imputed_is_refused(condition, change, message):
    if condition == "missing":
        oracle = with_missing(exact=True)
    else:
        conditions = {"row": cvae.Continuous(4, name="row"), "image": cvae.Image((EVENT,), "given")}
        oracle = linear_gaussian(exact=True, condition=conditions[condition])
    with pytest.raises(ValueError, match=message):
        cvae.impute(*oracle[:2], jax.random.key(0), oracle.x, oracle.c, **change)
