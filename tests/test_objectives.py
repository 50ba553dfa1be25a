"""The objectives against exact answers of linear-Gaussian models, for every condition, and their laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from tests.conftest import weights
from tests.oracles import (
    BATCH,
    CONDITIONS,
    EVENT,
    LATENT,
    NOISE,
    linear_gaussian,
    linear_ladder,
    quickly_compiled,
)

SAMPLES, FEW, MANY = 4000, 5, 24
every_condition = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())


@pytest.fixture(autouse=True, scope="module")
def _quickly_compiled():
    with quickly_compiled():
        yield


def draws(oracle, score, seed: int) -> np.ndarray:
    """`score(model, params, key, x, c)` for many keys, [4000, 3] in double precision."""
    keys = jax.random.split(jax.random.key(seed), SAMPLES)
    drawn = jax.jit(jax.vmap(lambda key: score(oracle.model, oracle.params, key, oracle.x, oracle.c)))(keys)
    return np.asarray(drawn, np.float64)


def elbo_of(num_samples: int = 1):
    """A score: the value of the ELBO."""
    return lambda *arguments: cvae.elbo(*arguments, num_samples=num_samples).value


def iwae_of(num_samples: int):
    """A score: the bound of so many samples."""
    return partial(cvae.iwae, num_samples=num_samples)


def error(values) -> np.ndarray:
    """Standard error of the mean of draws."""
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def gap(oracle) -> np.ndarray:
    """KL(q(z | x, c) || p(z | x, c)), [B], from the exact posterior: what the ELBO falls short by."""
    q = oracle.model.encode(oracle.params, oracle.x, oracle.c)
    mean, covariance = oracle.exact_posterior()
    variance = np.exp(2 * np.asarray(q.log_std, np.float64))
    precision, shift = np.linalg.inv(covariance), np.asarray(q.mean, np.float64) - mean
    trace = np.einsum("bi,bii->b", variance, precision)
    distance = np.einsum("bi,bij,bj->b", shift, precision, shift)
    return 0.5 * (trace + distance - LATENT + np.linalg.slogdet(covariance)[1] - np.log(variance).sum(axis=1))


@every_condition
def test_with_the_exact_posterior_every_draw_of_a_weight_is_log_p(condition):
    """No variance at all: log p(x | z, c) p(z | c) / p(z | x, c) is log p(x | c) whatever z is."""
    oracle = linear_gaussian(exact=True, condition=condition)
    weights = cvae.log_weights(
        oracle.model, oracle.params, jax.random.key(1), oracle.x, oracle.c, num_samples=7
    )  # fmt: skip
    assert weights.log_likelihood.shape == weights.log_ratio.shape == weights.value.shape == (7, BATCH)
    assert np.all(np.ptp(weights.log_likelihood, axis=0) > 0.1)
    np.testing.assert_allclose(weights.value, np.tile(oracle.exact_log_prob(), (7, 1)), rtol=1e-5)


@every_condition
def test_the_order_of_the_bounds(condition):
    """ELBO = log p - KL(q || posterior) = IWAE-1 < IWAE-5 <= log p, in expectation."""
    oracle = linear_gaussian(exact=False, condition=condition)
    exact, lost = oracle.exact_log_prob(), gap(oracle)
    elbo, one, few = draws(oracle, elbo_of(), 5), draws(oracle, iwae_of(1), 6), draws(oracle, iwae_of(FEW), 7)
    assert np.all(lost > 10 * error(elbo)), "the encoder must be wrong by more than the noise"
    assert np.all(np.abs(elbo.mean(axis=0) - (exact - lost)) < 5 * error(elbo))
    assert np.all(np.abs(one.mean(axis=0) - (exact - lost)) < 5 * error(one))
    assert np.all(few.mean(axis=0) - one.mean(axis=0) > 5 * np.hypot(error(one), error(few)))
    assert np.all(few.mean(axis=0) < exact + 5 * error(few))


def test_the_bound_goes_on_rising_with_more_samples():
    oracle = linear_gaussian(exact=False)
    few, many = draws(oracle, iwae_of(FEW), 7), draws(oracle, iwae_of(MANY), 8)
    assert np.all(many.mean(axis=0) - few.mean(axis=0) > 5 * np.hypot(error(few), error(many)))
    assert np.all(many.mean(axis=0) < oracle.exact_log_prob() + 5 * error(many))


def test_more_samples_keep_the_mean_of_the_elbo_and_shrink_its_spread():
    oracle = linear_gaussian(exact=False)
    one, many = draws(oracle, elbo_of(), 5), draws(oracle, elbo_of(MANY), 9)
    assert np.all(np.abs(one.mean(axis=0) - many.mean(axis=0)) < 5 * np.hypot(error(one), error(many)))
    # A variance of N draws has the standard error sqrt((kurtosis - 1) / N) of itself.
    kurtosis = np.mean((one - one.mean(axis=0)) ** 4, axis=0) / one.var(axis=0) ** 2
    ratio = MANY * many.var(axis=0) / one.var(axis=0)
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 * (kurtosis - 1) / SAMPLES))


def test_the_oracle_tells_right_from_wrong():
    """What the other tests rely on: a weight or a bound that lacks something, or has a sign wrong, is not log p."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["mixed"])
    model, params, x, c = oracle[:4]
    q, p = model.encode(params, x, c), model.prior(params, c)

    def logs(key):
        z = q.sample(key)
        return model.decode(params, z, c).log_prob(x), p.log_prob(z), q.log_prob(z)

    log_likelihood, log_p, log_q = (
        np.asarray(log, np.float64) for log in jax.vmap(logs)(jax.random.split(jax.random.key(2), SAMPLES))
    )

    def is_unbiased(log_w):
        ratio = np.exp(log_w - oracle.exact_log_prob())
        return np.all(np.abs(ratio.mean(axis=0) - 1) < 5 * error(ratio))

    assert is_unbiased(log_likelihood + log_p - log_q)
    assert not is_unbiased(log_likelihood)
    assert not is_unbiased(log_likelihood + log_p)
    assert not is_unbiased(log_likelihood - log_q)
    assert not is_unbiased(log_likelihood + log_q - log_p)
    elbo = log_likelihood - np.asarray(cvae.kl_divergence(p, q))  # swapped
    assert np.any(np.abs(elbo.mean(axis=0) - (oracle.exact_log_prob() - gap(oracle))) > 5 * error(elbo))


