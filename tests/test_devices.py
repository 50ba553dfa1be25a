"""The same losses and likelihoods on one device and on many, which are forced on a CPU in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from cvae.devices import mesh_for
from cvae.sweeps import Member, group_epochs

SIZE, BATCH = 120, 40
MESHES = {"1 x 1": (1, 1), "1 x 8": (8, 1), "2 x 4": (4, 2)}  # member x data: arguments of make_mesh


def answers(data, member):
    """Losses, log-likelihoods, draws and a sweep's losses on a mesh."""
    rng = np.random.default_rng(0)
    x, c = (rng.random((SIZE, 6)) < 0.4).astype(np.float32), {"label": rng.integers(0, 3, SIZE)}
    model = cvae.make(cvae.Architecture((6,), cvae.Label(3), 2, (16,)))
    params, training = model.init(jax.random.key(0)), cvae.Training(epochs=3, batch_size=BATCH, ema_decay=0.9)
    with jax.set_mesh(cvae.make_mesh(data, member)):
        fitted = cvae.fit(model, params, jax.random.key(1), x, c, training, validation=(x, c), progress=False)
        few = x[:77], {"label": c["label"][:77]}
        scored = cvae.log_likelihood(model, fitted.params, jax.random.key(2), *few, num_samples=20)
        drawn = cvae.generation.sample_each(model, fitted.params, jax.random.key(3), few[1], count=77, mean=True)
        group = [Member(2, seed, 1.0, 1e-3) for seed in range(4)]
        *_, last = group_epochs(model, group, x, c, cvae.Training(epochs=2, batch_size=BATCH))
    return {
        "losses": [[epoch.train.loss, epoch.validation.loss] for epoch in fitted.history],
        "scores": scored.value.tolist(),
        "means": drawn.tolist(),
        "sweep": [epoch.train.loss for epoch in last.history],
    }


def refusals():
    """What is said of meshes that do not suit."""
    said = []
    for data, member, arguments in [(9, 1, (40,)), (7, 1, (40,)), (1, 8, (40, 4))]:
        try:
            with jax.set_mesh(cvae.make_mesh(data, member)):
                mesh_for(*arguments)
        except ValueError as error:
            said.append(str(error))
    return said


@pytest.fixture(scope="module")
def eight():
    """The answers of a process that has eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_devices"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mesh", [*MESHES, "default"])
def test_losses_likelihoods_and_draws_are_those_of_one_device(eight, mesh):
    one, many = eight["1 x 1"], eight[mesh]
    for name, tolerance in {"losses": 1e-5, "sweep": 1e-5, "scores": 1e-5, "means": 1e-5}.items():
        np.testing.assert_allclose(many[name], one[name], rtol=tolerance, err_msg=name)


def test_all_devices_are_used_that_divide_the_batch_and_the_group(eight):
    assert eight["default meshes"] == [[1, 8], [1, 2], [4, 2], [1, 1]]


def test_meshes_that_do_not_suit_are_refused(eight):
    assert eight["refusals"] == [
        "data * member must be at most the number of devices, 8, got 9 * 1",
        "batch_size must be a multiple of 7, the mesh's data axis, got 40",
        "the number of members side by side must be a multiple of 8, the mesh's member axis, got 4",
    ]


def test_what_is_observed_of_a_mesh_with_other_axes_is_nothing():
    other = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("model",))
    with jax.set_mesh(other):
        assert mesh_for(10).axis_names == ("member", "data")


if __name__ == "__main__":
    found = {name: answers(*mesh) for name, mesh in MESHES.items()}
    found["default"] = answers(None, 1)
    found["default meshes"] = [[*mesh_for(*each).devices.shape] for each in [(40,), (50,), (50, 4), (7,)]]
    print(json.dumps(found | {"refusals": refusals()}))
