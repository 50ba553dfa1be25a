"""Keys by purpose: no two consumers of randomness share a key, and draws do not depend on how a batch is divided."""

import jax
import numpy as np
import pytest

from cvae import keys


def data(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_purposes_epochs_or_seeds_share_a_key():
    found = []
    for seed in range(8):
        key = jax.random.key(seed)
        found.append(data(key))
        for purpose in keys.PURPOSES:
            named = keys.named(key, purpose)
            epochs = jax.vmap(lambda epoch, named=named: jax.random.fold_in(named, epoch))(np.arange(60))
            found += [data(named), *map(tuple, np.asarray(jax.random.key_data(epochs)).tolist())]
    assert len(set(found)) == len(found)


def test_a_key_has_its_value_forever():
    """What a run drew can be drawn again: purposes keep their numbers."""
    key = jax.random.key(3)
    assert [data(keys.named(key, purpose)) for purpose in keys.PURPOSES] == [
        data(jax.random.fold_in(key, number)) for number in range(5)
    ]
    assert len(set(keys.BINARIZATION_SEEDS.values())) == len(keys.BINARIZATION_SEEDS)
    with pytest.raises(ValueError, match="tuple"):
        keys.named(key, "testing")


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_draws_of_a_threefry_key_do_not_depend_on_the_batch(impl):
    key = keys.threefry(jax.random.key(0, impl=impl))

    def draw(rows):
        return jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (2,)))(rows)

    whole = draw(np.arange(6))
    np.testing.assert_array_equal(np.concatenate([draw(np.arange(4)), draw(np.arange(4, 6))]), whole)
    assert len(np.unique(whole)) == 12
    assert data(keys.threefry(jax.random.key(1, impl=impl))) != data(key)
