"""The paper's table: its protocol, a smoke run of its rows, the tables, and what a second call repeats."""

import csv
import json
import sys

import jax
import numpy as np
import pytest

import cvae
from experiments import mnist_quadrants
from experiments.mnist_quadrants import CONFIGS, changed

ROWS = ("deterministic", "gsnn", "residual")


def rows(out, names=ROWS, **changes) -> dict:
    usual = {"quadrants": (3,), "samples": 50, "many_samples": 100, "images": 20, "figures": False, "out": out}
    usual |= {"body": "mlp", "latent_layers": 1}  # a residual ladder compiles longer: the ablation's smoke run has it
    return {name: changed(CONFIGS["smoke"][name], **usual | changes) for name in names}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run of three rows."""
    return mnist_quadrants.execute(rows(tmp_path_factory.mktemp("quadrants") / "run"))


def summary(folder, row: str) -> dict:
    return json.loads((folder / "quadrants_3" / row / "summary.json").read_text())


def test_every_row_has_the_estimates_that_suit_it(finished):
    monte_carlo = {"monte_carlo_50", "monte_carlo_100"}
    importance = {"importance_sampling_50", "importance_sampling_100"}
    assert set(summary(finished, "deterministic")["test"]) == {"exact"}
    assert set(summary(finished, "gsnn")["test"]) == monte_carlo
    record = summary(finished, "residual")
    bound = {"elbo", "rate", "distortion", "active_units"}
    assert set(record["test"]) == monte_carlo | importance | bound
    assert (record["task"], record["row"], record["split"], record["hidden_pixels"]) == (
        "quadrants_3", "residual", "test", 16
    )  # fmt: skip
    for name in monte_carlo | importance:
        assert record["test"][name]["images"] == (20 if name.endswith("100") else 300)


def test_the_deterministic_score_is_the_cross_entropy_of_the_hidden_pixels(finished):
    model, params = cvae.load(finished / "quadrants_3" / "deterministic")
    test = cvae.data.load("digits").test
    x, hidden = cvae.data.binarize(2, test.x), ~cvae.masks.fixed("quadrants_3", (8, 8, 1))
    p = np.asarray(model.decode(params, np.zeros((len(x), 0), np.float32), {"image": test.x}).mean, np.float64)
    nll = -np.log(np.where(x, p, 1 - p)[:, hidden]).sum(axis=1)
    exact = summary(finished, "deterministic")["test"]["exact"]["nats"]
    assert exact["value"] == pytest.approx(nll.mean(), rel=1e-5)
    assert exact["standard_error"] == pytest.approx(nll.std(ddof=1) / np.sqrt(len(nll)), rel=1e-4)


def test_the_tables_say_what_the_runs_say(finished):
    with (finished / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [record["row"] for record in written] == list(ROWS)
    score = summary(finished, "residual")["test"]["importance_sampling_50"]
    assert float(written[2]["importance_sampling_50"]) == score["nats"]["value"]
    text, effective = (finished / "table.md").read_text(), score["effective_samples"]["value"]
    assert f"{score['nats']['value']:.2f} ± {score['nats']['standard_error']:.2f} [{effective:.1f}] |" in text
    assert f"{score['nats_of_first']['value']:.2f} ± {score['nats_of_first']['standard_error']:.2f} |" in text
    assert "| IS, S = 100, first 20 images " in text


def test_a_second_call_repeats_nothing_and_a_row_is_of_one_split(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("summary.json")}
    mnist_quadrants.execute(rows(finished))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("summary.json")} == before
    assert "| deterministic | exact" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--split must be test, as in .*, or have another --out, got validation"):
        mnist_quadrants.execute(rows(finished, split="validation"))


def test_a_frozen_guess_is_that_of_the_deterministic_network_and_grey_targets_are_scored_by_the_elbo(tmp_path):
    changes = {"task": "top", "guess": True, "frozen": ("guess",), "binarization": "none", "epochs": 1}
    run = mnist_quadrants.execute(rows(tmp_path / "run", ["cvae"], **changes)) / "top_half" / "cvae"
    guess, params = cvae.load(run, "guess")[1], cvae.load(run, "cvae")[1]
    for a, b in zip(jax.tree.leaves(guess["decoder"]), jax.tree.leaves(params["guess"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    record = json.loads((run / "summary.json").read_text())
    assert set(record["test"]) == {"negative_elbo"}
    assert (record["test"]["negative_elbo"]["num_samples"], record["hidden_pixels"]) == (10, 32)


def test_the_split_is_the_files_own_order_and_scored_pixels_are_drawn_once():
    dataset, part = cvae.data.load("digits"), mnist_quadrants.load(CONFIGS["smoke"]["cvae"])
    assert (len(part.train.x), len(part.validation.x), len(part.test.x)) == (1248, 249, 300)
    joined = np.concatenate([dataset.validation.x, dataset.train.x])
    np.testing.assert_array_equal(np.concatenate([part.train.x, part.validation.grey]), joined)
    np.testing.assert_array_equal(part.test.x, cvae.data.binarize(2, dataset.test.x))
    np.testing.assert_array_equal(part.validation.x, cvae.data.binarize(1, part.validation.grey))


@pytest.mark.parametrize(("observed", "separate"), [("grey", True), ("binarized", False)])
def test_observed_pixels_are_grey_or_as_drawn(observed, separate):
    settings = changed(CONFIGS["smoke"]["residual"], observed=observed, rows=("residual",))
    dataset = mnist_quadrants.load(settings)
    architecture = mnist_quadrants.models(settings, dataset)["cvae"]
    assert architecture.condition.parts[0].separate is separate
    x, c = mnist_quadrants.examples(architecture, dataset.test)
    np.testing.assert_array_equal(c["image"], dataset.test.grey if separate else x)
    np.testing.assert_array_equal(c["shift"], np.zeros((300, 2)))


def test_options_change_every_row_but_give_the_deterministic_one_no_latents(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(mnist_quadrants, "execute", ran.append)
    options = ["--latent-size", "6", "--latent-layers", "3", "--hybrid-weight", "0.5"]
    monkeypatch.setattr(sys, "argv", ["mnist_quadrants", "--smoke", "--rows", "deterministic", "residual", *options])
    mnist_quadrants.main()
    first, second = mnist_quadrants.runs_of(ran[0], tmp_path)[:2]
    dataset = mnist_quadrants.load(first)
    deterministic, residual = (mnist_quadrants.models(each, dataset)["cvae"] for each in (first, second))
    assert (deterministic.latent_size, deterministic.body, residual.latent_size) == (0, "mlp", 6)
    assert (residual.latent_layers, residual.hidden, second.training.hybrid_weight) == (3, (16,), 0.5)
    assert second.out == tmp_path / "quadrants_1" / "residual"
