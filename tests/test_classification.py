"""Classification by Bayes' rule: exact where p(x | y) is known, and with figures computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from cvae.classification import BINS, class_log_likelihoods, classify
from tests.oracles import BATCH, CONDITIONS, linear_gaussian


def exact_scores(oracle, name: str, classes: int) -> np.ndarray:
    """Log p(x | y, rest of c) for every y, [B, classes], by SciPy."""
    conditions = [oracle.c | {name: np.full(BATCH, y)} for y in range(classes)]
    return np.stack([oracle._replace(c=c).exact_log_prob() for c in conditions], axis=1)


@pytest.mark.parametrize(("condition", "name", "classes"), [("label", "label", 4), ("mixed", "group", 3)])
def test_the_score_of_a_class_is_its_exact_log_likelihood(condition, name, classes):
    """With the exact posterior of every class; the rest of the condition stays as it is."""
    oracle = linear_gaussian(exact=True, condition=CONDITIONS[condition])
    scores = class_log_likelihoods(*oracle[:2], jax.random.key(0), oracle.x, oracle.c, name=name, num_samples=3)
    exact = exact_scores(oracle, name, classes)
    assert np.all(np.ptp(exact, axis=1) > 0.5), "swapped classes would show"
    np.testing.assert_allclose(scores, exact, rtol=1e-5)
    # The label in c is ignored, and may be missing.
    rest = {key: value for key, value in oracle.c.items() if key != name}
    for other in (rest, rest | {name: np.full(BATCH, 99)}):
        again = class_log_likelihoods(*oracle[:2], jax.random.key(0), oracle.x, other, name=name, num_samples=3)
        np.testing.assert_array_equal(again, scores)


@pytest.mark.parametrize("proposal", ["posterior", "mixture"])
def test_the_score_of_a_class_is_unbiased_with_a_wrong_encoder(proposal):
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["label"])
    arguments = {"num_samples": 40, "batch_size": 900, "proposal": proposal}
    scores = class_log_likelihoods(*oracle[:2], jax.random.key(3), *oracle.repeated(300), **arguments)
    ratio = np.exp(scores.astype(np.float64).reshape(BATCH, 300, 4) - exact_scores(oracle, "label", 4)[:, None])
    error = ratio.std(axis=1, ddof=1) / np.sqrt(300)
    assert np.all(np.abs(ratio.mean(axis=1) - 1) < 5 * error)


def test_classes_share_their_noise():
    """A label that changes nothing makes no difference, not even of noise."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["label"])
    constant = oracle.params | {name: jnp.zeros_like(oracle.params[name]) for name in ("V", "M")}
    scores = class_log_likelihoods(oracle.model, constant, jax.random.key(1), *oracle.repeated(2), num_samples=3)
    np.testing.assert_array_equal(scores, np.repeat(scores[:, :1], 4, axis=1))
    assert len(np.unique(scores[:, 0])) == 2 * BATCH


@pytest.mark.parametrize(
    ("condition", "name", "found"),
    [
        ("label", "digit", r"\['label'\], got 'digit'"),
        ("mixed", "amount", r"\['group'\], got 'amount'"),
        ("unconditional", "label", r"\[\], got 'label'"),
    ],
)
def test_a_model_without_such_a_label_is_refused(condition, name, found):
    oracle = linear_gaussian(exact=True, condition=CONDITIONS[condition])
    for model, message in ((oracle.model, found), (oracle.model._replace(architecture=None), r"\[\]")):
        with pytest.raises(ValueError, match=f"name must be a label of the model, one of {message}"):
            class_log_likelihoods(model, oracle.params, jax.random.key(0), oracle.x, oracle.c, name=name)


# Posterior probabilities of three classes; every row's scores are off by a constant of their own.
POSTERIOR = np.array([[0.7, 0.2, 0.1], [0.1, 0.9, 0.0001], [0.32, 0.33, 0.35], [0.05, 0.25, 0.7]])
POSTERIOR /= POSTERIOR.sum(axis=1, keepdims=True)
SCORES = np.log(POSTERIOR) + np.array([[-800.0], [3.0], [0.0], [-95.5]])
LABEL = np.array([0, 1, 0, 1])


