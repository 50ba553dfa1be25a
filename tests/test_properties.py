"""The public doors, by arrays of any shape, dtype and value: the right answer, or a refusal that names the argument.

An answer is compared with a few lines of NumPy, of double precision where they are a formula. `pytest
--hypothesis-profile=thorough` draws 1,000 cases a function; "quick", the default, enough to see both outcomes of each.
"""

import json
import math
import re
import types
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist
from scipy.special import expit, log_softmax, logsumexp

import cvae
from cvae import arrays, attributes, classification, evaluation, fidelity, masks, preparation
from cvae.config import Config, from_json, to_json
from cvae.distributions import Partial
from cvae.model import check_examples
from cvae.objectives import hybrid
from cvae.training import check_fit
from tests.conftest import BATCH, CLASSES, EVENT, LATENT, build
from tests.oracles import CONDITIONS as ROWS
from tests.oracles import EVENT as ELEMENTS
from tests.oracles import features, quickly_compiled

KEY = jax.random.key(11)
FLOATS = ("bfloat16", "float16", "float32", "float64")
OUTCOMES: Counter[str] = Counter()


@pytest.fixture(autouse=True, scope="module")
def _quickly_compiled():
    with quickly_compiled():
        yield


@pytest.fixture(autouse=True)
def _both_outcomes_are_seen(request):
    """A door that refuses everything would hold, and so would one that is asked for nothing wrong."""
    before = OUTCOMES.copy()
    yield
    seen = OUTCOMES - before
    if seen.total() >= 100:  # of a few cases, all may come out alike
        assert min(seen["answered"], seen["refused"]) >= 5, seen


def held(call, *names):
    """What a call returns, or None where it refuses, in one line, an argument of one of these names."""
    try:
        answer = call()
    except ValueError as error:
        message = str(error)
        assert any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in names), (names, message)
        assert " must " in message, message
        assert "\n" not in message, message
        OUTCOMES["refused"] += 1
        event("refused")
        return None
    OUTCOMES["answered"] += 1
    event("answered")
    return answer


# What is drawn

DTYPES = [
    *(np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
    *(np.dtype(name) for name in ("float16", "float32", "float64", "longdouble", "complex64", "complex128", "object")),
    *(np.dtype(name) for name in (">f4", ">i8", "U3", "S2", "m8[s]", "M8[D]", "f4, i4", "V4")),
    *(np.dtype(name) for name in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4)),
]
VALUES = (0, 1, -1, 2, 254, 0.5, -0.0, 1.001, 3e4, 1e30, 1e39, 1e300, 1e-40, 2.0**33, 2.0**63, np.nan, np.inf, -np.inf)
NO_ARRAYS = [
    lambda: None,
    lambda: True,
    lambda: 3,
    lambda: 10**400,
    lambda: 0.5,
    lambda: math.nan,
    lambda: "text",
    lambda: b"text",
    lambda: [],
    lambda: [[1.0, 0.0], [0.0]],
    lambda: [0, 1, 1],
    lambda: (0.5, 1.0),
    dict,
    lambda: {"label": 1},
    lambda: {1, 2},
    object,
    lambda: np.float32(0.5),
    lambda: np.ndarray,
    lambda: range(3),
    lambda: jax.random.key(0),
    lambda: jax.random.split(jax.random.key(0), 3),
    lambda: jax.ShapeDtypeStruct((3, *EVENT), np.float32),
    lambda: types.SimpleNamespace(shape=(3,), dtype="float32"),
]


def cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in another dtype, whatever becomes of its values; as it is where NumPy knows no way."""
    with np.errstate(all="ignore"):
        try:
            made = array.astype(dtype)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return np.zeros(array.shape, dtype)
    return made


@st.composite
def anything(draw):
    """An array of any shape and dtype, or none at all."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(NO_ARRAYS))()
    shape = draw(st.lists(st.integers(0, 3), max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = np.asarray(draw(st.sampled_from((1.0, 10.0, 1e6))) * rng.normal(size=shape))
    array = cast(values, draw(st.sampled_from(DTYPES)))
    return altered(array, draw(st.sampled_from(VALUES)), draw(st.integers(0, 99)))


def altered(array: np.ndarray, value: float, place: int) -> np.ndarray:
    """One element replaced, if the dtype has such a value."""
    array = array.copy()
    if array.size > 0 and array.dtype.kind not in "SUmM":
        with np.errstate(all="ignore"):
            try:
                array.reshape(-1)[place % array.size] = value
            except (TypeError, ValueError, OverflowError):
                return array
    return array


RESHAPED = [
    lambda a: a[None],
    lambda a: a[..., None],
    lambda a: a.reshape(-1),
    lambda a: a.T,
    lambda a: a[..., :1],
    lambda a: a[..., :0],
]
CUT = [lambda a: a[:0], lambda a: a[:1], lambda a: a[:2], lambda a: np.concatenate([a, a])]
LAID_OUT = [
    np.asfortranarray,
    lambda a: np.repeat(a, 2, axis=0)[::2],
    lambda a: a[::-1].copy()[::-1],
    lambda a: np.require(a, requirements="O") if a.flags.writeable else a,
]


@st.composite
def near(draw, valid: np.ndarray, cut: bool = True):
    """A valid array, as it is or changed once or twice; other numbers of examples are drawn where that costs little."""
    array = valid
    for _ in range(draw(st.integers(0, 2))):
        change = draw(st.sampled_from(("dtype", "dtype", "value", "value", "layout", "shape", "none", "jax", "order")))
        if change == "none":
            return draw(anything())
        if change == "dtype":
            array = cast(array, draw(st.sampled_from(DTYPES)))
        elif change == "value":
            array = altered(array, draw(st.sampled_from(VALUES)), draw(st.integers(0, 99)))
        elif change == "layout" and array.ndim > 0:
            array = draw(st.sampled_from(LAID_OUT))(array)
        elif change == "shape" and array.ndim > 0:
            array = draw(st.sampled_from(RESHAPED + CUT * cut))(array)
        elif change == "order" and array.ndim > 0:
            array = array[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(array))]
        elif change == "jax" and array.dtype.isnative and array.dtype.name in ("bool", "int32", "uint8", *FLOATS[:3]):
            return jnp.asarray(array)
    return array


@st.composite
def conditions(draw, c: dict, cut: bool = True):
    """A dict of conditions: complete, one of them changed, one missing or too many; or another mapping, or none."""
    kind = draw(st.sampled_from(("value", "value", "value", "value", "names", "mapping", "none")))
    name = draw(st.sampled_from(sorted(c))) if c else "label"
    if kind == "value":
        return {**c, name: draw(near(c[name], cut))} if c else {}
    if kind == "names":
        other = draw(st.sampled_from(("other", "", "Label", 3, None)))
        return {**c, other: np.zeros(BATCH)} if draw(st.booleans()) else {k: v for k, v in c.items() if k != name}
    return types.MappingProxyType(c) if kind == "mapping" else draw(anything())


def floats_or_bytes(x) -> np.ndarray:
    """Grey levels of pictures that a door let in, in double precision; asserts that it should have."""
    name = np.dtype(x.dtype).name
    assert name in (*FLOATS, "uint8")
    grey = np.asarray(x).astype(np.float64) / (255 if name == "uint8" else 1)
    assert np.all((grey >= 0) & (grey <= 1 + 1e-7)), grey
    return grey


def close(answer, expected, rtol: float = 2e-4, atol: float = 2e-4):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), tuple(answer), tuple(expected))


