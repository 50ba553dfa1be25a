"""Sweeps: one program for all members of a kind, each as if it were trained alone, and masked weights that stay 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import sweeps
from cvae.preparation import preparation
from cvae.sweeps import Member, fit_members
from cvae.training import Knobs, epoch, recipe
from tests.conftest import CLASSES, CONDITIONS, EVENT, stored
from tests.oracles import quickly_compiled

SIZE, WIDEST = 23, 4
# Everything that might move a weight which has no gradient.
TRAINING = cvae.Training(
    epochs=2, batch_size=5, weight_decay=0.2, average=0.5, clip_norm=5.0, beta_warmup=1, free_bits=0.1
)
FIVE = [
    Member(2, 0, 1.0, 3e-3),
    Member(4, 7, 0.5, 1e-3),
    Member(1, 3, 2.0, 5e-3),
    Member(3, 0, 4.0, 3e-3),
    Member(2, 1, 1.0, 1e-3),
]
# Of a weight: 8 steps of 5e-3 at most. A gradient's rounding, some 1e-6 of it, may grow a hundredfold through Adam's
# division and again as often through what the next steps make of it: a hundredth of the way would be no rounding.
ROUNDING = 8 * 5e-3 * 1e-3


@pytest.fixture(autouse=True, scope="module")
def _quickly_compiled():
    with quickly_compiled():
        yield


def build(condition, **fields):
    """A model of latent size 4 and one small layer, and a set for it."""
    rng = np.random.default_rng(8)
    model = cvae.make(cvae.Architecture(EVENT, condition, WIDEST, (6,), **fields))
    return model, rng.integers(0, 256, (SIZE, *EVENT), dtype=np.uint8), stored(condition, rng, SIZE)


@pytest.fixture(scope="module")
def case():
    """A model with a learned prior."""
    return build(cvae.Label(CLASSES), prior="learned")


def run(case, chosen, **arguments):
    model, x, c = case
    arguments = {"training": TRAINING, "at_once": 1, "progress": False} | arguments
    return fit_members(model, chosen, x, c, **arguments)


@pytest.fixture(scope="module")
def alone(case):
    """Five members, one after the other."""
    return run(case, FIVE)


def distance(a, b) -> float:
    """The largest difference between two trees of weights."""
    return max(float(np.abs(p - q).max()) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def of_latents(params, chosen: slice) -> list[np.ndarray]:
    """What reads or writes some of the latents: columns of the heads, rows of the decoder's first layer."""
    params = params["model"]
    heads = [
        params[name]["head"][leaf] for name in ("encoder", "prior") if name in params for leaf in ("kernel", "bias")
    ]
    columns = [np.asarray(half)[..., chosen] for head in heads for half in jnp.split(head, 2, axis=-1)]
    first = params["decoder"]["mlp"]["layers"]["layer_0"]["linear"]["kernel"]
    return [*columns, np.asarray(first)[:WIDEST][chosen]]


def assert_masked_weights_are_nought(trained) -> None:
    for part in of_latents(trained.params, slice(trained.member.latent_size, None)):
        np.testing.assert_array_equal(part, 0)
    for part in of_latents(trained.params, slice(trained.member.latent_size)):
        assert np.all(part != 0)


# Which program


@pytest.mark.parametrize("name", CONDITIONS)
def test_members_of_one_condition_share_one_compiled_program(name):
    """Latent sizes, seeds, betas and learning rates are arrays; only another condition is another program."""
    case = build(CONDITIONS[name])
    training = cvae.Training(epochs=2, batch_size=10, weight_decay=0.2)
    programs = (sweeps.epochs, sweeps.begin)
    before = [program._cache_size() for program in programs]
    trained = run(case, FIVE[:3], training=training)
    assert [program._cache_size() for program in programs] == [number + 1 for number in before]
    run(case, [Member(3, 2**32 - 1, 0.25, 1e-4)], training=training)
    assert [program._cache_size() for program in programs] == [number + 1 for number in before]
    for one in trained:
        assert_masked_weights_are_nought(one)
        assert np.isfinite([terms.loss for terms in one.history]).all()


# What becomes of a member


def test_what_is_trained_is_what_was_asked_for(alone):
    assert [one.member for one in alone] == FIVE
    for one in alone:
        assert len(one.history) == TRAINING.epochs
        assert one.history[-1]._fields == ("loss", "log_likelihood", "kl")
        assert one.seconds > 0
        mask = np.arange(WIDEST) < one.member.latent_size
        np.testing.assert_array_equal(one.params["mask"] > 0, mask)
        np.testing.assert_allclose(one.params["mask"], mask, rtol=1e-6)