def test_the_exact_answer_counts_hidden_elements_only():
    """A picture that is all but given leaves little to explain; and the given values are no part of the answer."""
    oracle = linear_gaussian(exact=True, condition=CONDITIONS["image"])
    seen = np.asarray(oracle.c["observed"])
    other = oracle._replace(x=jnp.where(seen, 99.0, oracle.x))
    np.testing.assert_array_equal(other.exact_log_prob(), oracle.exact_log_prob())
    bounds = [cvae.elbo(o.model, o.params, jax.random.key(3), o.x, o.c).value for o in (oracle, other)]
    np.testing.assert_array_equal(*bounds)
    assert seen.any(axis=1).all()
    assert not seen.all(axis=1).any()


# A model whose posterior and prior are its parameters, so that every KL is known; the decoder hears no z.
POSTERIORS = {
    "mean": jnp.array([[0.1, 2.0, 0.0], [0.2, -1.0, 0.1], [0.0, 1.5, 0.4], [-0.1, 0.5, 0.8]]),
    "log_std": jnp.array([[-0.1, -1.0, 0.0], [0.0, -0.5, 0.1], [0.1, -2.0, -0.2], [0.0, -0.7, 0.0]]),
    "prior": jnp.array([[0.1, 0.3, -0.2]]),
    "level": jnp.array(0.5),
}


def stated(params, x, c):
    return cvae.Normal(params["mean"], params["log_std"])


STATED = cvae.CVAE(
    lambda key: POSTERIORS,
    stated,
    lambda params, c: cvae.Normal(params["prior"], jnp.zeros((1, 3))),
    lambda params, z, c: cvae.Normal(jnp.full((len(z), 2), params["level"]), jnp.zeros((len(z), 2))),
)
X = jnp.array([[0.1, 0.2], [1.0, -1.0], [0.3, 0.0], [2.0, 0.4]])