# Models: a label, and NumPy's answer to the same weights

LABELLED = build(cvae.Label(CLASSES))
PLAIN = build(cvae.Nothing())
MODEL, PARAMS, X, C = LABELLED
PIXELS = np.random.default_rng(8).integers(0, 256, X.shape, dtype=np.uint8)
D = math.prod(EVENT)


def linear(layer: dict, inputs: np.ndarray) -> np.ndarray:
    return inputs @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def hidden(layers: dict, inputs: np.ndarray) -> np.ndarray:
    for name in sorted(layers):
        inputs = np.maximum(linear(layers[name]["linear"], inputs), 0)
    return inputs


def posterior(x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log std of q(z | x, c), [B, Z]."""
    inputs = np.concatenate([x.reshape(len(x), -1), np.eye(CLASSES)[label]], axis=1)
    encoder = PARAMS["encoder"]
    mean, log_std = np.split(linear(encoder["head"], hidden(encoder["mlp"]["layers"], inputs)), 2, axis=1)
    return mean, 7 * np.tanh(log_std / 7)


def logits(z: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of p(x | z, c), [B, *event]."""
    decoder, inputs = PARAMS["decoder"], np.concatenate([z, np.eye(CLASSES)[label]], axis=1)
    return linear(decoder["outputs"], hidden(decoder["mlp"]["layers"], inputs)).reshape(-1, *EVENT)


def score(z: np.ndarray, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log p(x | z, c), [B]."""
    at = logits(z, label)
    return (x * at - np.logaddexp(0, at)).reshape(len(x), -1).sum(axis=1)


@cache
def noise(rows: int, samples: int, how: str) -> np.ndarray:
    """The draws of N(0, I) behind a function's z, [K, rows, Z]."""

    def drawn(keys, rows: int = rows):
        return np.asarray([jax.random.normal(key, (rows, LATENT)) for key in keys], np.float64)

    if how == "batch":
        return drawn([KEY] if samples == 1 else jax.random.split(KEY, samples))
    of_rows = [jax.random.split(jax.random.fold_in(KEY, row))[1] for row in range(rows)]
    if how == "rows":
        return drawn(of_rows, 1).transpose(1, 0, 2)
    return np.concatenate([drawn(jax.random.split(jax.random.fold_in(k, 0), samples), 1) for k in of_rows], axis=1)


def divergence(mean, log_std):
    return 0.5 * (np.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(axis=1)


def exact_elbo(x, label, samples: int = 1, how: str = "batch", beta: float = 1.0):
    mean, log_std = posterior(x, label)
    z = mean + np.exp(log_std) * noise(len(x), samples, how)
    log_likelihood = np.mean([score(one, x, label) for one in z], axis=0)
    kl = divergence(mean, log_std)
    return log_likelihood, kl, beta * kl


def exact_weights(x, label, samples: int, how: str = "batch"):
    mean, log_std = posterior(x, label)
    draws = noise(len(x), samples, how)
    z = mean + np.exp(log_std) * draws
    ratio = (stats.norm.logpdf(draws) - log_std - stats.norm.logpdf(z)).sum(axis=2)
    return np.array([score(one, x, label) for one in z]), ratio


def exact_likelihood(x, label):
    log_likelihood, log_ratio = exact_weights(x, label, 2, "turns")
    first, second = (logsumexp(power * (log_likelihood - log_ratio), axis=0) for power in (1, 2))
    return first - math.log(2), np.exp(2 * first - second)


def exact_hybrid(x, label):
    keys = jax.random.split(KEY)
    mean, log_std = posterior(x, label)
    of_cvae, of_gsnn = (np.asarray(jax.random.normal(key, (len(x), LATENT)), np.float64) for key in keys)
    kl = divergence(mean, log_std)
    cvae_score, gsnn_score = score(mean + np.exp(log_std) * of_cvae, x, label), score(of_gsnn, x, label)
    return 0.25 * cvae_score + 0.75 * gsnn_score, kl, 0.25 * kl


def exact_reconstruction(x, label):
    mean, log_std = posterior(x, label)
    return (expit(logits(mean + np.exp(log_std) * noise(len(x), 1, "batch")[0], label)),)


def exact_units(x, label):
    squares = (posterior(x, label)[0] - posterior(x, label)[0].mean(axis=0)) ** 2
    variance = squares.mean(axis=0)
    return variance, squares.std(axis=0) / math.sqrt(len(x)), (variance > 0.01).sum()


# Each from (params, key, x, c) to a tuple, and NumPy's from grey levels and labels.
OF_BATCHES = {
    "encode": (lambda p, k, x, c: MODEL.encode(p, x, c), posterior),
    "reconstruct": (lambda p, k, x, c: (cvae.reconstruct(MODEL, p, k, x, c),), exact_reconstruction),
    "elbo": (partial(cvae.elbo, MODEL, beta=np.float32(0.5)), partial(exact_elbo, beta=0.5)),
    "hybrid": (partial(hybrid, MODEL, alpha=0.25), exact_hybrid),
    "log_weights": (partial(cvae.log_weights, MODEL, num_samples=2), partial(exact_weights, samples=2)),
    "iwae": (
        lambda *a: (cvae.iwae(MODEL, *a, num_samples=2),),
        lambda x, label: (logsumexp(np.subtract(*exact_weights(x, label, 2)), axis=0) - math.log(2),),
    ),
}
OF_SETS = {
    "evaluate": (partial(cvae.evaluate, MODEL), partial(exact_elbo, how="rows")),
    "log_likelihood": (partial(cvae.log_likelihood, MODEL, num_samples=2), exact_likelihood),
    "active_units": (partial(evaluation.active_units, MODEL), exact_units),
    "class_log_likelihoods": (
        lambda *a: (classification.class_log_likelihoods(MODEL, *a, num_samples=2),),
        lambda x, _: (np.stack([exact_likelihood(x, np.full(len(x), y))[0] for y in range(CLASSES)], axis=1),),
    ),
}


@pytest.mark.parametrize("name", [*OF_BATCHES, *OF_SETS])
@given(data=st.data())
def test_functions_of_a_model(name, data):
    function, exact = (OF_BATCHES | OF_SETS)[name]
    stored = name in OF_SETS and data.draw(st.booleans(), "stored")
    x, c = (PIXELS if stored else X), C
    if data.draw(st.booleans(), "x is changed"):
        x, named = data.draw(near(x), "x"), "x"
    else:
        c, named = data.draw(conditions(C), "c"), "c"
    answer = held(lambda: function(PARAMS, KEY, x, c), named)
    if x is (PIXELS if stored else X) and c is C:
        assert answer is not None
    if answer is None:
        return
    label = np.asarray(c["label"]) if name != "class_log_likelihoods" else np.zeros(BATCH, int)
    assert name in OF_SETS or x.dtype != np.uint8
    assert label.dtype.kind in "iu"
    assert set(c) == {"label"} or name == "class_log_likelihoods"
    close(answer, exact(floats_or_bytes(x), label.astype(int)))


def labels_of(c) -> np.ndarray:
    """Labels that a door let in; asserts that it should have."""
    label = np.asarray(c["label"])
    assert label.dtype.kind in "iu"
    assert label.ndim == 1
    assert len(label) > 0
    assert set(c) == {"label"}
    return label.astype(int)


@pytest.mark.parametrize("name", ["prior", "sample"])
@given(c=conditions(C))
def test_functions_of_conditions(name, c):
    if name == "prior":
        p = held(lambda: MODEL.prior(PARAMS, c), "c")
        if p is not None:
            np.testing.assert_array_equal(p.mean, np.zeros((len(labels_of(c)), LATENT)))
            np.testing.assert_array_equal(p.log_std, p.mean)
        return
    drawn = held(lambda: cvae.sample(MODEL, PARAMS, KEY, c, temperature=0.5), "c")
    if drawn is not None:
        label = labels_of(c)
        close((drawn,), (expit(logits(0.5 * noise(len(label), 1, "batch")[0], label)),))


Z = np.random.default_rng(9).normal(size=(BATCH, LATENT)).astype(np.float32)


@given(data=st.data())
def test_decoding(data):
    z, c, named = Z, C, "z"
    if data.draw(st.booleans(), "z is changed"):
        z = data.draw(near(Z), "z")
    else:
        c, named = data.draw(conditions(C), "c"), "c"
    distribution = held(lambda: MODEL.decode(PARAMS, z, c), named, "c")  # z and c may hold different numbers of rows
    if distribution is None:
        return
    assert np.dtype(z.dtype).name in FLOATS
    values, label = np.asarray(z, np.float64), labels_of(c)
    assert np.isfinite(values.astype(np.float32)).all()
    if np.abs(values).max() < 1e6:
        np.testing.assert_allclose(distribution.logits, logits(values, label), rtol=2e-4, atol=2e-4)


@given(c=st.just({}) | conditions({}), z=near(Z))
def test_a_model_told_nothing(c, z):
    drawn = held(lambda: cvae.sample(PLAIN.model, PLAIN.params, KEY, c), "c")
    assert (drawn is not None) == (isinstance(c, dict | types.MappingProxyType) and len(c) == 0)
    decoded = held(lambda: PLAIN.model.decode(PLAIN.params, z, c), "c", "z")
    if decoded is not None:
        assert decoded.mean.shape == (len(z), *EVENT)


TAKE_PROPOSALS = (
    cvae.elbo,
    partial(cvae.log_weights, num_samples=2),
    cvae.evaluate,
    partial(cvae.log_likelihood, num_samples=2),
)


@pytest.mark.parametrize(
    "name", ["num_samples", "batch_size", "key", "beta", "free_bits", "alpha", "temperature", "proposal"]
)
@given(data=st.data())
def test_other_arguments(name, data):
    """A right one is answered as well, here by what needs it and is soonest compiled."""
    weights = st.floats(0, 4, width=16)
    right = {
        "num_samples": st.sampled_from((1, 2)).flatmap(lambda n: st.sampled_from((n, np.int64(n), np.uint8(n)))),
        "batch_size": st.sampled_from((1, 3)) | st.integers(3, 2**40),
        "key": st.integers(0, 2**32 - 1).map(jax.random.PRNGKey) | st.integers(0, 2**32 - 1).map(jax.random.key),
        "beta": weights | weights.map(np.float16) | weights.map(jnp.float32) | weights.map(lambda w: np.full(3, w)),
        "free_bits": weights,
        "alpha": st.floats(0, 1),
        "temperature": weights | weights.map(jnp.float32) | weights.map(np.array),
        "proposal": st.sampled_from(("posterior", "prior")),
    }[name]
    value = data.draw(right if data.draw(st.booleans(), "right") else anything(), name)
    call = {
        "alpha": lambda: hybrid(MODEL, PARAMS, KEY, X, C, alpha=value),
        "batch_size": lambda: cvae.evaluate(MODEL, PARAMS, KEY, X, C, batch_size=value),
        "key": lambda: cvae.sample(MODEL, PARAMS, value, C),
        "temperature": lambda: cvae.sample(MODEL, PARAMS, KEY, C, temperature=value),
        "proposal": lambda: data.draw(st.sampled_from(TAKE_PROPOSALS))(MODEL, PARAMS, KEY, X, C, proposal=value),
    }.get(name, lambda: cvae.elbo(MODEL, PARAMS, KEY, X, C, **{name: value}))
    answer = held(call, name)
    if answer is not None:
        assert np.isfinite(np.asarray(answer if name in ("key", "temperature") else answer[0])).all()
    if name == "key":  # no function goes on without one
        for function, _ in (OF_BATCHES | OF_SETS).values():
            if answer is None and function is not OF_BATCHES["encode"][0]:
                assert held(lambda function=function: function(PARAMS, value, X, C), "key") is None
        if answer is None:
            assert held(lambda: cvae.fit(MODEL, PARAMS, value, X, C, TRAINING, progress=False), "key") is None


# Fitting

TRAINING = cvae.Training(epochs=1, batch_size=3)


def fit_on(kind: str) -> np.ndarray:
    return PIXELS if kind == "stored" else X


@cache
def fitted(kind: str):
    return cvae.fit(MODEL, PARAMS, KEY, fit_on(kind), C, TRAINING, progress=False).params


@given(data=st.data())
def test_fitting(data):
    """What the door lets in can be fitted; equal values of any dtype are fitted alike."""
    kind = data.draw(st.sampled_from(("stored", "floats")), "kind")
    x, c, named = fit_on(kind), C, "x"
    if data.draw(st.booleans(), "x is changed"):
        x = data.draw(near(x), "x")
    else:
        c, named = data.draw(conditions(C), "c"), "c"

    def fit():
        return cvae.fit(MODEL, PARAMS, KEY, x, c, TRAINING, progress=False)

    if held(lambda: check_fit(MODEL, x, c, TRAINING) or True, named) is None:
        assert held(fit, named) is None
        return
    check_examples(MODEL, x, c)
    grey, label = floats_or_bytes(x), labels_of(c)
    assert len(grey) == len(label) == BATCH
    # A fit is compiled for seconds, once for every pair of dtypes.
    if x.dtype.name in ("uint8", "bfloat16", "float32") and c["label"].dtype in (np.int64, np.int16):
        found = fit()
        assert np.isfinite(found.history[0].train.loss)
        same = np.array_equal(label, C["label"]) and np.array_equal(grey, floats_or_bytes(fit_on(kind)))
        if same:
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), found.params, fitted(kind))


# Conditions

ROWS_X = np.random.default_rng(2).normal(size=(BATCH, ELEMENTS)).astype(np.float32)
STORED = {
    "nothing": {},
    "label": {"label": np.array([3, 0, 2])},
    "continuous": {"continuous": np.random.default_rng(4).normal(size=(BATCH, 3)).astype(np.float32)},
    "image": {"observed": np.random.default_rng(5).random((BATCH, ELEMENTS)) < 0.5},
    "mixed": {
        "group": np.array([2, 0, 1]),
        "amount": np.array([[3, -1], [7, 0], [-4, 2]]),
        "observed": np.random.default_rng(6).random((BATCH, ELEMENTS)) < 0.5,
    },
}


ENCODE = {name: jax.jit(condition.encode) for name, condition in ROWS.items()}


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_conditions(name, data):
    """What a door lets in is encoded as its values say; what is let in as stored is let in once completed."""
    condition = ROWS[name]
    stored = data.draw(st.just(STORED[name]) | conditions(STORED[name]), "stored")
    if held(lambda: condition.check_stored(stored, BATCH) or True, "c"):
        c = condition.complete(KEY, jnp.asarray(ROWS_X), stored)
        condition.check(c, BATCH)
    else:
        good = condition.complete(KEY, ROWS_X, STORED[name])
        good = {key: np.asarray(value) for key, value in good.items()}
        c = data.draw(conditions(good), "c")
    if held(lambda: condition.check(c) or True, "c"):
        found = np.asarray(condition.encode(c))
        seen = {key: np.asarray(value) for key, value in c.items()}
        # NumPy finds no NaN in a dtype that is not its own.
        seen = {key: v.astype(np.float32) if v.dtype.name == "bfloat16" else v for key, v in seen.items()}
        expected = features(condition, {k: np.nan_to_num(v) if v.dtype != bool else v for k, v in seen.items()})
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        # What enters a compiled program is cut to 32 bits.
        np.testing.assert_allclose(ENCODE[name](dict(c)), expected, rtol=1e-5, atol=1e-6)


@given(values=near(np.random.default_rng(4).normal(size=(5, 2)) * [1e-3, 40] + [0, 1e3]))
def test_statistics_of_a_condition(values):
    condition = held(lambda: cvae.Continuous.fitted(values), "c['continuous']")
    if condition is not None:
        array = np.asarray(values, np.float64)
        np.testing.assert_allclose(
            condition.mean, [math.fsum(column) / len(array) for column in array.T], rtol=1e-6, atol=1e-9
        )
        assert all(std > 0 for std in condition.std)
        condition.check({"continuous": values}, len(array))
        standard = np.asarray(condition.encode({"continuous": values}), np.float64)
        assert np.all(np.abs(standard) < math.sqrt(len(array)) * (1 + 1e-2))


# Distributions

NORMALS = [np.random.default_rng(seed).normal(size=(BATCH, 5)).astype(np.float32) for seed in range(4)]


def reals(array, *, unit: bool = False) -> np.ndarray:
    """Numbers that a density let in, in double precision, as float32 holds them; asserts that it should have."""
    assert np.dtype(array.dtype).name in FLOATS or np.dtype(array.dtype).kind in "biu"
    with np.errstate(over="ignore"):
        values = np.asarray(array).astype(np.float32).astype(np.float64)
    assert not unit or np.all((values >= 0) & (values <= 1))
    return values


@pytest.mark.parametrize("name", ["Normal", "Bernoulli", "ContinuousBernoulli", "Partial"])
@given(data=st.data())
def test_densities(name, data):
    at, log_std, unit = NORMALS[0], NORMALS[1], expit(NORMALS[2])
    valid = unit if data.draw(st.booleans(), "on the unit interval") else (unit > 0.5).astype(np.int64)
    x = data.draw(near(valid), "x")
    seen = NORMALS[3] > 0
    distribution = {
        "Normal": cvae.Normal(at, log_std),
        "Bernoulli": cvae.Bernoulli(at),
        "ContinuousBernoulli": cvae.ContinuousBernoulli(at),
        "Partial": Partial(cvae.Normal(at, log_std), ~seen, at),
    }[name]
    found = held(lambda: distribution.log_prob(x), "x")
    if found is None:
        return
    values = reals(x, unit="Bernoulli" in name)
    assert values.shape[1:] == at.shape[1:]
    at, log_std = (parameter.astype(np.float64) for parameter in (at, log_std))
    with np.errstate(all="ignore"):
        if "Bernoulli" in name:
            terms = values * at - np.logaddexp(0, at)
            terms = terms + (np.log(at / np.tanh(at / 2)) if name == "ContinuousBernoulli" else 0)
        else:
            terms = stats.norm.logpdf(values, at, np.exp(log_std))
        expected = (np.where(seen, 0, terms) if name == "Partial" else terms).sum(axis=1)
    # Where the squares come near to float32's largest number, they may be infinite.
    np.testing.assert_allclose(np.maximum(found, -1e37), np.maximum(expected, -1e37), rtol=1e-5, atol=1e-5)


@given(data=st.data())
def test_divergence(data):
    parameters = dict(zip(("q.mean", "q.log_std", "p.mean", "p.log_std"), NORMALS, strict=True))
    named = data.draw(st.sampled_from(("q", "p", *parameters)), "which")
    if named in parameters:
        parameters[named] = data.draw(near(parameters[named]), named)
    q, p = (cvae.Normal(parameters[f"{n}.mean"], parameters[f"{n}.log_std"]) for n in "qp")
    if named not in parameters:
        other = data.draw(anything(), named)
        q, p = (other, p) if named == "q" else (q, other)
    found = held(lambda: cvae.kl_divergence(q, p), "q", "p")
    if found is None:
        return
    with np.errstate(all="ignore"):
        m, s, n, t = (reals(values) for values in parameters.values())
        expected = (t - s + (np.exp(2 * s) + (m - n) ** 2) * np.exp(-2 * t) / 2 - 0.5).sum(axis=1)
    held_by_float32 = np.abs(np.concatenate([m.ravel(), s.ravel(), n.ravel(), t.ravel()])).max() < 40
    if held_by_float32:
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-4, atol=1e-4)
    assert found.shape == expected.shape