def test_masked_weights_never_move(alone):
    """Not by gradient, weight decay, momentum or the moving average: 0 to the last bit; and all others do."""
    assert {one.member.latent_size for one in alone} == {1, 2, 3, WIDEST}
    for one in alone:
        assert_masked_weights_are_nought(one)


@pytest.mark.parametrize("at_once", [2, 3])
def test_a_member_is_trained_side_by_side_as_if_alone(case, alone, at_once):
    """Five by twos or threes: the last group is filled up, and what fills it is dropped."""
    together = run(case, FIVE, at_once=at_once)
    assert [one.member for one in together] == FIVE
    for one, by_itself in zip(together, alone, strict=True):
        assert distance(one.params, by_itself.params) < ROUNDING
        np.testing.assert_allclose(one.history, by_itself.history, rtol=1e-5)
        assert_masked_weights_are_nought(one)
    for i in range(5):
        for j in range(i):
            assert distance(alone[i].params["model"], alone[j].params["model"]) > 100 * ROUNDING


def test_a_member_does_not_depend_on_its_company(case, alone):
    turned = run(case, FIVE[::-1], at_once=2)[::-1]
    again = run(case, [FIVE[3], FIVE[1]], at_once=2)
    for one, by_itself in zip([*turned, *again], [*alone, alone[3], alone[1]], strict=True):
        assert one.member == by_itself.member
        assert distance(one.params, by_itself.params) < ROUNDING


def test_the_same_arguments_give_the_same_bits(case, alone):
    for one, by_itself in zip(run(case, FIVE[1:3]), alone[1:3], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.params, by_itself.params)
        assert one.history == by_itself.history


def test_a_member_is_what_epochs_of_training_make_of_the_masked_model(case, alone):
    """From the same start and keys, `training.epoch` ends where the sweep does, term by term."""
    model, x, c = case
    for one in alone[:2]:
        member = one.member
        mask = (np.arange(WIDEST) < member.latent_size).astype(np.float32)
        seeds = np.array([member.seed], np.uint32)
        states = sweeps.begin(cvae.masked(model), mask[None], seeds, recipe(TRAINING))
        state = jax.tree.map(lambda leaf: jnp.array(leaf[0]), states)
        init = jax.jit(model.init)(jax.random.fold_in(jax.random.key(member.seed), 0))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[a != 0], b[np.asarray(a) != 0], rtol=1e-6),
            state.params["model"], init,
        )  # fmt: skip
        knobs, history = Knobs(member.learning_rate, member.beta), []
        for number in (1, 2):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(member.seed), 1), number)
            state, terms = epoch(
                cvae.masked(model), state, key, x, c, knobs, recipe=recipe(TRAINING),
                prepare=preparation(cvae.Label(CLASSES)),
            )  # fmt: skip
            history.append(np.asarray(terms).mean(axis=0))
        assert distance(state.result, one.params) < ROUNDING
        np.testing.assert_allclose(history, one.history, rtol=1e-5)


def test_beta_and_the_learning_rate_are_the_members(case, alone):
    """Twice the beta leaves less KL; a learning rate of next to nothing leaves the start."""
    still, other = run(case, [Member(2, 0, 1.0, 1e-30), Member(2, 0, 50.0, 3e-3)])
    model = case[0]
    start = sweeps.begin(
        cvae.masked(model), np.array([[1, 1, 0, 0]], np.float32), np.array([0], np.uint32), recipe(TRAINING)
    )
    start = jax.tree.map(lambda leaf: leaf[0], start.params)
    assert distance(still.params["model"], start["model"]) < ROUNDING
    assert distance(alone[0].params["model"], start["model"]) > 100 * ROUNDING
    assert other.history[-1].loss > alone[0].history[-1].loss
    assert distance(other.params["model"], alone[0].params["model"]) > 100 * ROUNDING


# On the way


def test_members_are_handed_over_as_groups_finish(case):
    """What is done is kept, although a later one fails; the message says which."""
    wild = Member(3, 5, 1.0, 1e30)
    for at_once, kept in ((1, FIVE[:3]), (2, FIVE[:2])):
        seen = []
        with pytest.raises(
            FloatingPointError, match=r"the loss of z03_seed5_beta1_lr1e\+30 in epoch [12], step \d+ is"
        ):
            run(case, [*FIVE[:3], wild, FIVE[4]], at_once=at_once, on_trained=lambda one, seen=seen: seen.append(one))
        assert [one.member for one in seen] == kept