def test_the_figures_of_four_examples():
    found = classify(SCORES, LABEL)
    assert found.accuracy == pytest.approx((0.5, np.sqrt(0.25 * 4 / 3 / 4)))
    losses = -np.log(POSTERIOR[np.arange(4), LABEL])
    assert found.negative_log_probability == pytest.approx((losses.mean(), losses.std(ddof=1) / 2))
    # Bins of a fifteenth: 0.7 twice in [10/15, 11/15), one of them right; 0.9 alone and right; 0.35 alone and wrong.
    high = POSTERIOR[1, 1]
    assert found.calibration.examples.tolist() == [0] * 5 + [1] + [0] * 4 + [2] + [0] * 2 + [1] + [0]
    assert found.calibration.confidence[[5, 10, 13]] == pytest.approx([0.35, 0.7, high])
    assert found.calibration.accuracy[[5, 10, 13]] == pytest.approx([0.0, 0.5, 1.0])
    assert np.isnan(found.calibration.confidence[0])
    error = (1 * 0.35 + 2 * (0.7 - 0.5) + 1 * (1 - high)) / 4
    assert found.expected_calibration_error.value == pytest.approx(error)
    assert 0 < found.expected_calibration_error.standard_error < 0.5
    certain = classify(np.array([[0.0, -1e4], [0.0, -1e4], [-1e4, 0.0]]), np.array([0, 0, 0]))
    assert certain.calibration.examples.tolist() == [0] * (BINS - 1) + [3]
    assert certain.expected_calibration_error.value == pytest.approx(1 / 3)


def test_a_prior_over_the_classes_enters_by_bayes_rule():
    prior = np.log([0.02, 0.08, 0.9])
    joint = SCORES + prior
    found, uniform = classify(SCORES, LABEL, log_prior=prior), classify(SCORES, LABEL)
    losses = logsumexp(joint, axis=1) - joint[np.arange(4), LABEL]
    assert found.negative_log_probability.value == pytest.approx(losses.mean())
    assert found.accuracy.value == np.mean(joint.argmax(axis=1) == LABEL) != uniform.accuracy.value
    # A uniform prior, normalised or not, is the default.
    again = classify(SCORES, LABEL, log_prior=np.full(3, -7.0)).negative_log_probability
    assert again == pytest.approx(uniform.negative_log_probability)


@pytest.fixture(scope="module")
def calibrated():
    """Scores, and labels drawn from the posterior of these scores."""
    rng = np.random.default_rng(4)
    log_posterior = log_softmax(1.5 * rng.normal(size=(6000, 4)), axis=1)
    label = (np.exp(log_posterior).cumsum(axis=1) > rng.random((6000, 1))).argmax(axis=1)
    return log_posterior + rng.normal(size=(6000, 1)), label


def test_labels_drawn_from_the_posterior_are_calibrated(calibrated):
    found = classify(*calibrated)
    confidence, accuracy, examples = found.calibration
    used = examples > 0
    error = np.sqrt(confidence * (1 - confidence) / np.maximum(examples, 1))[used]
    assert np.all(np.abs(accuracy - confidence)[used] < 5 * error)
    assert examples.sum() == 6000
    # The error of a perfect classifier is not 0 but the mean of |noise|, sqrt(2 / pi) of its standard deviation.
    expected = np.sqrt(2 / np.pi) * (error * examples[used]).sum() / 6000
    width = np.sqrt((1 - 2 / np.pi) * ((error * examples[used]) ** 2).sum()) / 6000
    assert abs(found.expected_calibration_error.value - expected) < 5 * width
    # Every confidence is the probability of being right.
    predicted = np.exp(log_softmax(calibrated[0], axis=1).max(axis=1)).mean()
    assert abs(found.accuracy.value - predicted) < 5 * found.accuracy.standard_error


def test_the_standard_error_of_the_calibration_error_is_its_spread(calibrated):
    """Overconfident, where the error is well above its noise: over ten sets it varies as its bootstrap says."""
    scores, label = 3 * calibrated[0], calibrated[1]
    parts = [classify(scores[i::10], label[i::10]).expected_calibration_error for i in range(10)]
    spread = np.std([part.value for part in parts], ddof=1)
    stated = np.mean([part.standard_error for part in parts])
    assert abs(spread / stated - 1) < 5 / np.sqrt(2 * 9)
    assert stated > 0.005


BAD = {
    "rank": (SCORES[0], LABEL, None, r"class_log_likelihoods must have shape \[N, classes\], .*, got \(3,\)"),
    "one class": (SCORES[:, :1], LABEL * 0, None, r"two classes or more, got \(4, 1\)"),
    "range": (SCORES, LABEL + 2, None, r"label must be integers in \[0, 3\), got 3 at row 1"),
    "prior": (SCORES, LABEL, np.zeros(4), r"log_prior must have shape \[3\], got \(4,\)"),
    "infinite prior": (SCORES, LABEL, np.array([0, 0, -np.inf]), "log_prior must be .* finite, got -inf at row 2"),
}


@pytest.mark.parametrize(("scores", "label", "prior", "message"), BAD.values(), ids=BAD.keys())
def test_bad_scores_are_refused(scores, label, prior, message):
    with pytest.raises(ValueError, match=message):
        classify(scores, label, log_prior=prior)