# Preparation

PICTURES = np.random.default_rng(12).integers(0, 256, (3, 5, 4, 1)).astype(np.uint8)
GREY = (PICTURES / 255).astype(np.float32)


def pictures():
    """Pictures as bytes or floats, nearly, and anything."""
    return near(PICTURES) | near(GREY)


@given(x=pictures(), c=conditions(C))
def test_preparing(x, c):
    found = held(lambda: cvae.prepare(KEY, x, c), "x")
    if found is not None:
        assert found[1] is c
        name = np.dtype(x.dtype).name
        assert name in (*FLOATS, "uint8")
        scale = 255 if name == "uint8" else 1
        np.testing.assert_allclose(np.asarray(found[0], np.float64), np.asarray(x, np.float64) / scale, rtol=1e-6)


@given(seed=st.sampled_from((0, 7, 2**32 - 1)) | anything(), x=pictures())
def test_binarising(seed, x):
    drawn = held(lambda: preparation.binarise(seed, x), "seed", "x")
    if drawn is not None:
        grey = floats_or_bytes(x)
        assert drawn.dtype == np.uint8
        assert drawn.shape == grey.shape
        assert set(np.unique(drawn)) <= {0, 255}
        np.testing.assert_array_equal(drawn[grey == 0], 0)
        np.testing.assert_array_equal(drawn[grey == 1], 255)
        np.testing.assert_array_equal(drawn, preparation.binarise(seed, grey.astype(np.float32)))


