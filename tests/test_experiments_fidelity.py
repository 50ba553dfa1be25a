"""Agreement and diversity over the prior's temperature."""

import json

import pytest

from experiments import mnist_fidelity
from tests.commands import untrained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that is told the label."""
    return untrained(tmp_path_factory.mktemp("runs") / "label")


def test_colder_is_less_varied(trained):
    out = mnist_fidelity.main(mnist_fidelity.Settings(run=trained, temperatures=(1.0, 0.0), generated=20))
    summary = json.loads((out / "summary.json").read_text())
    warm, cold = summary["generated"]
    assert cold["diversity"]["value"] < 1e-5 < warm["diversity"]["value"]
    assert summary["real"]["agreement"]["value"] > 0.95
    assert summary["trained_in"]["experiment"] == "mnist_label"
    assert summary["pictures"] == 200


BAD = {
    "no run": ({"run": "absent"}, "run folder must hold a config.json"),
    "not told": ({"model": "vae"}, "--model must be told the label alone"),
    "negative": ({"temperatures": (-1.0,)}, "--temperatures must be a finite number of at least 0, got -1.0"),
    "none": ({"temperatures": ()}, "--temperatures must name at least one"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options_are_refused(trained, tmp_path, options, message):
    run = tmp_path / options["run"] if "run" in options else trained
    with pytest.raises(ValueError, match=message):
        mnist_fidelity.main(mnist_fidelity.Settings(**{"run": run} | {k: v for k, v in options.items() if k != "run"}))


def test_a_trained_run_is_never_replaced(trained):
    with pytest.raises(ValueError, match="--out must hold a run of mnist_fidelity or none, got one of mnist_label"):
        mnist_fidelity.main(mnist_fidelity.Settings(run=trained, out=trained))
    assert (trained / "checkpoints" / "cvae").is_dir()
