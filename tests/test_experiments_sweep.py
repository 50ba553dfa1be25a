"""The sweeps: what they write, that nothing finished is trained again, what they refuse."""

import contextlib
import csv
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from cvae import locks
from experiments import sweep_condition, sweep_latent
from experiments.harness import cli, sweeping
from experiments.harness.interruption import Stopped

SMOKE = cvae.replace(
    sweep_latent.CONFIGS["smoke"], sweep=cvae.Sweep((1, 3), (0, 1)), hidden=(5,), samples=4, figures=False
)
NAMES = [f"z{z:02d}_seed{seed}_beta1_lr0.001" for z in (1, 3) for seed in (0, 1)]


def run(out, experiment=sweep_latent.EXPERIMENT, **changes):
    return cli.execute(experiment, cvae.replace(SMOKE, out=out, **changes))


def lines(folder, *without):
    """`results.csv` without the times."""
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name not in ("seconds", *without)} for row in rows]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished sweep, with its figures."""
    return run(tmp_path_factory.mktemp("sweep") / "run", figures=True)


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def trained(monkeypatch):
    """The members that are trained from here on, by name."""
    seen, group_epochs = [], cvae.sweeps.group_epochs

    def spy(model, group, *args, **options):
        seen.extend(member.name for member in group)
        return group_epochs(model, group, *args, **options)

    monkeypatch.setattr(cvae.sweeps, "group_epochs", spy)
    return seen


def test_a_sweep_writes_everything(made):
    for kind in ("label", "none"):
        assert sorted(path.stem for path in (made / "members" / kind).iterdir()) == NAMES
        assert sorted(path.name for path in (made / "params" / kind).iterdir()) == NAMES
        assert list((made / "checkpoints" / kind).iterdir()) == []
    metrics = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert {(line["model"], line["epoch"]) for line in metrics} == {
        (f"{kind}/{name}", epoch) for kind in ("label", "none") for name in NAMES for epoch in (1, 2)
    }
    assert cvae.runs.read_config(made).sweep == cvae.Sweep((1, 3), (0, 1))
    assert {path.stem for path in (made / "figures").glob("*.png")} == {
        "digits_rate_distortion", "digits_log_likelihood"
    }  # fmt: skip


def test_csv_summary_and_table_are_those_of_the_members(made):
    summary = json.loads((made / "summary.json").read_text())
    rows = lines(made)
    assert len(rows) == 8
    for row in rows:
        member = cvae.sweeps.Member(*(float(row[axis]) if axis in ("beta", "learning_rate") else int(row[axis])
                                      for axis in cvae.sweeps.Member._fields))  # fmt: skip
        test = json.loads(sweeping.member_file(made, row["condition"], member).read_text())["test"]
        assert test == summary["test"][row["condition"]][member.name]
        assert float(row["log_likelihood"]) == test["log_likelihood"]["value"]
        assert float(row["elbo"]) == pytest.approx(-float(row["rate"]) - float(row["distortion"]), abs=1e-4)
    table = (made / "results.md").read_text()
    assert len(summary["results"]) == 4
    for result in summary["results"]:
        axes = [("condition", result["condition"]), ("latent_size", str(result["latent_size"]))]
        values = np.array([float(r["log_likelihood"]) for r in rows if all(r[name] == value for name, value in axes)])
        assert len(values) == result["seeds"] == 2
        assert result["log_likelihood"]["mean"] == pytest.approx(values.mean())
        assert result["log_likelihood"]["std"] == pytest.approx(values.std(ddof=1))
        assert f"{-values.mean():.2f} ± {values.std(ddof=1):.2f}" in table  # grey cross-entropy is lower for better
    assert "grey cross-entropy" in table
    assert "log p" not in table


def test_a_member_can_be_loaded_and_scores_what_its_file_says(made):
    name = "label/z01_seed1_beta1_lr0.001"
    model, params = cvae.load(made, name)
    np.testing.assert_array_equal(params["mask"], [1, 0, 0])
    test = cvae.data.load("digits").test
    scores = json.loads((made / "members" / f"{name}.json").read_text())["test"]
    terms = cvae.evaluate(model, params, jax.random.key(5), test.x, {"label": test.label})
    assert float(terms.kl.mean()) == pytest.approx(scores["rate"]["value"], rel=1e-4)
    with pytest.raises(ValueError, match="name must be label/MEMBER"):
        cvae.load(made, "label")


def test_longer_axes_train_the_new_members_only(copy, made, trained):
    run(copy)
    assert trained == []
    run(copy, sweep=cvae.Sweep((3, 1, 2), (0,)), conditions=("none",))
    assert trained == ["z02_seed0_beta1_lr0.001"]
    assert set(cvae.runs.read_config(copy).models) == {"label", "none"}  # that were there before
    trained.clear()
    run(copy, sweep=cvae.Sweep((1, 3), (0, 1), betas=(1.0, 4.0)), conditions=("none",))
    assert trained == [name.replace("beta1", "beta4") for name in NAMES]
    assert [row for row in lines(copy) if row["beta"] == "1.0"] == [
        row for row in lines(made) if row["condition"] == "none"
    ]
    assert "| beta |" in (copy / "results.md").read_text()


def test_a_wider_sweep_is_refused(copy):
    with pytest.raises(ValueError, match=r"models\.label\.latent_size 3, not 4"):
        run(copy, sweep=cvae.Sweep((4,), (0,)))


def test_another_number_of_samples_scores_again_and_trains_nothing(copy, made, trained):
    run(copy, samples=9, proposal="mixture")
    assert trained == []
    changed = ("log_likelihood", "log_likelihood_error", "effective_samples", "effective_samples_error")
    assert {(row["num_samples"], row["proposal"]) for row in lines(copy)} == {("9", "mixture")}
    assert lines(copy, *changed, "num_samples", "proposal") == lines(made, *changed, "num_samples", "proposal")


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "a score is missing": lambda text: text.replace('"rate"', '"ratio"'),
    "another member": lambda text: text.replace('"seed": 0', '"seed": 1'),
    "other data": lambda text: text.replace('"data": "', '"data": "0'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_member_is_trained_again(damage, copy, made, trained):
    file = copy / "members" / "none" / "z03_seed0_beta1_lr0.001.json"
    file.write_text(damage(file.read_text()))
    (copy / "summary.json").unlink()
    with pytest.warns(UserWarning, match="none/z03_seed0_beta1_lr0.001 is damaged and is trained again"):
        run(copy)
    assert trained == ["z03_seed0_beta1_lr0.001"]
    assert lines(copy) == lines(made)


def test_a_stopped_sweep_goes_on_and_ends_the_same(made, tmp_path, trained, monkeypatch):
    write, written = sweeping.write_member, []

    def stop_at_the_second(*args):
        if written:
            raise Stopped(15, "stopped")  # parameters are written by now, and no file of the member
        written.append(args)
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "write_member", stop_at_the_second)
        with pytest.raises(Stopped):
            run(tmp_path / "run")
    assert not (tmp_path / "run" / "results.csv").exists()
    run(tmp_path / "run")
    assert lines(tmp_path / "run") == lines(made)


def test_members_side_by_side_are_those_one_by_one_and_resume(made, tmp_path, monkeypatch, capsys):
    options = {"parallel": 4, "conditions": ("label",)}
    epochs = cvae.sweeps.group_epochs

    def stop_after_one(*args, **options):
        yield next(epochs(*args, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cvae.sweeps, "group_epochs", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", save_every=1, **options)
    out = run(tmp_path / "run", save_every=1, **options)
    assert "goes on after epoch 1" in capsys.readouterr().out
    for side, alone in zip(lines(out), lines(made), strict=False):
        assert float(side["elbo"]) == pytest.approx(float(alone["elbo"]), rel=1e-3)
    models = {json.loads(line)["model"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert models == {f"label/{name}" for name in NAMES}


def test_a_member_whose_loss_is_not_finite_is_named(tmp_path):
    steep = cvae.Sweep((3,), (0,), learning_rates=(1e20,))
    with pytest.raises(FloatingPointError, match=r"^none/z03_seed0_beta1_lr1e\+20: the loss in epoch 1"):
        run(tmp_path / "run", conditions=("none",), sweep=steep)


def test_starting_over_discards_the_members(copy, trained):
    run(copy, fresh=True, conditions=("none",), sweep=cvae.Sweep((3,), (0,)))
    assert trained == ["z03_seed0_beta1_lr0.001"]
    assert not (copy / "members" / "label").exists()


def test_all_types_and_ways_to_condition(tmp_path):
    settings = cvae.replace(
        sweep_condition.CONFIGS["smoke"], conditioning=("concat", "concat_all", "film"), hidden=(5, 6)
    )
    dataset = sweeping.load(settings)
    models = sweeping.models(settings, dataset)
    kinds, ways = ("label", "attribute", "label+attribute", "image"), ("", "_concat_all", "_film")
    assert list(models) == ["none", *(f"{kind}{way}" for kind in kinds for way in ways)]
    assert models["image_film"].conditioning == "film"
    _, c = sweep_condition.EXPERIMENT.examples(models["label+attribute"], dataset.train)
    assert set(c) == {"label", "stroke"}
    encoded = np.asarray(models["attribute"].condition.encode(c).flat)
    np.testing.assert_allclose(encoded.std(axis=0), 1, rtol=1e-4)


def test_hidden_pixels_are_tabulated_apart(tmp_path, capsys):
    out = run(
        tmp_path / "run", sweep_condition.EXPERIMENT, conditions=("none", "image"), sweep=cvae.Sweep((3,), (0,)),
        training=cvae.Training(epochs=2, binarization="static"), figures=True,
    )  # fmt: skip
    printed = capsys.readouterr().out
    for text in ("pixels scored", "another event", "One seed", "log-likelihood, lower bound", "effective samples"):
        assert text in printed
    rows = json.loads((out / "summary.json").read_text())["results"]
    assert [(row["condition"], row["pixels_scored"]) for row in rows] == [("none", "all"), ("image", "hidden")]
    assert rows[1]["distortion"]["mean"] < rows[0]["distortion"]["mean"]  # of three quarters of the pixels
    assert rows[0]["rate"]["std"] is None
    assert [path.name for path in (out / "figures").glob("*.png")] == ["digits_log_likelihood.png"]


REFUSED = {
    "--conditions must be one or more names": {"conditions": ("label", "label")},
    "--conditioning must be concat where": {"conditioning": ("concat_all",)},
    "patience must be None": {"training": cvae.Training(patience=3)},
    "beta must be varied by --betas": {"training": cvae.Training(beta=2.0)},
    "learning_rate must be varied by --learning-rates": {"training": cvae.Training(learning_rate=0.1)},
    "batch_size must be at most": {"training": cvae.Training(batch_size=5000)},
}


@pytest.mark.parametrize(("message", "changes"), REFUSED.items(), ids=REFUSED.keys())
def test_what_is_refused_leaves_nothing(message, changes, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []


# Several processes


def test_a_share_trains_its_members_and_the_last_one_completes_the_table(made, tmp_path, trained, capsys):
    out = tmp_path / "run"
    run(out, shard="2/2", figures=True)
    assert trained == 2 * NAMES[1::2]
    assert "no figures are drawn before all members are finished" in capsys.readouterr().out
    assert len(lines(out)) == 4
    run(out, shard="1/2")
    assert sorted(trained) == sorted(2 * NAMES)
    assert lines(out, "commit") == lines(made, "commit")


def test_a_member_that_another_process_trains_is_waited_for(made, copy, trained, monkeypatch, capsys):
    """The other process finishes one, and is killed while it trains another, which is then taken over."""
    first, second = (copy / "members" / "label" / f"{name}.json" for name in NAMES[:2])
    finished = first.read_text()
    for path in (first, second, copy / "summary.json"):
        path.unlink()
    held = [stack := contextlib.ExitStack(), contextlib.ExitStack()]
    for lock, name in zip(held, NAMES[:2], strict=True):
        lock.enter_context(locks.lock(copy / "locks" / "label" / name))

    def later(seconds):
        first.write_text(finished)
        held[1].close()

    monkeypatch.setattr(sweeping.time, "sleep", later)
    run(copy)
    stack.close()
    assert trained == [NAMES[1]]
    assert "label: waiting for other processes, which train the last 2 groups" in capsys.readouterr().out
    assert lines(copy, "commit") == lines(made, "commit")


def test_shares_come_from_slurm(monkeypatch):
    settings = cvae.replace(SMOKE, shard="slurm")
    with pytest.raises(
        ValueError, match=r"--shard must be K/N with K from 1 to N, such as 3/16, or slurm .*, got slurm"
    ):
        sweeping.share(settings)
    for name, value in {"MIN": 5, "COUNT": 4, "ID": 6}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert sweeping.share(settings) == (2, 4)
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            sweeping.check(cvae.replace(SMOKE, shard=wrong))