@given(data=st.data())
def test_moving(data):
    x, by, named = GREY, np.array([[0, 0], [1, -2], [-3, 7]]), "by"
    if data.draw(st.booleans(), "x is changed"):
        x, named = data.draw(near(GREY), "x"), "x"
    else:
        by = data.draw(near(by), "by")
    moved = held(lambda: preparation.move(x, by), named, "by")
    if moved is None:
        return
    assert np.dtype(x.dtype).name in FLOATS
    values, (_, height, width, _) = np.asarray(x, np.float32), x.shape
    expected = np.zeros_like(values)
    for picture, (down, right) in enumerate(np.asarray(by).tolist()):
        for row, column in np.ndindex(height, width):
            if 0 <= row + down < height and 0 <= column + right < width:
                expected[picture, row + down, column + right] = values[picture, row, column]
    # What is smaller than float32's normal numbers may count as 0.
    np.testing.assert_allclose(np.asarray(moved, np.float32), expected, rtol=0, atol=np.finfo(np.float32).tiny)


# Attributes


@pytest.mark.parametrize("name", ["thickness", "slant", "measure"])
@given(x=pictures())
def test_attributes(name, x):
    found = held(lambda: getattr(attributes, name)(x), "x")
    if found is None:
        return
    grey = floats_or_bytes(x).astype(np.float32)
    assert found.dtype == np.float32
    assert found.shape == (len(grey),) + (2,) * (name == "measure")
    columns = dict(zip(attributes.NAMES, found.T, strict=True)) if name == "measure" else {name: found}
    blank = ~(grey > 0).any(axis=(1, 2, 3))
    for attribute, values in columns.items():
        for picture, value, is_blank in zip(grey[..., 0].astype(np.float64), values, blank, strict=True):
            if is_blank or attribute == "thickness":
                assert np.isnan(value) == is_blank
            if attribute == "thickness" and not is_blank:
                assert 0.5 < value < 2 * min(picture.shape) + 2
            if attribute == "slant" and not is_blank:
                row, column = np.indices(picture.shape)
                row, column = row - np.average(row, weights=picture), column - np.average(column, weights=picture)
                height = np.average(row**2, weights=picture)
                if height > 1e-6:
                    shear = -np.average(row * column, weights=picture) / height
                    assert value == pytest.approx(math.atan(shear), abs=1e-4)