def stated_kl() -> np.ndarray:
    """KL of the posteriors to the prior, [4, 3], the prior's standard deviation being 1."""
    mean, log_std, prior = (np.asarray(POSTERIORS[name], np.float64) for name in ("mean", "log_std", "prior"))
    return 0.5 * (np.exp(2 * log_std) + (mean - prior) ** 2 - 1) - log_std


def test_a_prior_of_one_row_serves_the_whole_batch(key):
    np.testing.assert_allclose(cvae.elbo(STATED, POSTERIORS, key, X, {}).kl, stated_kl().sum(axis=1), rtol=1e-5)


def test_free_bits_are_paid_by_the_mean_over_the_batch(key):
    """Latents below the threshold cost it, those above cost their KL: sum_d max(free_bits, mean_b KL_bd)."""
    kl, free = stated_kl(), 0.3
    assert (kl.mean(axis=0) < free).tolist() == [True, False, True]
    assert np.any(kl[:, 2] > free), "the maximum is of the mean, not of each example"
    terms = cvae.elbo(STATED, POSTERIORS, key, X, {}, free_bits=free, beta=2.0)
    expected = 2 * np.maximum(free, kl.mean(axis=0)).sum()
    assert float(terms.penalty.mean()) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(terms.kl, kl.sum(axis=1), rtol=1e-5)  # what is reported stays the KL
    np.testing.assert_allclose(terms.value, terms.log_likelihood - terms.penalty, rtol=1e-6)


def test_below_free_bits_no_gradient_is_left(key):
    def loss(params, free_bits):
        return -cvae.elbo(STATED, params, key, X, {}, free_bits=free_bits).value.mean()

    punished = jax.grad(loss)(POSTERIORS, 0.0)
    free = jax.grad(loss)(POSTERIORS, 0.3)
    for name in ("mean", "log_std", "prior"):
        assert np.all(np.any(np.asarray(punished[name]) != 0, axis=0)), "without free bits every latent is punished"
        np.testing.assert_array_equal(free[name][:, [0, 2]], 0)
        np.testing.assert_array_equal(free[name][:, 1], punished[name][:, 1])
    np.testing.assert_array_equal(free["level"], punished["level"])


def test_terms_have_names_and_one_value_an_example(labelled, key):
    terms = cvae.elbo(labelled.model, labelled.params, key, labelled.x, labelled.c, beta=0.25)
    assert terms._fields == ("log_likelihood", "kl", "penalty")
    assert [term.shape for term in (*terms, terms.value)] == [(3,)] * 4
    np.testing.assert_array_equal(terms.penalty, 0.25 * terms.kl)
    np.testing.assert_array_equal(terms.value, terms.log_likelihood - terms.penalty)
    assert np.all(terms.kl > 0)


def test_beta_is_an_array_that_vmap_runs_over(key):
    oracle = linear_gaussian(exact=False)
    betas = jnp.array([0.0, 1.0, 4.0])

    def value(beta):
        return cvae.elbo(oracle.model, oracle.params, key, oracle.x, oracle.c, beta=beta)

    swept, each = jax.vmap(value)(betas), value(betas)
    assert swept.value.shape == (3, BATCH)
    for i, beta in enumerate((0.0, 1.0, 4.0)):
        alone = value(beta)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), swept, alone)
        # One beta an example: each has its own.
        np.testing.assert_allclose(each.penalty[i], alone.penalty[i], rtol=1e-6)
    assert np.all(np.diff(swept.value, axis=0) < 0)


