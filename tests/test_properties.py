"""Public functions, called with arrays and settings of any shape, dtype and value: a correct answer, or one sentence.

A function either raises a `ValueError` of one line that names the argument, or its answer is that for the same values
as plain float32 and int64 arrays, which a few lines of NumPy compute. Whether those answers are correct is tested with
exact oracles, in the file of each module. `python -m tests.stress.properties` draws 1,000 cases per property.
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
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.special import expit

import cvae
from cvae import checks, classification, distributions, fitting, masks, objectives
from cvae.evaluation import active_units
from cvae.origin import _within_32_bits
from cvae.settings import from_json, to_json
from tests.conftest import BATCH, CLASSES, EVENT, LATENT, build
from tests.oracles import CONDITIONS, draw_conditions, features
from tests.oracles import EVENT as ELEMENTS

pytestmark = pytest.mark.filterwarnings("ignore")  # of uint8 images of 0 and 1

KEY = jax.random.key(11)
FLOATS = ("bfloat16", "float16", "float32", "float64")
OUTCOMES: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _both_outcomes_occur():
    """A function that refuses everything would have all properties, and so would one that is given only valid input."""
    before = OUTCOMES.copy()
    yield
    seen = OUTCOMES - before
    if seen.total() >= 100:  # a few cases may all be alike
        assert min(seen["answered"], seen["refused"]) >= 3, seen  # there are three proposals


def held(call, *names):
    """What a call returns, or None where it refuses an argument of one of these names, in one line."""
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

REAL = [
    *(np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
    *(np.dtype(name) for name in ("float16", "float32", "float64", ml_dtypes.bfloat16)),
]
OTHER = [np.dtype(name) for name in ("longdouble", "complex64", "object", ">f4", ">i8", "U3", "S2", "m8[s]", "M8[D]")]
OTHER += [np.dtype(name) for name in ("f4, i4", "V4", ml_dtypes.float8_e4m3fn, ml_dtypes.int4)]
VALUES = (0, 1, -1, 2, 254, 0.5, -0.0, 1.001, 3e4, 1e30, 1e39, 1e300, 1e-40, 2.0**33, 2.0**63, np.nan, np.inf, -np.inf)
NO_ARRAYS = [
    *(None, True, 3, 10**400, 0.5, math.nan, "text", b"text", object(), np.float32(0.5), np.ndarray, range(3)),
    *([], [[1.0, 0.0], [0.0]], [0, 1, 1], (0.5, 1.0), {}, {"label": 1}, {1, 2}),
    *(jax.random.key(0), jax.random.split(jax.random.key(0), 3), jax.ShapeDtypeStruct((3, *EVENT), np.float32)),
    types.SimpleNamespace(shape=(3,), dtype="float32"),
]
RESHAPED = [
    lambda a: a[None],
    lambda a: a[..., None],
    np.ravel,
    np.transpose,
    lambda a: a[..., :1],
    lambda a: a[..., :0],
]
CUT = [lambda a: a[:0], lambda a: a[:1], lambda a: a[:2], lambda a: np.concatenate([a, a])]
LAID_OUT = [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a[::-1].copy()[::-1]]


def cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in another dtype, whose values may change; zeros where NumPy cannot convert."""
    with np.errstate(all="ignore"):
        try:
            return array.astype(dtype)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return np.zeros(array.shape, dtype)


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