# Fidelity and classification


def numbers_like(draw, array: np.ndarray):
    """Nearly these numbers, also as nested lists."""
    made = draw(near(array))
    return made.tolist() if isinstance(made, np.ndarray) and made.dtype.isnative and draw(st.booleans()) else made


@given(data=st.data())
def test_means(data):
    values = numbers_like(data.draw, np.array([0.5, -3.0, 8.0]))
    found = held(lambda: evaluation.mean(values), "values")
    if found is None:
        return
    listed = [float(value) for value in np.asarray(values).tolist()]
    if all(abs(value) < 1e150 for value in listed):
        centre = math.fsum(listed) / len(listed)
        assert found.value == pytest.approx(centre, rel=1e-9, abs=1e-12 * max(map(abs, listed)))
        if len(listed) > 1:
            spread = math.sqrt(math.fsum((v - centre) ** 2 for v in listed) / (len(listed) - 1) / len(listed))
            assert found.standard_error == pytest.approx(spread, rel=1e-6)
    assert math.isnan(found.standard_error) or len(listed) > 1


@given(data=st.data())
def test_agreement(data):
    judged, asked, named = np.array([0, 3, 2, 2]), np.array([0, 3, 1, 2]), "asked"
    if data.draw(st.booleans(), "judged is changed"):
        judged, named = numbers_like(data.draw, judged), "judged"
    else:
        asked = numbers_like(data.draw, asked)
    found = held(lambda: fidelity.agreement(judged, asked), named)
    if found is not None:
        judged, asked = np.asarray(judged).tolist(), np.asarray(asked).tolist()
        assert found.value == sum(a == b for a, b in zip(judged, asked, strict=True)) / len(judged)