def test_an_example_does_not_see_its_neighbours(key):
    """In nats per example: the terms of a batch are those of its examples, whatever their order."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["mixed"])
    order = np.array([2, 0, 1])
    c = {name: value[order] for name, value in oracle.c.items()}
    terms = cvae.elbo(oracle.model, oracle.params, key, oracle.x, oracle.c)
    turned = cvae.elbo(oracle.model, oracle.params, key, oracle.x[order], c)
    np.testing.assert_allclose(turned.kl, terms.kl[order], rtol=1e-5)
    assert len(set(np.asarray(terms.kl).tolist())) == BATCH
    assert oracle.x.shape == (BATCH, EVENT)


def test_the_weights_mean_log_ratio_is_the_kl():
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["label"])
    model, params, x, c = oracle[:4]
    ratio = cvae.log_weights(model, params, jax.random.key(4), x, c, num_samples=SAMPLES).log_ratio
    ratio = np.asarray(ratio, np.float64)
    exact = np.asarray(cvae.kl_divergence(model.encode(params, x, c), model.prior(params, c)))
    assert np.all(np.abs(ratio.mean(axis=0) - exact) < 5 * error(ratio))


@pytest.mark.parametrize("function", [cvae.elbo, cvae.iwae, cvae.log_weights], ids=lambda f: f.__name__)
@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_num_samples_must_be_a_whole_number(key, function, num_samples):
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1, got"):
        function(STATED, POSTERIORS, key, X, {}, num_samples=num_samples)


@pytest.mark.parametrize("free_bits", [-0.1, np.nan, np.inf])
def test_free_bits_must_be_a_number_of_at_least_nought(key, free_bits):
    with pytest.raises(ValueError, match="free_bits must be a finite number of at least 0, got"):
        cvae.elbo(STATED, POSTERIORS, key, X, {}, free_bits=free_bits)


def ladder_draws(oracle, score, seed: int) -> np.ndarray:
    """`score(model, params, key, x, c)` for many keys, in double precision."""
    keys = jax.random.split(jax.random.key(seed), SAMPLES)
    drawn = jax.jit(jax.vmap(lambda key: score(oracle.model, {}, key, oracle.x, oracle.c)))(keys)
    return np.asarray(drawn, np.float64)


def test_of_a_ladder_every_weight_of_the_exact_posterior_is_log_p():
    oracle = linear_ladder(exact=True)
    weights = cvae.log_weights(oracle.model, {}, jax.random.key(1), oracle.x, oracle.c, num_samples=50).value
    np.testing.assert_allclose(weights, np.tile(oracle.exact_log_prob(), (50, 1)), atol=2e-4)


@pytest.mark.parametrize("proposal", ["posterior", "prior"])
def test_of_a_ladder_the_weights_mean_is_p(proposal):
    oracle = linear_ladder(exact=False)
    score = partial(cvae.log_weights, num_samples=1, proposal=proposal)
    ratio = np.exp(ladder_draws(oracle, lambda *a: score(*a).value[0], 2) - oracle.exact_log_prob())
    assert np.all(np.abs(ratio.mean(axis=0) - 1) < 5 * error(ratio))


def test_of_a_ladder_the_kl_is_that_of_both_layers_together():
    oracle = linear_ladder(exact=False)
    kl = ladder_draws(oracle, lambda *a: cvae.elbo(*a).kl, 3)
    assert np.all(kl.std(axis=0) > 1e-3)  # an estimate: the second layer's depends on the first's draw
    assert np.all(np.abs(kl.mean(axis=0) - oracle.exact_kl()) < 5 * error(kl))


def test_of_a_ladder_the_elbo_falls_short_of_log_p_by_the_kl_to_the_exact_posterior():
    oracle, truth = linear_ladder(exact=False), linear_ladder(exact=True)
    posterior = {"prior_mean": truth.posterior_mean, "prior_covariance": truth.posterior_covariance}
    stated = {"posterior_mean": oracle.posterior_mean, "posterior_covariance": oracle.posterior_covariance}
    q = truth._replace(**posterior, **stated)
    values = ladder_draws(oracle, elbo_of(), 4)
    assert np.all(q.exact_kl() > 0.1)
    assert np.all(np.abs(values.mean(axis=0) - (oracle.exact_log_prob() - q.exact_kl())) < 5 * error(values))


def gsnn_of(oracle) -> np.ndarray:
    """E_{p(z | c)} log p(x | z, c), [B]: a Gaussian's at the mean, less what the spread of z costs."""
    p, x, f, _ = oracle._double()
    mean = (p["m0"] + f @ p["M"].T) @ p["W"].T + f @ p["V"].T
    spread = np.trace(p["W"] @ np.diag(np.exp(2 * p["log_s0"])) @ p["W"].T)
    constant = EVENT * np.log(NOISE * np.sqrt(2 * np.pi))
    return -(((x - mean) ** 2).sum(axis=1) + spread) / (2 * NOISE**2) - constant