def test_a_last_group_is_handed_over_without_its_filling(case, alone):
    seen = []
    trained = run(case, FIVE[:3], at_once=2, on_trained=seen.append)
    assert [one.member for one in seen] == FIVE[:3]
    assert trained == seen or all(a is b for a, b in zip(trained, seen, strict=True))


def test_a_bar_counts_epochs_of_members(case, capfd):
    run(case, FIVE[:3], at_once=2)
    assert capfd.readouterr() == ("", "")
    run(case, FIVE[:3], at_once=2, progress=True, name="latents")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "latents: 100%" in shown.err
    assert "6/6" in shown.err


def test_members_are_every_combination():
    sweep = cvae.Sweep((2, 8), seeds=(0, 1), betas=(0.5,), learning_rates=(1e-3, 3e-4))
    found = sweeps.members(sweep)
    assert len(found) == len(set(found)) == 8
    assert {member.latent_size for member in found} == {2, 8}
    assert found[0] == Member(2, 0, 0.5, 1e-3)
    assert found[-1] == Member(8, 1, 0.5, 3e-4)
    names = [member.name for member in found]
    assert names[0] == "z02_seed0_beta0.5_lr0.001"
    assert len(set(names)) == 8


def test_a_cpu_runs_one_member_at_a_time():
    if jax.default_backend() == "cpu":
        assert sweeps.side_by_side() == 1
    else:
        assert sweeps.side_by_side() > 10**6


BAD = {
    "nobody": ({"chosen": []}, "chosen must name at least one member, got none"),
    "too wide": ({"chosen": [FIVE[0], Member(5, 0, 1.0, 1e-3)]}, r"latent_size must be in \[1, 4\], .* got 5"),
    "no latent": ({"chosen": [Member(0, 0, 1.0, 1e-3)]}, "latent_size must be a whole number of at least 1, got 0"),
    "no size": ({"chosen": [Member("2", 0, 1.0, 1e-3)]}, "latent_size must be a whole number of at least 1, got '2'"),
    "no seed": ({"chosen": [Member(2, -1, 1.0, 1e-3)]}, "seed must be a whole number of at least 0, got -1"),
    "no weight": ({"chosen": [Member(2, 0, -5.0, 1e-3)]}, "beta must be a finite number above 0, got -5.0"),
    "no rate": ({"chosen": [Member(2, 0, 1.0, 0.0)]}, "learning_rate must be a finite number above 0, got 0.0"),
    "frozen": ({"training": cvae.Training(batch_size=5, frozen=("model",))}, "frozen must be empty in a sweep"),
    "patience": ({"training": cvae.Training(batch_size=5, patience=2)}, "patience must be None in a sweep, got 2"),
    "none at once": ({"at_once": 0}, "at_once must be a whole number of at least 1, got 0"),
    "half at once": ({"at_once": 1.5, "chosen": FIVE[:1]}, r"at_once must be a whole number of at least 1, got 1\.5"),
    "no batch": ({"training": cvae.Training(batch_size=24)}, "x must hold at least one batch, 24 examples, got 23"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_trained_is_refused(case, arguments, message):
    arguments = {"chosen": FIVE} | arguments
    with pytest.raises(ValueError, match=message):
        run(case, **arguments)


@pytest.mark.parametrize("noise", [{"shift": 1}, {"omission": 1.0}])
def test_the_noise_of_training_reaches_members(noise):
    """One step of one batch, of a rate at which nothing is learned."""
    model, x, c = build(CONDITIONS["image"])
    chosen, still = [Member(WIDEST, 0, 1.0, 1e-12)], cvae.Training(epochs=1, batch_size=SIZE)
    plain, noisy = (
        run((model, x, c), chosen, training=cvae.Training(epochs=1, batch_size=SIZE, **settings))[0].history[0].loss
        for settings in ({}, noise)
    )
    assert abs(noisy - plain) > 1e-3
    assert run((model, x, c), chosen, training=still)[0].history[0].loss == plain


def test_a_last_step_that_spoils_the_parameters_is_no_success(case):
    chosen = [FIVE[0], FIVE[0]._replace(learning_rate=1e38)]
    message = r"the parameters of z02_seed0_beta1_lr1e\+38 after epoch 1 are not finite; try a lower learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        run(case, chosen, training=cvae.Training(epochs=1, batch_size=SIZE, weight_decay=10.0))


def test_bad_examples_and_models_are_refused(case):
    model, x, c = case
    with pytest.raises(ValueError, match=r"c\['label'\] must be integers in \[0, 5\)"):
        run((model, x, {"label": c["label"] + 5}), FIVE)
    with pytest.raises(ValueError, match="model must be one of `make`"):
        run((model._replace(architecture=None), x, c), FIVE)