@given(data=st.data())
def test_correlations(data):
    rng = np.random.default_rng(3)
    asked = rng.normal(size=(6, 2)) * [1, 40]
    measured, named = asked * [0.1, -1] + rng.normal(size=(6, 2)), "asked"
    if data.draw(st.booleans(), "asked is changed"):
        asked = numbers_like(data.draw, asked)
    else:
        measured, named = numbers_like(data.draw, measured), "measured"
    found = held(lambda: fidelity.correlation(asked, measured), named)
    if found is None:
        return
    for column, estimate in enumerate(found):
        a, b = (np.asarray(values).astype(np.longdouble)[:, column] for values in (asked, measured))
        a, b = a - a.mean(), b - b.mean()
        expected = float((a / np.abs(a).max() * (b / np.abs(b).max())).sum())
        expected /= math.sqrt(float(((a / np.abs(a).max()) ** 2).sum() * ((b / np.abs(b).max()) ** 2).sum()))
        assert estimate.value == pytest.approx(expected, abs=1e-6)
        assert estimate.standard_error == pytest.approx((1 - expected**2) / math.sqrt(len(a) - 1), abs=1e-5)


@given(data=st.data())
def test_diversity(data):
    x, label, named = np.concatenate([PICTURES, PICTURES[::-1]]), np.array([0, 1, 1, 4, 0, 4]), "x"
    if data.draw(st.booleans(), "x is changed"):
        x = numbers_like(data.draw, data.draw(st.sampled_from((x, x / 255)), "x"))
    else:
        label, named = numbers_like(data.draw, label), "label"
    found = held(lambda: fidelity.diversity(x, label), named, "label")
    if found is None:
        return
    flat = np.asarray(x).astype(np.float64).reshape(len(x), -1) / (255 if np.asarray(x).dtype == np.uint8 else 1)
    label = np.asarray(label).astype(np.int64)
    assert list(found.by_class) == sorted(set(label.tolist()))
    for k, estimate in found.by_class.items():
        distances = pdist(flat[label == k])
        slack = 1e-9 * (1 + distances.max())
        assert distances.min() - slack <= estimate.value <= distances.max() + slack
    assert found.overall.value == pytest.approx(np.mean([estimate.value for estimate in found.by_class.values()]))


