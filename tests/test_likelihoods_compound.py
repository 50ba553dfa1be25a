"""Likelihoods of positive numbers, of tables and of what is not missing; NaN neither hides a value nor spoils one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import cvae
from cvae.origin import at_origin
from cvae.settings import from_json, replace, to_json
from tests.conftest import build

RNG = np.random.default_rng(0)
SIZE = 60
PRICE = np.exp(RNG.normal([7.0, -3.0], [1.2, 0.4], (SIZE, 2)))
TABLE = np.column_stack(
    [
        RNG.integers(0, 3, SIZE),  # a category
        1.7e9 + RNG.normal(0, 300, SIZE),  # Unix seconds
        RNG.poisson(2.0, SIZE),
        PRICE[:, 0],
        RNG.random(SIZE) < 0.4,
        RNG.normal(5.0, 2.0, SIZE),
    ]
)
HOLES = RNG.random(TABLE.shape) < 0.3
HOLES[0] = True  # a row of which nothing is known
GAPS = np.where(HOLES, np.nan, TABLE)


def columns_of(x, kind=cvae.NegativeBinomial):
    """The likelihood of such a table."""
    parts = (cvae.Normal.fitted(x[:, [1, 5]]), cvae.Categorical(3), kind.fitted(x[:, [2]]))
    return cvae.Columns((*parts, cvae.LogNormal.fitted(x[:, [3]]), cvae.Bernoulli()), ((1, 5), (0,), (2,), (3,), (4,)))


COLUMNS = columns_of(TABLE)
MISSING = cvae.Missing(columns_of(GAPS))


def example(likelihood, **fields):
    """A model of such a table."""
    return build(cvae.Unconditional(), event_shape=(6,), likelihood=likelihood, hidden=(7,), **fields)


# Positive numbers


def test_a_log_normal_is_that_of_the_data_in_the_units_of_x():
    family = cvae.LogNormal.fitted(PRICE, std=1.0)
    logs = np.log(PRICE)
    np.testing.assert_allclose(family.location, logs.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(family.scale, logs.std(axis=0), rtol=1e-9)
    exact = stats.lognorm(logs.std(axis=0), scale=np.exp(logs.mean(axis=0)))
    distribution = family.distribution(jnp.zeros((SIZE, 2)), (2,))
    np.testing.assert_allclose(distribution.log_prob(PRICE), exact.logpdf(PRICE).sum(axis=1), rtol=1e-5)
    for x in (PRICE, jnp.asarray(PRICE, jnp.float32)):
        np.testing.assert_allclose(family.features(x), (logs - logs.mean(axis=0)) / logs.std(axis=0), atol=1e-4)
    holes = np.where(RNG.random(PRICE.shape) < 0.2, np.nan, PRICE)
    np.testing.assert_allclose(cvae.LogNormal.fitted(holes).location, np.nanmean(np.log(holes), axis=0))
    assert family.origin is None
    assert family.at_origin() == family
    assert isinstance(family, cvae.LogNormal)


def test_a_constant_column_of_positive_numbers_counts_0_nats():
    x = np.column_stack([PRICE[:, 0], np.full(SIZE, 7.0)])
    family = cvae.LogNormal.fitted(x, std=1.0)
    assert family.scale[1] == 0
    distribution = family.distribution(jnp.zeros((SIZE, 2)), (2,))
    np.testing.assert_array_equal(np.asarray(distribution.log_terms(distribution.cast(x)))[:, 1], 0)


# Values with a probability of their own


def test_a_value_with_a_probability_of_its_own_is_not_seen_by_the_base():
    x = np.where(RNG.random(PRICE.shape) < 0.3, [0.0, 5.0], PRICE)
    others = np.where(x == [0.0, 5.0], np.nan, x)
    base = cvae.LogNormal.fitted(others, std=1.0)
    family = cvae.PointMass(base, (0.0, 5.0))
    assert family.num_outputs((2,)) == base.num_outputs((2,)) + 2
    expected = np.concatenate([np.nan_to_num(base.features(others)), x == [0.0, 5.0]], axis=1)
    for rows in (x, jnp.asarray(x, jnp.float32)):
        np.testing.assert_allclose(family.features(rows), expected, atol=1e-4)
    density = family.distribution(jnp.zeros((SIZE, 4)), (2,))
    exact = np.where(np.isnan(others), 0, stats.lognorm(base.scale, scale=np.exp(base.location)).logpdf(others))
    np.testing.assert_allclose(density.log_prob(x), (exact - np.log(2)).sum(axis=1), rtol=1e-5)


def test_the_outputs_of_a_point_mass_are_the_bases_and_a_logit_for_each_element():
    family = cvae.PointMass(cvae.Normal(), (0.0,))
    outputs = jnp.asarray(RNG.normal(size=(4, 3 * 6)), jnp.float32)
    density, each = family.distribution(outputs, (2, 3)), outputs.reshape(4, 2, 3, 3)
    np.testing.assert_array_equal(density.logit, each[..., 2])
    base = cvae.Normal().distribution(each[..., :2].reshape(4, -1), (2, 3))
    np.testing.assert_array_equal(density.base.base.mean, base.base.mean)


def test_a_point_mass_is_refused_around_counts_and_below_positive_numbers():
    with pytest.raises(ValueError, match="base must be a Normal or a LogNormal"):
        cvae.PointMass(cvae.Poisson())
    with pytest.raises(ValueError, match="value must be 0 or positive"):
        cvae.PointMass(cvae.LogNormal(), (-1.0,))


# Tables


def test_outputs_and_features_of_a_table_are_those_of_its_parts():
    each = list(zip(COLUMNS.parts, COLUMNS.columns, strict=True))
    sizes = [part.num_outputs((len(columns),)) for part, columns in each]
    assert COLUMNS.num_outputs((6,)) == sum(sizes) == 4 + 3 + 2 + 2 + 1
    outputs = RNG.normal(size=(SIZE, sum(sizes))).astype(np.float32)
    found = COLUMNS.distribution(outputs, (6,))
    expected, start = np.zeros(SIZE), 0
    for (part, columns), size in zip(each, sizes, strict=True):
        alone = part.distribution(jnp.asarray(outputs[:, start : start + size]), (len(columns),))
        expected = expected + alone.log_prob(TABLE[:, columns])
        start += size
    np.testing.assert_allclose(found.log_prob(TABLE), expected, rtol=1e-5)
    features = np.concatenate([part.features(TABLE[:, columns]) for part, columns in each], axis=1)
    np.testing.assert_array_equal(COLUMNS.features(TABLE), features)
    assert COLUMNS.feature_shape((6,)) == features.shape[1:]


def test_what_varies_far_from_0_is_scored_on_a_device_too():
    """Case 8: Unix seconds are moved to the origin before they become float32."""
    assert COLUMNS.origin is not None
    assert COLUMNS.origin[0] == COLUMNS.origin[2] == COLUMNS.origin[3] == 0
    for likelihood, x in ((COLUMNS, TABLE), (MISSING, GAPS)):
        model, params, _, _ = example(likelihood)
        moved, moved_x, _ = at_origin(model, x, {})
        assert moved_x.dtype == np.float32
        key = jax.random.key(1)
        one = cvae.elbo(model, params, key, x, {}).value
        two = cvae.elbo(moved, params, key, jnp.asarray(moved_x), {}).value
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)
    assert np.asarray(COLUMNS.features(TABLE))[:, 0].std() == pytest.approx(1, rel=1e-4)


def test_integers_are_taken_as_they_are():
    whole = np.rint(TABLE).astype(np.int64) + (np.arange(6) == 3)
    model, params, _, _ = example(COLUMNS)
    one, two = (cvae.elbo(model, params, jax.random.key(1), x, {}).value for x in (whole, whole.astype(float)))
    np.testing.assert_allclose(one, two, rtol=1e-6)


# Missing cells


def test_the_encoder_sees_which_cells_are_missing_and_nothing_else_of_them():
    features = np.asarray(MISSING.features(GAPS))
    np.testing.assert_array_equal(features[:, -6:], ~HOLES)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[0], 0)
    whole = np.asarray(MISSING.features(TABLE))
    np.testing.assert_allclose(features[:, 0], np.where(HOLES[:, 1], 0, whole[:, 0]), rtol=1e-5)
    image = cvae.Missing(cvae.Normal())
    assert image.feature_shape((4, 4, 3)) == (4, 4, 6)
    assert cvae.Missing(cvae.Categorical(3)).feature_shape((2,)) == (8,)


def test_the_density_is_that_of_the_observed_cells():
    model, params, _, _ = example(MISSING)
    z = RNG.normal(size=(SIZE, 4)).astype(np.float32)
    px = model.decode(params, z, {})
    terms = np.asarray(px.base.log_terms(px.base.cast(TABLE)))
    np.testing.assert_allclose(px.log_prob(GAPS), np.where(HOLES, 0, terms).sum(axis=1), rtol=1e-4, atol=1e-4)
    elbo = cvae.elbo(model, params, jax.random.key(2), GAPS, {})
    assert elbo.log_likelihood[0] == 0
    assert np.isfinite(elbo.value).all()


def test_gradients_are_finite_with_missing_cells():
    model, params, _, _ = example(MISSING)
    moved, x, _ = at_origin(model, GAPS, {})

    def mean_elbo(params, x):
        return cvae.elbo(moved, params, jax.random.key(2), x, {}).value.mean()

    slopes = jax.jit(jax.grad(mean_elbo))(params, x)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    concrete = jax.grad(mean_elbo)(params, x)  # x is concrete, the parameters are traced
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), slopes, concrete)


@pytest.mark.parametrize("kind", [cvae.NegativeBinomial, cvae.Poisson])
def test_missing_cells_have_no_gradient(kind):
    model, params, _, _ = example(cvae.Missing(columns_of(GAPS, kind)))
    moved, x, _ = at_origin(model, GAPS, {})
    slopes = jax.grad(lambda x: cvae.elbo(moved, params, jax.random.key(2), x, {}).value.sum())(jnp.asarray(x))
    np.testing.assert_array_equal(slopes[HOLES], 0)
    assert np.isfinite(slopes).all()
    assert (slopes[:, [1, 2, 3, 4, 5]][~HOLES[:, [1, 2, 3, 4, 5]]] != 0).all()


@pytest.mark.parametrize("body", ["mlp", "residual", "convolutional"])
def test_missing_pixels_are_left_out_by_every_body(body):
    event, x = (4, 5, 1), RNG.random((3, 4, 5, 1), np.float32)
    x[RNG.random(x.shape) < 0.3] = np.nan
    fields = {"event_shape": event, "body": body, "hidden": (3, 7)}
    model, params, _, _ = build(cvae.Unconditional(), likelihood=cvae.Missing(cvae.DiscretizedLogistic()), **fields)
    assert np.isfinite(jax.jit(lambda x: cvae.elbo(model, params, jax.random.key(0), x, {}).value)(x)).all()


def test_a_fit_of_a_table_with_missing_cells_learns():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(600, 1))
    x = 40 + z * [3.0, -2.0, 1.0] + 0.3 * rng.normal(size=(600, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    likelihood = cvae.Missing(cvae.Columns((cvae.Normal.fitted(x),), ((0, 1, 2),)))
    model = cvae.make(cvae.Architecture((3,), latent_size=1, hidden=(16,), likelihood=likelihood))
    key = jax.random.key(0)
    fitted = cvae.fit(model, model.init(key), key, x, {}, cvae.Training(epochs=80, learning_rate=0.01), progress=False)
    losses = [float(epoch.train.loss) for epoch in fitted.history]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.5
    scores = np.asarray(cvae.elbo(model, fitted.params, key, x, {}).value)
    # Of independent columns, each known to its standard deviation: what the latent adds is learned.
    alone = stats.norm(np.nanmean(x, axis=0), np.nanstd(x, axis=0)).logpdf(x)
    assert scores.mean() > np.nansum(alone, axis=1).mean() + 0.3


# Settings


@pytest.mark.parametrize(
    "family", [COLUMNS, MISSING, columns_of(TABLE, cvae.Poisson)], ids=["columns", "gaps", "counts"]
)
def test_tables_are_hashable_settings_and_go_to_json_and_back(family):
    architecture = cvae.Architecture((6,), likelihood=family)
    copy = from_json(cvae.Architecture, to_json(architecture))
    assert copy == architecture
    assert hash(copy) == hash(architecture)
    assert cvae.make(copy) is cvae.make(architecture)
    assert replace(family) == family
    assert family.at_origin().origin is None


IMAGE = cvae.Image((6,), "random_pixels")
BAD = {
    "twice": (lambda: cvae.Columns((cvae.Normal(),), ((0, 0),)), r"^columns must hold every column once, got \(\(0, 0"),
    "a gap": (lambda: cvae.Columns((cvae.Normal(),), ((0, 2),)), "^columns must hold every column once"),
    "pairs": (lambda: cvae.Columns((cvae.Normal(),), ((0,), (1,))), "^columns must hold the columns of each of the 1"),
    "no part": (lambda: cvae.Columns((), ()), "^parts must have at least 1 item"),
    "nested": (lambda: cvae.Columns((COLUMNS,), ((0, 1),)), "^parts must be other than Columns and Missing, which is"),
    "missing inside": (lambda: cvae.Columns((cvae.Missing(cvae.Normal()),), ((0,),)), "^parts must be other than Col"),
    "missing twice": (lambda: cvae.Missing(MISSING), "^base must be other than Missing, got Missing"),
    "width": (
        lambda: cvae.make(cvae.Architecture((5,), likelihood=COLUMNS)),
        r"^event_shape must be \(6,\), the columns of the likelihood, got \(5,\)",
    ),
    "no class": (lambda: cvae.Columns((cvae.Normal,), ((0,),)), r"^likelihood must be a cvae\.Likelihood, such as"),
    "image": (
        lambda: cvae.Architecture((6,), IMAGE, likelihood=MISSING),
        "^likelihood must be other than Missing where c holds a part of x",
    ),
    "not positive": (lambda: cvae.LogNormal.fitted(PRICE - 1), r"^x must be real numbers, in \[1e-30, inf\], or NaN"),
    "narrow": (
        lambda: cvae.LogNormal.fitted(1.7e9 + RNG.uniform(0, 1200, (50, 1))),
        r"^x must vary by 0\.0001 of its size at least \(or be scored by a Normal\), got [12]\.\d+e-07",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("construct", "message"), BAD.values(), ids=BAD.keys())
def test_bad_tables_are_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


def test_bad_cells_are_refused_by_column_and_row():
    model, params, _, _ = example(COLUMNS)
    for x, message in (
        (GAPS, r"^x must be real numbers, all finite, got nan at row 0, element \(0,\)"),
        (TABLE + 3 * (np.arange(6) == 0), r"^x\[\.\.\., 0\] must be whole numbers in \[0, 3\), got \d at row 0$"),
        (
            TABLE + 0.5 * (np.arange(6) == 2),
            r"^x\[\.\.\., 2\] must be whole numbers in \[0, inf\), got \d\.5 at row 0$",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            cvae.elbo(model, params, jax.random.key(0), x, {})