@pytest.mark.parametrize("name", ["nothing", "label", "continuous"])
def test_from_the_prior_the_elbo_is_the_expected_log_likelihood(name):
    oracle = linear_gaussian(exact=False, condition=CONDITIONS[name])
    values = draws(oracle, lambda *a: cvae.elbo(*a, proposal="prior").value, 5)
    assert np.all(np.abs(values.mean(axis=0) - gsnn_of(oracle)) < 5 * error(values))
    terms = cvae.elbo(oracle.model, oracle.params, jax.random.key(0), oracle.x, oracle.c, proposal="prior")
    assert terms.kl.shape == terms.value.shape == (BATCH,)
    assert not np.any(terms.kl)


def test_the_hybrid_is_the_cvae_at_one_and_the_gsnn_at_nought():
    oracle, key = linear_gaussian(exact=False), jax.random.key(6)
    arguments = oracle.model, oracle.params, key, oracle.x, oracle.c
    hybrid = cvae.objectives.hybrid
    of_cvae, of_gsnn = cvae.elbo(*arguments, beta=0.5), cvae.elbo(*arguments, proposal="prior")
    jax.tree.map(np.testing.assert_array_equal, hybrid(*arguments, alpha=1, beta=0.5), of_cvae)
    jax.tree.map(np.testing.assert_array_equal, hybrid(*arguments, alpha=0, beta=0.5), of_gsnn)
    mixed = draws(oracle, lambda *a: hybrid(*a, alpha=0.3).value, 7)
    expected = 0.3 * (oracle.exact_log_prob() - gap(oracle)) + 0.7 * gsnn_of(oracle)
    assert np.all(np.abs(mixed.mean(axis=0) - expected) < 5 * error(mixed))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"alpha": 1.5}, "alpha must be a number from 0 to 1, got 1.5"), ({"alpha": "all"}, "alpha must be a number")],
)
def test_a_bad_mixture_is_refused(change, message):
    oracle = linear_gaussian(exact=False)
    with pytest.raises(ValueError, match=message):
        cvae.objectives.hybrid(oracle.model, oracle.params, jax.random.key(0), oracle.x, oracle.c, **change)


@pytest.mark.parametrize("proposal", ["posterior", "prior"])
@pytest.mark.parametrize("score", [cvae.elbo, cvae.log_weights])
@pytest.mark.parametrize("layers", [1, 2])
def test_x_is_looked_at_whatever_proposes(score, proposal, layers):
    """Also where what is seen makes the likelihood `Partial`, which takes any numbers."""
    shape = (2, 3, 1)
    model = cvae.make(
        cvae.Architecture(shape, cvae.Image(shape, "left_half"), 2, (5,), prior="learned", latent_layers=layers)
    )
    params, rng = weights(model), np.random.default_rng(0)
    seen = np.broadcast_to(cvae.masks.fixed("left_half", shape), (3, *shape))
    x = rng.random((3, *shape), dtype=np.float32)
    c = {"image": np.where(seen, x, 0), "observed": seen}
    calling = partial(score, model, params, jax.random.key(0), proposal=proposal)
    assert np.all(np.isfinite(calling(x, c).value))
    for wrong, message in (
        ((255 * x).astype(np.uint8), r"x must be floats in \[0, 1\]"),
        (x * np.nan, r"x must be floats in \[0, 1\], got 18 NaN"),
        (x.tolist(), "x must be an array"),
        (x[:1], r"c\['image'\] must hold one entry an example of x, 1 of them, got 3"),
        (x[..., 0], r"x must have shape \[B, 2, 3, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            calling(wrong, c)


def test_an_unknown_proposal_is_refused():
    oracle = linear_gaussian(exact=False)
    with pytest.raises(ValueError, match="proposal must be one of posterior, prior, got 'encoder'"):
        cvae.log_weights(oracle.model, oracle.params, jax.random.key(0), oracle.x, oracle.c, proposal="encoder")