@given(data=st.data())
def test_classifying(data):
    scores, label, prior = np.random.default_rng(6).normal(size=(4, 3)) * 5, np.array([0, 2, 1, 1]), None
    named = data.draw(st.sampled_from(("class_log_likelihoods", "label", "log_prior")), "which")
    if named == "class_log_likelihoods":
        scores = numbers_like(data.draw, scores)
    elif named == "label":
        label = numbers_like(data.draw, label)
    else:
        prior = numbers_like(data.draw, np.log([0.2, 0.3, 0.5]))
    found = held(lambda: classification.classify(scores, label, log_prior=prior), named, "label")
    if found is None:
        return
    with np.errstate(all="ignore"):
        added = np.asarray(scores).astype(np.float64) + (0 if prior is None else np.asarray(prior).astype(np.float64))
        log_posterior = log_softmax(added, axis=1)
    label = np.asarray(label).astype(int)
    right = log_posterior.argmax(axis=1) == label
    assert found.accuracy.value == right.mean()
    worth = -log_posterior[np.arange(len(label)), label]
    assert found.negative_log_probability.value == pytest.approx(worth.mean(), rel=1e-9)
    assert found.calibration.examples.sum() == len(label)
    assert 0 <= found.expected_calibration_error.value <= 1


# Masks and splits

SHAPES = st.sampled_from(((4, 6, 1), (2, 3), (5,), (3, 2, 1, 2), [2, 2], (1, 4)))


@given(name=st.sampled_from((*masks.MASKS, "given")) | anything(), shape=SHAPES | anything())
def test_fixed_masks(name, shape):
    mask = held(lambda: masks.fixed(name, shape), "name", "event_shape", *(f"event_shape[{axis}]" for axis in range(3)))
    if mask is not None:
        assert mask.shape == tuple(shape)
        assert mask.dtype == bool
        assert 0 < mask.sum() + (name == "centre_box") < mask.size + 1
        drawn = masks.draw(name, KEY, 2, tuple(shape))
        np.testing.assert_array_equal(drawn, [mask, mask])


def is_small(sizes) -> bool:
    """Whether as many pixels as asked for can be made, or none are because it is no number."""
    try:
        return not np.any(np.abs(np.asarray(sizes).astype(float)) > 50)
    except (TypeError, ValueError, OverflowError):
        return True


@given(data=st.data())
def test_drawn_masks(data):
    arguments = {"name": "random_pixels", "key": KEY, "batch": 3, "event_shape": (2, 3, 1)}
    named = data.draw(st.sampled_from(sorted(arguments)), "which")
    right = {
        "name": st.sampled_from(("random_box", "random_pixels", "top_half")),
        "key": st.just(jax.random.PRNGKey(4)),
        "batch": st.sampled_from((3, np.uint8(3))),
        "event_shape": st.sampled_from(((2, 3, 1), [2, 3, 1], np.array([2, 3, 1]))),
    }[named]
    arguments[named] = data.draw(right | anything(), named)
    assume(named not in ("batch", "event_shape") or is_small(arguments[named]))
    seen = held(lambda: masks.draw(**arguments), "mask" if named == "name" else named)
    if seen is not None:
        assert seen.shape == (arguments["batch"], *arguments["event_shape"])
        assert seen.dtype == bool
        assert not np.asarray(seen).reshape(len(seen), -1).all(axis=1).any()


@given(data=st.data())
def test_splits(data):
    arguments = {"size": 70, "seed": 5, "validation": 0.1, "test": 0.2}
    named = data.draw(st.sampled_from(sorted(arguments)), "which")
    right = {
        "size": st.integers(-2, 200) | st.just(100_000),
        "seed": st.integers(-1, 2**32),
        "validation": st.floats() | st.sampled_from((np.float16(0.5), np.float32(0.3), 1)),
        "test": st.floats() | st.just(np.float16(0.25)),
    }[named]
    arguments[named] = data.draw(right | anything(), named)
    rows = held(lambda: arrays.split(**arguments), named, "size")
    if rows is not None:
        size = arguments["size"]
        assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(size))
        for part, share in ((rows.validation, arguments["validation"]), (rows.test, arguments["test"])):
            assert len(part) > 0
            assert abs(len(part) - size * float(share)) <= 0.5 + 1e-9
        assert all(np.array_equal(a, b) for a, b in zip(rows, arrays.split(**arguments), strict=True))


