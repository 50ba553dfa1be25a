"""Sweeps: one program for all members, each trained as if alone; that it is a smaller model, `test_model` shows."""

import jax
import numpy as np
import pytest

import cvae
from cvae import sweeps
from cvae.loop import Progress
from cvae.settings import replace
from cvae.sweeps import Member, fit_members, group_epochs, split
from cvae.training import train_steps
from tests.conftest import CLASSES, EVENT

SIZE, WIDEST = 23, 4
# Everything that a member alone and members side by side might treat differently.
TRAINING = cvae.Training(
    epochs=2, batch_size=5, schedule="cosine", weight_decay=0.2, ema_decay=0.5, clip_norm=5.0, beta_warmup=1,
    free_bits=0.1, binarization="dynamic", shift=1,
)  # fmt: skip
FIVE = [
    Member(2, 0, 1.0, 3e-3),
    Member(4, 7, 0.5, 1e-3),
    Member(1, 3, 2.0, 5e-3),
    Member(3, 0, 4.0, 3e-3),
    Member(2, 2**32 - 1, 1.0, 1e-3),
]
# Of a weight: 8 steps of 5e-3 at most. A gradient's rounding, some 1e-6 of it, may grow a hundredfold through Adam's
# division and again as often through the steps after it: a hundredth of the way would be no rounding.
ROUNDING = 8 * 5e-3 * 1e-3


@pytest.fixture(scope="module")
def case():
    """A model of latent size 4 with a learned prior, and examples for it."""
    rng = np.random.default_rng(8)
    model = cvae.make(cvae.Architecture(EVENT, cvae.Label(CLASSES), WIDEST, (6,), prior="learned"))
    x = rng.integers(0, 256, (SIZE, *EVENT), dtype=np.uint8)
    return model, x, {"label": rng.integers(0, CLASSES, SIZE)}


def run(case, chosen, parallel=1, training=TRAINING):
    model, x, c = case
    return fit_members(model, chosen, x, c, training, parallel)


@pytest.fixture(scope="module")
def alone(case):
    """Five members, one after the other."""
    return run(case, FIVE)


