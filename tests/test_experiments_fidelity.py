"""Conditioning accuracy and diversity over the prior's temperature."""

import json

import pytest

from experiments import mnist_fidelity
from experiments.mnist_fidelity import Settings
from tests.commands import untrained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a model that is conditioned on the label."""
    return untrained(tmp_path_factory.mktemp("runs") / "label")


@pytest.fixture(scope="module")
def finished(trained):
    """The settings and the folder of a short run."""
    settings = Settings(run=trained, temperatures=(1.0, 0.0), generated=4)
    return settings, mnist_fidelity.execute(settings)


def test_colder_is_less_varied(finished, trained):
    _, out = finished
    summary = json.loads((out / "summary.json").read_text())
    warm, cold = summary["generated"]
    assert cold["diversity"]["value"] < 1e-5 < warm["diversity"]["value"]
    assert cold["draws"]["diversity"]["value"] > 1  # pixels are drawn all the same
    real = summary["real"]
    assert real["conditioning_accuracy"]["value"] > 0.95 > real["draws"]["conditioning_accuracy"]["value"] > 0.5
    assert (summary["trained_in"]["experiment"], summary["images"], summary["model"]) == ("mnist_label", 40, "cvae")
    assert out == trained.with_name("label_fidelity")


def test_the_same_command_again_prints_its_table(finished, capsys):
    settings, out = finished
    before = (out / "summary.json").read_bytes()
    mnist_fidelity.execute(settings)
    text = capsys.readouterr().out
    assert text.startswith("finished on 20")
    assert "| temperature 0 " in text
    assert (out / "summary.json").read_bytes() == before


BAD = {
    "unconditional": (lambda run: {"run": run, "model": "vae"}, "--model must be conditioned on the label"),
    "a trained run": (
        lambda run: {"run": run, "out": run, "fresh": True},
        "--out must hold a run of mnist_fidelity or none, got one of mnist_label",
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options_are_refused(options, message, trained):
    with pytest.raises(ValueError, match=message):
        mnist_fidelity.execute(Settings(**options(trained)))
    assert (trained / "params" / "cvae").is_dir()