@st.composite
def anything(draw):
    """An array of any shape and dtype, or no array."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(NO_ARRAYS))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = draw(st.sampled_from((1.0, 10.0, 1e6))) * rng.normal(size=draw(st.lists(st.integers(0, 3), max_size=5)))
    array = cast(np.asarray(values), draw(st.sampled_from(REAL + OTHER)))
    return altered(array, draw(st.sampled_from(VALUES)), draw(st.integers(0, 99)))


@st.composite
def near(draw, valid: np.ndarray, only_real: bool = False):
    """A valid array as it is, or changed once or twice; to an array of real numbers, if that is all that is checked."""
    array = valid
    for _ in range(draw(st.integers(0, 2))):
        more = () if only_real else ("other", "jax")
        change = draw(st.sampled_from(("dtype", "dtype", "value", "value", "layout", "shape", "order", *more)))
        if change == "other":
            return draw(anything())
        if change == "dtype":
            array = cast(array, draw(st.sampled_from(REAL + OTHER * (not only_real))))
        elif change == "value":
            array = altered(array, draw(st.sampled_from(VALUES)), draw(st.integers(0, 99)))
        elif change == "layout" and array.ndim > 0:
            array = draw(st.sampled_from(LAID_OUT))(array)
        elif change == "shape" and array.ndim > 0:
            array = draw(st.sampled_from(RESHAPED + CUT))(array)
        elif change == "order" and array.ndim > 0:
            array = array[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(array))]
        elif change == "jax" and array.dtype.isnative and array.dtype.name in ("bool", "int32", "uint8", *FLOATS[:3]):
            return jnp.asarray(array)
    return array


@st.composite
def conditions(draw, c: dict):
    """A dict of conditions: complete, with one changed, missing or added; or another mapping, or no mapping."""
    kind = draw(st.sampled_from(("value", "value", "value", "value", "names", "mapping", "other")))
    name = draw(st.sampled_from(sorted(c))) if c else "label"
    if kind == "value":
        return {**c, name: draw(near(c[name]))} if c else {}
    if kind == "names":
        other = draw(st.sampled_from(("other", "", "Label", 3, None)))
        return {**c, other: np.zeros(BATCH)} if draw(st.booleans()) else {k: v for k, v in c.items() if k != name}
    return types.MappingProxyType(c) if kind == "mapping" else draw(anything())


def pixels(x) -> np.ndarray:
    """Images that were accepted, as float32 in [0, 1]; asserts that they should have been."""
    name = np.dtype(x.dtype).name
    assert name in (*FLOATS, "uint8", "bool")
    values = np.asarray(x).astype(np.float64)
    values = values / 255 if name == "uint8" and values.max() != 1 else values
    assert np.all((values >= -2e-6) & (values <= 1 + 2e-6)), values
    return values.astype(np.float32)


def labels(c) -> dict:
    """Labels that were accepted, as int64; asserts that they should have been."""
    label = np.asarray(c["label"])
    assert label.dtype.kind in "iu"
    assert label.ndim == 1
    assert np.all((label >= 0) & (label < CLASSES))
    assert set(c) == {"label"}
    return {"label": label.astype(np.int64)}


def assert_close(answer, expected, rtol: float = 2e-4, atol: float = 2e-4):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), tuple(answer), tuple(expected))


# Functions of a model

MODEL, PARAMS, X, C = build(cvae.Label(CLASSES))
PLAIN = build(cvae.Unconditional())
Z = np.random.default_rng(9).normal(size=(BATCH, LATENT)).astype(np.float32)
PIXELS = np.random.default_rng(8).integers(0, 256, X.shape, dtype=np.uint8)

# Each from (params, key, x, c) to a tuple.
OF_EXAMPLES = {
    "encode": lambda params, key, x, c: tuple(jax.tree.leaves(MODEL.encode(params, x, c))),
    "reconstruct": lambda *args: (cvae.reconstruct(MODEL, *args),),
    "elbo": partial(cvae.elbo, MODEL, beta=np.float32(0.5)),
    "hybrid": partial(objectives.hybrid, MODEL, weight=0.25),
    "log_weights": partial(cvae.log_weights, MODEL, num_samples=2, proposal="mixture"),
    "iwae": lambda *args: (cvae.iwae(MODEL, *args, num_samples=2),),
    "evaluate": partial(cvae.evaluate, MODEL),
    "log_likelihood": partial(cvae.log_likelihood, MODEL, num_samples=2),
    "active_units": partial(active_units, MODEL),
}


@pytest.mark.parametrize("name", OF_EXAMPLES)
@given(data=st.data())
def test_functions_of_examples(name, data):
    valid = data.draw(st.sampled_from((X, PIXELS)), "valid")
    x, c, named = valid, C, "x"
    if data.draw(st.booleans(), "x is changed"):
        x = data.draw(near(valid), "x")
    else:
        c, named = data.draw(conditions(C), "c"), "c"
    # x and c may hold different numbers of examples; the message is about c.
    answer = held(lambda: OF_EXAMPLES[name](PARAMS, KEY, x, c), named, "c['label']")
    if x is valid and c is C:
        assert answer is not None
    if answer is not None:
        plain = pixels(x), labels(c)
        assert plain[0].shape[1:] == EVENT
        # A variance over one example has no error, and is 0 in one dtype and nearly so in another.
        if name != "active_units" or len(plain[0]) > 1:
            assert_close(answer, OF_EXAMPLES[name](PARAMS, KEY, *plain))


@pytest.mark.parametrize("name", ["prior", "sample"])
@given(c=conditions(C))
def test_functions_of_conditions(name, c):
    def call(c):
        p = MODEL.prior(PARAMS, c)
        return (p.mean, p.std) if name == "prior" else (cvae.sample(MODEL, PARAMS, KEY, c, mean=True),)

    answer = held(lambda: call(c), "c")
    if answer is not None:
        assert_close(answer, call(labels(c)))


@given(data=st.data())
def test_decoding(data):
    z, c, named = Z, C, "z"
    if data.draw(st.booleans(), "z is changed"):
        z = data.draw(near(Z), "z")
    else:
        c, named = data.draw(conditions(C), "c"), "c"
    px = held(lambda: MODEL.decode(PARAMS, z, c), named, "c")
    if px is not None:
        with np.errstate(over="ignore"):
            values = np.asarray(z).astype(np.float32)
        assert np.isfinite(values).all()
        if np.abs(values).max() < 1e6:
            expected = MODEL.decode(PARAMS, values, labels(c))
            np.testing.assert_allclose(px.logits, expected.logits, rtol=2e-4, atol=2e-4)


@given(c=st.just({}) | conditions({}), z=near(Z))
def test_unconditional_models(c, z):
    drawn = held(lambda: cvae.sample(PLAIN.model, PLAIN.params, KEY, c), "c")
    assert (drawn is not None) == (isinstance(c, dict | types.MappingProxyType) and len(c) == 0)
    px = held(lambda: PLAIN.model.decode(PLAIN.params, z, c), "c", "z")
    assert px is None or px.mean.shape == (len(z), *EVENT)


WEIGHTS = st.floats(0, 4, width=16)
COUNTS = st.sampled_from((1, 2))
# Valid values, and a function that takes the option.
OPTIONS = {
    "num_samples": (COUNTS | COUNTS.map(np.int64) | COUNTS.map(np.uint8), cvae.elbo),
    "batch_size": (st.sampled_from((1, 3)) | st.integers(3, 2**30), cvae.evaluate),
    "key": (st.integers(0, 99).map(jax.random.PRNGKey) | st.integers(0, 99).map(jax.random.key), cvae.elbo),
    "beta": (
        WEIGHTS | WEIGHTS.map(np.float16) | WEIGHTS.map(jnp.float32) | WEIGHTS.map(lambda w: np.full(3, w)),
        cvae.elbo,
    ),
    "free_bits": (WEIGHTS, cvae.elbo),
    "weight": (st.floats(0, 1), objectives.hybrid),
    "temperature": (WEIGHTS | WEIGHTS.map(jnp.float32), lambda x, **options: (cvae.sample(**options),)),
    "proposal": (st.sampled_from(objectives.PROPOSALS), partial(cvae.log_weights, num_samples=2)),
}


@pytest.mark.parametrize("name", OPTIONS)
@given(data=st.data())
def test_options(name, data):
    valid, function = OPTIONS[name]
    value = data.draw(valid if data.draw(st.booleans(), "valid") else anything(), name)
    arguments = {"model": MODEL, "params": PARAMS, "key": KEY, "x": X, "c": C} | {name: value}
    answer = held(lambda: function(**arguments), name)
    if answer is not None:
        assert all(np.isfinite(np.asarray(part)).all() for part in answer)
    elif name == "key":  # every function that takes a key refuses it
        for other in OF_EXAMPLES.keys() - {"encode"}:
            assert held(lambda other=other: OF_EXAMPLES[other](PARAMS, value, X, C), "key") is None
        assert held(lambda: cvae.fit(MODEL, PARAMS, value, X, C, progress=False), "key") is None
        assert held(lambda: cvae.sample(MODEL, PARAMS, value, C), "key") is None


# Fitting

TRAINING = cvae.Training(epochs=1, batch_size=3)


def fit(x, c):
    return cvae.fit(MODEL, PARAMS, KEY, x, c, TRAINING, progress=False)


@given(data=st.data())
def test_fitting(data):
    """What is accepted can be fitted; equal values of any dtype are fitted alike."""
    x, c, named = data.draw(st.sampled_from((X, PIXELS)), "valid"), C, "x"
    if data.draw(st.booleans(), "x is changed"):
        x = data.draw(near(x), "x")
    else:
        c, named = data.draw(conditions(C), "c"), "c"
    if held(lambda: fitting.prepare(MODEL, PARAMS, KEY, x, c, TRAINING, None, None), named, "c", "batch_size") is None:
        assert held(lambda: fit(x, c), named, "c", "batch_size") is None
        return
    plain = pixels(x), labels(c)
    # A fit is compiled for seconds, once for every pair of dtypes.
    few = x.dtype.name in ("uint8", "bfloat16", "float32") and c["label"].dtype in (np.int64, np.int16)
    if few and len(x) == BATCH:
        fitted = fit(x, c)
        assert math.isfinite(fitted.history[0].train.loss)
        tolerant = partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5)
        if x.dtype.name != "bfloat16":  # in which the loss is computed
            jax.tree.map(tolerant, fitted.params, fit(*plain).params)


# Conditions and distributions

ROWS = np.random.default_rng(5).normal(size=(BATCH, ELEMENTS)).astype(np.float32)
VALID = {name: draw_conditions(each, np.random.default_rng(6), ROWS) for name, each in CONDITIONS.items()}


@pytest.mark.parametrize("name", CONDITIONS)
@given(data=st.data())
def test_conditions(name, data):
    """What is accepted is encoded as its values say, eagerly and compiled."""
    condition, c = CONDITIONS[name], data.draw(conditions(VALID[name]), "c")
    if held(lambda: checks.arrays("c", c, condition.spec, BATCH) or True, "c"):
        plain = {key: np.asarray(value) for key, value in c.items()}
        for key, spec in condition.spec.items():
            if plain[key].dtype == np.uint8 and spec.kind == "pixels":
                plain[key] = plain[key] / 255
        expected = features(condition, plain)
        # As a fit and a score have it: on a device, integers have 32 bits.
        moved = {key: _within_32_bits(value, condition.spec[key]) for key, value in c.items()}
        for found in (condition.encode(c), encode(condition)(moved)):
            np.testing.assert_allclose(found.flat, expected, rtol=1e-5, atol=1e-6)


@cache
def encode(condition):
    return jax.jit(condition.encode)


COLUMNS = np.random.default_rng(4).normal(size=(5, 2)) * [1e-3, 40] + [0, 1e3]


@pytest.mark.parametrize("name", ["Continuous", "Normal"])
@given(values=near(COLUMNS))
def test_standardization(name, values):
    argument = "x" if name == "Normal" else "c['continuous']"
    fitted = held(lambda: getattr(cvae, name).fitted(values), argument)
    if fitted is not None:
        array = np.asarray(values, np.float64)
        array = array / 255 if name == "Normal" and values.dtype == np.uint8 else array
        array = array.reshape(-1, array.shape[-1])
        location, scale = (fitted.location, fitted.scale) if name == "Normal" else (fitted.mean, fitted.std)
        means = [math.fsum(column) / len(array) for column in array.T]
        np.testing.assert_allclose(location, means, rtol=1e-6, atol=1e-9)
        standard = distributions.standardize(array, location, scale)[:, np.array(scale) > 0]
        np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-6)


NORMALS = [np.random.default_rng(seed).normal(size=(BATCH, 5)).astype(np.float32) for seed in range(4)]


@pytest.mark.parametrize("name", ["Normal", "Bernoulli", "ContinuousBernoulli", "Masked", "Standardized"])
@given(data=st.data())
def test_densities(name, data):
    at, log_std, unit, observed = NORMALS[0], NORMALS[1], expit(NORMALS[2]), NORMALS[3] > 0
    valid = unit if data.draw(st.booleans(), "on the unit interval") else (unit > 0.5).astype(np.int64)
    x, normal = data.draw(near(valid), "x"), distributions.Normal(at, log_std)
    distribution = {
        "Normal": normal,
        "Bernoulli": distributions.Bernoulli(at),
        "ContinuousBernoulli": distributions.ContinuousBernoulli(at),
        "Masked": distributions.Masked(normal, observed, at),
        "Standardized": distributions.Standardized(normal, (2.0,), (3.0,)),
    }[name]
    found = held(lambda: distribution.log_prob(x), "x")
    if found is not None:
        assert np.dtype(x.dtype).name in FLOATS or np.dtype(x.dtype).kind in "biu"
        with np.errstate(over="ignore"):
            values = np.asarray(x).astype(np.float32)
        expected = distribution.log_prob(values)
        np.testing.assert_allclose(np.maximum(found, -1e37), np.maximum(expected, -1e37), rtol=1e-5, atol=1e-5)


@given(data=st.data())
def test_divergence(data):
    normals = {name: distributions.Normal(*NORMALS[i : i + 2]) for name, i in (("q", 0), ("p", 2))}
    name = data.draw(st.sampled_from(("q", "p")), "which")
    if data.draw(st.booleans(), "only its mean"):
        normals[name] = distributions.Normal(data.draw(near(NORMALS[0]), "mean"), NORMALS[1])
    else:
        normals[name] = data.draw(anything(), name)
    found = held(lambda: cvae.kl_divergence(**normals), "q", "p")
    if found is not None:
        expected = cvae.kl_divergence(*(jax.tree.map(np.float32, normals[each]) for each in "qp"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# Data

IMAGES = np.random.default_rng(12).integers(0, 256, (3, 5, 4, 1)).astype(np.uint8)


@given(seed=st.sampled_from((0, 7, 2**32 - 1)) | anything(), x=near(IMAGES) | near((IMAGES / 255).astype(np.float32)))
def test_binarization(seed, x):
    drawn = held(lambda: cvae.data.binarize(seed, x), "seed", "x")
    if drawn is not None:
        grey = pixels(x)
        assert drawn.dtype == bool
        assert not drawn[grey == 0].any()
        assert drawn[grey == 1].all()
        np.testing.assert_array_equal(drawn, cvae.data.binarize(seed, grey))


@given(data=st.data())
def test_splits(data):
    arguments = {"size": 70, "seed": 5, "validation": 0.1, "test": 0.2}
    named = data.draw(st.sampled_from(sorted(arguments)), "which")
    valid = {
        "size": st.integers(-2, 200) | st.just(100_000),
        "seed": st.integers(-1, 2**32),
        "validation": st.floats() | st.sampled_from((np.float16(0.5), np.float32(0.3), 1)),
        "test": st.floats() | st.just(np.float16(0.25)),
    }[named]
    arguments[named] = data.draw(valid | anything(), named)
    rows = held(lambda: cvae.data.split_rows(**arguments), named, "size", "the split")
    if rows is not None:
        size = arguments["size"]
        assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(size))
        for part, share in ((rows.validation, arguments["validation"]), (rows.test, arguments["test"])):
            assert abs(len(part) - size * float(share)) <= 0.5 + 1e-9
        again = cvae.data.split_rows(**arguments)
        assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


@given(data=st.data())
def test_classification(data):
    arguments = {
        "class_log_likelihoods": np.random.default_rng(6).normal(size=(4, 3)) * 5,
        "label": np.array([0, 2, 1, 1]),
        "log_prior": np.log([0.2, 0.3, 0.5]),
    }
    named = data.draw(st.sampled_from(sorted(arguments)), "which")
    arguments[named] = data.draw(near(arguments[named]), named)
    found = held(lambda: classification.classify(**arguments), named, "label", "log_prior")
    if found is not None:
        scores, label, prior = arguments.values()
        prior = None if prior is None else np.asarray(prior, float)
        plain = classification.classify(np.asarray(scores, float), np.asarray(label, int), log_prior=prior)
        assert_close(found[:3], plain[:3], rtol=1e-9, atol=1e-12)
        assert found.calibration.examples.sum() == len(label)
        assert 0 <= found.expected_calibration_error.value <= 1


# Settings

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS | st.sampled_from((0, 1, 10**400, 1e39)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SIZES = st.integers(1, 40)
POSITIVE = st.floats(1e-30, 1e30) | SIZES
SCALES = st.floats(1e-6, 1e6) | SIZES
NAMES = st.text(min_size=1, max_size=5).filter(lambda name: name != "observed")
DISTINCT = {"min_size": 1, "max_size": 4, "unique_by": lambda value: f"{value:.12g}"}
BASES = [
    cvae.Architecture((4, 4, 1), cvae.Label(3), latent_size=4, hidden=(8, 6)),
    cvae.Training(), cvae.Sweep(), cvae.Label(3), cvae.Continuous(2), cvae.Image((4, 6, 1)), cvae.Normal(),
]  # fmt: skip
# Valid values of the fields of each.
FIELDS = {
    "Architecture": {
        "event_shape": st.lists(SIZES, min_size=1, max_size=4),
        "condition": st.just(cvae.Unconditional()) | st.builds(cvae.Label, st.integers(2, 9)),
        "latent_size": st.integers(0, 100),
        "hidden": st.lists(SIZES, min_size=1, max_size=4),
        "body": st.sampled_from(("mlp", "residual", "convolutional")),
        "conditioning": st.sampled_from(("concat", "film", "concat_all")),
        "prior": st.sampled_from(("standard", "learned")),
        "likelihood": st.builds(cvae.Normal, SCALES) | st.just(cvae.ContinuousBernoulli()),
        "latent_layers": st.sampled_from((1, 2, 4)),
    },
    "Training": {
        **dict.fromkeys(("epochs", "batch_size", "num_samples"), SIZES),
        **dict.fromkeys(("learning_rate", "beta"), POSITIVE),
        **dict.fromkeys(("hybrid_weight", "shift_prob", "drop_block_prob"), st.floats(0, 1) | st.integers(0, 1)),
        **dict.fromkeys(("beta_warmup", "shift"), st.integers(0, 100)),
        **dict.fromkeys(("weight_decay", "free_bits"), POSITIVE | st.just(0)),
        **{"clip_norm": st.none() | POSITIVE, "patience": st.none() | SIZES},
        "schedule": st.sampled_from(("constant", "cosine", "warmup_cosine")),
        "ema_decay": st.floats(0, 1, exclude_max=True),
        "objective": st.sampled_from(("elbo", "iwae")),
        "binarization": st.sampled_from(("none", "dynamic", "static")),
        "hide_prob": st.floats(0, 0.99),
        "frozen": st.lists(NAMES, max_size=3),
    },
    "Sweep": {
        "latent_sizes": st.lists(SIZES, **DISTINCT),
        "seeds": st.lists(st.integers(0, 2**32 - 1), **DISTINCT),
        **dict.fromkeys(("betas", "learning_rates"), st.lists(POSITIVE, **DISTINCT)),
    },
    "Label": {"num_classes": st.integers(2, 1000), "name": NAMES},
    "Continuous": {
        "mean": st.lists(st.floats(-1e30, 1e30) | st.integers(), min_size=2, max_size=2),
        "std": st.lists(POSITIVE, min_size=2, max_size=2),
    },
    "Image": {
        "event_shape": st.lists(st.integers(2, 40), min_size=2, max_size=4),
        "mask": st.sampled_from((*masks.MASKS, "given")),
        **{"name": NAMES, "separate": st.booleans()},
    },
    "Normal": {
        "std": st.none() | SCALES,
        "bounds": st.lists(SCALES, min_size=2, max_size=2, unique=True).map(sorted),
    },
}
# What a value contradicts may be named in the place of its field.
ALSO_NAMED = {"latent_layers": ["latent_size"], "body": ["event_shape", "hidden"], "event_shape": ["mask", "condition"]}
ALSO_NAMED |= {"condition": ["kind", "prior"], "likelihood": ["kind"]}


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
@given(data=st.data())
def test_settings(base, data):
    """Any JSON either makes a setting that hashes and goes to JSON and back, or is refused by the name of its field."""
    valid = FIELDS[type(base).__name__]
    name = data.draw(st.sampled_from(sorted(valid)), "field")
    is_valid = data.draw(st.booleans(), "valid")
    value = data.draw(valid[name] if is_valid else JSON, name)
    made = held(lambda: cvae.replace(base, **{name: value}), name, *ALSO_NAMED.get(name, []))
    assert made is not None or not is_valid or value == "convolutional"
    if made is not None:
        assert isinstance(hash(made), int)
        assert from_json(type(base), json.loads(json.dumps(to_json(made)))) == made


def test_both_outcomes_occurred():
    """In all properties together, and so after few cases of each."""
    if OUTCOMES.total() < 100:
        pytest.skip("the tests above did not run")
    assert min(OUTCOMES["answered"], OUTCOMES["refused"]) > 0.2 * OUTCOMES.total()