# Settings

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from((0, 1, 10**400, 1e39)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SIZES = st.integers(1, 40)
POSITIVE = st.floats(1e-30, 1e30) | SIZES
SHARES = st.floats(0, 1) | st.integers(0, 1)
NAMES = st.text(min_size=1, max_size=5)
WITHOUT_REPETITION = {"min_size": 1, "max_size": 4, "unique_by": lambda value: f"{value:.12g}"}
SCALES = st.floats(1e-15, 1e15) | SIZES
FIELDS = {
    cvae.Architecture: (
        {"event_shape": (4, 4, 1), "condition": cvae.Label(3), "hidden": [8, 6], "latent_size": 4},
        {
            "event_shape": st.lists(SIZES, min_size=1, max_size=4),
            "condition": st.just(cvae.Nothing())
            | st.builds(cvae.Continuous, SIZES)
            | st.builds(cvae.Label, st.integers(2, 9)),
            "latent_size": st.integers(0, 100),
            "hidden": st.lists(SIZES, min_size=1, max_size=4),
            "body": st.sampled_from(("plain", "residual", "convolutional")),
            "conditioning": st.sampled_from(("film", "concat_all")),
            "prior": st.sampled_from(("standard", "learned")),
            "likelihood": st.builds(cvae.likelihoods.Normal, SCALES) | st.just(cvae.likelihoods.ContinuousBernoulli()),
            "latent_layers": st.sampled_from((1, 2, 4)),
            "guess": st.just(False),
        },
    ),
    cvae.Training: (
        {},
        {
            **dict.fromkeys(("epochs", "batch_size", "num_samples"), SIZES),
            **dict.fromkeys(("learning_rate", "beta"), POSITIVE),
            **dict.fromkeys(("alpha", "moved", "omission"), SHARES),
            **dict.fromkeys(("beta_warmup", "shift"), st.integers(0, 100)),
            **dict.fromkeys(("weight_decay", "free_bits"), POSITIVE | st.just(0)),
            "schedule": st.sampled_from(("constant", "cosine", "warmup_cosine")),
            "clip_norm": st.none() | POSITIVE,
            "average": st.floats(0, 1, exclude_max=True),
            "objective": st.sampled_from(("elbo", "iwae")),
            "patience": st.none() | SIZES,
            "targets": st.sampled_from(("grey", "dynamic", "static")),
            "frozen": st.lists(NAMES, max_size=3),
        },
    ),
    cvae.Sweep: (
        {"latent_sizes": [1, 2]},
        {
            "latent_sizes": st.lists(SIZES, **WITHOUT_REPETITION),
            "seeds": st.lists(st.integers(0, 2**32 - 1), **WITHOUT_REPETITION),
            **dict.fromkeys(("betas", "learning_rates"), st.lists(POSITIVE, **WITHOUT_REPETITION)),
        },
    ),
    cvae.Label: ({"num_classes": 3}, {"num_classes": st.integers(2, 1000), "name": NAMES}),
    cvae.Continuous: (
        {"dim": 2},
        {
            "dim": SIZES,
            "mean": st.lists(st.floats(-1e30, 1e30) | st.integers(), min_size=2, max_size=2),
            "std": st.lists(POSITIVE, min_size=2, max_size=2),
            "name": NAMES,
        },
    ),
    cvae.Image: (
        {"event_shape": [4, 6, 1]},
        {
            "event_shape": st.lists(st.integers(2, 40), min_size=2, max_size=4),
            "mask": st.sampled_from((*masks.MASKS, "given")),
            "name": NAMES,
            "stored": st.booleans(),
        },
    ),
    cvae.likelihoods.Normal: (
        {},
        {"scale": st.none() | SCALES, "bounds": st.lists(SCALES, min_size=2, max_size=2, unique=True).map(sorted)},
    ),
}
# What a field contradicts may be named in its place.
PARTNERS = {"latent_layers": ["latent_size"], "body": ["event_shape", "hidden"], "event_shape": ["mask"]}
CONTRADICTED = {"body": ["convolutional"], "name": ["observed"]}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_settings(kind, data):
    """Any JSON either builds what hashes and goes to JSON and back, or is refused by the name of its field."""
    given_fields, right = FIELDS[kind]
    name = data.draw(st.sampled_from(sorted(right)), "field")
    is_right = data.draw(st.booleans(), "right")
    value = data.draw(right[name] if is_right else JSON, name)
    # As many numbers as dim are made, each of 8 bytes.
    assume(not (name == "dim" and isinstance(value, int) and value > 1000))
    built = held(lambda: kind(**{**given_fields, name: value}), name, *PARTNERS.get(name, []))
    if is_right and value not in CONTRADICTED.get(name, ()):
        assert built is not None
    if built is not None:
        assert isinstance(hash(built), int)
        plain = json.loads(json.dumps(to_json(built)))
        plain.pop("kind", None)
        assert from_json(kind, plain) == built


@given(data=st.data())
def test_mixed_conditions(data):
    image = st.builds(cvae.Image, st.lists(st.integers(2, 40), min_size=2, max_size=3), stored=st.booleans())
    right = st.builds(cvae.Label, st.integers(2, 40)) | st.builds(cvae.Continuous, SIZES) | image
    part = data.draw(right if data.draw(st.booleans(), "right") else anything(), "part")
    mixed = held(lambda: cvae.Mixed(digit=cvae.Label(2), other=part), "other")
    if mixed is not None:
        assert mixed.width == 2 + part.width
        assert mixed.names == ("digit", *("other" if name == part.name else name for name in part.names))


CONFIG = Config(
    "an experiment",
    "mnist",
    3,
    cvae.Training(clip_norm=2.0, frozen=("guess",)),
    {
        "one": cvae.Architecture((4, 4, 1), cvae.Mixed(a=cvae.Label(3), b=cvae.Continuous(2)), prior="learned"),
        "two": cvae.Architecture((4, 4, 1), cvae.Image((4, 4, 1)), likelihood=cvae.likelihoods.Normal(0.5)),
    },
    cvae.Sweep((1, 2)),
)


@given(data=st.data())
def test_reading_settings(data):
    """A file of settings with one value of it replaced, removed or added."""
    root = json.loads(json.dumps(to_json(CONFIG)))
    node, path = root, "config"
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys), "key")
        path += f".{key}" if isinstance(node, dict) else f"[{key}]"
        if not (isinstance(node[key], dict | list) and node[key]) or data.draw(st.integers(0, 3), "stop") == 0:
            break
        node = node[key]
    how = data.draw(st.sampled_from(("same", "replace", "remove", "add")), "how")
    if how == "replace":
        node[key] = data.draw(JSON, "value")
    elif how == "remove":
        del node[key]
    elif how == "add" and isinstance(node, dict):
        node[data.draw(st.text(max_size=3), "name")] = data.draw(JSON, "value")
    config = held(lambda: from_json(Config, root), "config")
    assert config is not None or how != "same"
    if config is not None:
        assert from_json(Config, json.loads(json.dumps(to_json(config)))) == config
    assert held(lambda: from_json(Config, json.loads(json.dumps(to_json(CONFIG)))), "config") == CONFIG


def test_both_outcomes_were_seen():
    """Of all functions together, and so after few cases of each."""
    if OUTCOMES.total() < 100:
        pytest.skip("the tests above did not run")
    assert min(OUTCOMES["answered"], OUTCOMES["refused"]) > 0.2 * OUTCOMES.total()