def distance(a, b) -> float:
    """The largest difference between two trees of weights."""
    return max(float(np.abs(p - q).max()) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def assert_same(one, two) -> None:
    """Equal but for rounding."""
    assert distance(one.params, two.params) < ROUNDING
    for a, b in zip(one.history, two.history, strict=True):
        assert a.epoch == b.epoch
        np.testing.assert_allclose([*a.train, a.first_loss], [*b.train, b.first_loss], rtol=1e-5)


def test_members_are_every_combination():
    sweep = cvae.Sweep((2, 8), seeds=(0, 1), betas=(0.5,), learning_rates=(1e-3, 3e-4))
    found = sweeps.members(sweep)
    assert len(set(found)) == len({member.name for member in found}) == 8
    assert found[0] == Member(2, 0, 0.5, 1e-3)
    assert found[-1] == Member(8, 1, 0.5, 3e-4)
    assert found[0].name == "z02_seed0_beta0.5_lr0.001"


def test_a_cpu_trains_one_member_at_a_time():
    if jax.default_backend() == "cpu":
        assert sweeps.parallel_members() == 1
    else:
        assert sweeps.parallel_members() > 10**6


# Members one by one


def test_a_member_alone_is_a_plain_fit_of_the_masked_model(case, alone):
    model, x, c = case
    for member, one in list(zip(FIVE, alone, strict=True))[:2]:
        params, key = member.init(model)
        fitted = cvae.fit(cvae.masked(model), params, key, x, c, member.training(TRAINING), progress=False)
        jax.tree.map(np.testing.assert_array_equal, one.params, fitted.params)
        assert [epoch[:4] for epoch in one.history] == [epoch[:4] for epoch in fitted.history]
        assert len(one.history) == TRAINING.epochs
        assert one.params["mask"].tolist() == [1.0] * member.latent_size + [0.0] * (WIDEST - member.latent_size)


def test_members_share_one_compiled_program(case, alone):
    """Latent sizes, seeds, betas and learning rates are arrays."""
    programs = (train_steps, sweeps._init)
    before = [program._cache_size() for program in programs]
    run(case, [Member(3, 11, 0.25, 1e-4)])
    assert [program._cache_size() for program in programs] == before


def test_beta_and_the_learning_rate_are_the_members(case, alone):
    """A vanishing learning rate leaves the start, apart from the moving average's rounding; beta raises the loss."""
    still, other = run(case, [Member(2, 0, 1.0, 1e-30), Member(2, 0, 50.0, 3e-3)], parallel=2)
    start, _ = FIVE[0].init(case[0])
    assert distance(still.params, start) < ROUNDING
    assert distance(alone[0].params, start) > 100 * ROUNDING
    assert other.history[-1].train.loss > alone[0].history[-1].train.loss
    assert distance(other.params, alone[0].params) > 100 * ROUNDING


# Members side by side


@pytest.mark.parametrize("parallel", [2, 3])
def test_members_side_by_side_are_trained_as_if_alone(case, alone, parallel):
    """Five by twos or threes: the last group is filled up, and what fills it is dropped."""
    together = run(case, FIVE, parallel)
    for one, by_itself in zip(together, alone, strict=True):
        assert_same(one, by_itself)
    for i in range(5):
        for j in range(i):
            assert distance(alone[i].params["model"], alone[j].params["model"]) > 100 * ROUNDING


@pytest.mark.parametrize("size", [1, 2])
def test_a_resumed_group_ends_at_the_same_bits(case, size):
    """From a copy of its progress, on the host, as from a disk."""
    model, group = case[0], FIVE[:size]
    first, last = group_epochs(model, group, *case[1:], TRAINING)
    copy = jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) else leaf, first)
    assert isinstance(copy, Progress)
    (resumed,) = group_epochs(model, group, *case[1:], TRAINING, copy)
    for one, two in zip(split(resumed, group), split(last, group), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.state.params, two.state.params)
        assert [epoch[:4] for epoch in one.history] == [epoch[:4] for epoch in two.history]
        assert np.isscalar(one.history[0].train.loss)
    with pytest.raises(ValueError, match=r"clip_norm must be as in the fit that is resumed, 5\.0, got None"):
        group_epochs(model, group, *case[1:], replace(TRAINING, clip_norm=None), copy)


# What is refused


@pytest.mark.parametrize("parallel", [1, 2])
def test_what_is_not_finite_stops_the_sweep(case, parallel):
    wild = [FIVE[0], FIVE[0]._replace(learning_rate=1e30)]
    which = {1: "the loss", 2: "the loss of member 2 of the group"}[parallel]
    with pytest.raises(FloatingPointError, match=f"^{which} in epoch [12].*; try a lower learning_rate"):
        run(case, wild, parallel)


BAD = {
    "nobody": ({"chosen": []}, "group must have at least one member, got none"),
    "too wide": ({"chosen": [FIVE[0], Member(5, 0, 1.0, 1e-3)]}, r"latent_size must be in \[1, 4\], .* got 5"),
    "beta": ({"chosen": [Member(2, 0, -5.0, 1e-3)]}, r"beta must be greater than 0, got -5\.0"),
    "rate": ({"chosen": [Member(2, 0, 1.0, 0.0)]}, r"learning_rate must be greater than 0, got 0\.0"),
    "frozen": ({"training": replace(TRAINING, frozen=("model",))}, "frozen must be empty in a sweep"),
    "patience": ({"training": replace(TRAINING, patience=2)}, "patience must be None in a sweep, got 2"),
    "none parallel": ({"parallel": 0}, "parallel must be an integer of at least 1, got 0"),
    "few": (
        {"training": replace(TRAINING, batch_size=24)},
        r"batch_size must be at most the number of examples \(23\), got 24",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(case, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(case, **({"chosen": FIVE} | arguments))
