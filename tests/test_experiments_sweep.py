"""The sweeps: what they write, that nothing finished is trained again, what they refuse."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from benchmarks import sweep as benchmark
from experiments import check, command, study, sweep, sweep_condition, sweep_latent, sweep_results
from tests.commands import call

ROOT = Path(__file__).parent.parent
DIGITS = study.Data("digits")
AXES = sweep.Axes(latent_sizes=(1, 3), seeds=(0, 1))
FITTING = sweep.Fitting(hidden=(5,), epochs=2)


def settings(out, conditions=("label", "none"), axes=AXES, num_samples=4, **fitting):
    """A sweep of tiny models, all of which share their compiled programs."""
    output = sweep.Output(out, num_samples=num_samples)
    return sweep_latent.Settings(DIGITS, sweep.Types(conditions), axes, replace(FITTING, **fitting), output)


def lines(folder):
    """`results.csv` without the times."""
    with (folder / "results.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished sweep, what it printed, and how many training programs it compiled."""
    from contextlib import redirect_stdout
    from io import StringIO

    folder = tmp_path_factory.mktemp("sweep") / "run"
    before, printed = cvae.sweeps.epochs._cache_size(), StringIO()
    with redirect_stdout(printed):
        assert sweep_latent.main(settings(folder)) == folder
    return folder, printed.getvalue(), cvae.sweeps.epochs._cache_size() - before


@pytest.fixture
def copy(made, tmp_path):
    """A copy of that folder, to go on from."""
    return Path(shutil.copytree(made[0], tmp_path / "run"))


@pytest.fixture
def trained(monkeypatch):
    """The members that are trained from here on, by name; the epoch that only compiles is left out."""
    seen, fit = [], cvae.sweeps.fit_members

    def spy(model, chosen, *args, on_trained=None, **options):
        if on_trained is not None:
            seen.extend(member.name for member in chosen)
        return fit(model, chosen, *args, on_trained=on_trained, **options)

    monkeypatch.setattr(cvae.sweeps, "fit_members", spy)
    return seen


def test_a_sweep_writes_everything(made):
    folder, printed, _ = made
    names = [f"z{z:02d}_seed{seed}_beta1_lr0.001" for z in (1, 3) for seed in (0, 1)]
    for kind in ("label", "none"):
        assert sorted(path.stem for path in (folder / "members" / kind).iterdir()) == names
        assert sorted(path.name for path in (folder / "checkpoints" / kind).iterdir()) == names
    config = cvae.runs.read_config(folder)
    assert config.sweep == cvae.Sweep((1, 3), (0, 1))
    assert {name: model.latent_size for name, model in config.models.items()} == {"label": 3, "none": 3}
    summary = json.loads((folder / "summary.json").read_text())
    assert {"commit", "versions", "machine", "date", "results", "num_samples"} <= set(summary)
    for figure in ("rate_distortion", "log_likelihood"):
        assert min(Image.open(folder / "figures" / f"digits_{figure}.png").size) > 300
        assert f"digits_{figure}.png" in printed
    table = (folder / "results.md").read_text()
    assert table in printed
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + 4


def test_a_type_has_one_program(made):
    assert made[2] == 2


def test_csv_summary_and_table_hold_what_the_members_hold(made):
    folder, *_ = made
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        member = cvae.sweeps.Member(
            int(row["latent_size"]), int(row["seed"]), float(row["beta"]), float(row["learning_rate"])
        )
        record = json.loads((folder / "members" / row["condition"] / f"{member.name}.json").read_text())
        for name, value in (record["test"] | member._asdict() | {"seconds": record["seconds"]}).items():
            assert float(row[name]) == value
        assert record["test"]["elbo"] == pytest.approx(-record["test"]["rate"] - record["test"]["distortion"])
        assert 0 <= record["test"]["active_units"] <= member.latent_size
        assert [len(values) for values in record["history"].values()] == [2, 2, 2]
    results = json.loads((folder / "summary.json").read_text())["results"]
    assert len(results) == 4
    for result in results:
        same = [
            r for r in rows if (r["condition"], int(r["latent_size"])) == (result["condition"], result["latent_size"])
        ]
        values = np.array([float(row["log_likelihood"]) for row in same])
        assert len(values) == result["seeds"] == 2
        assert result["log_likelihood"]["mean"] == pytest.approx(values.mean())
        assert result["log_likelihood"]["std"] == pytest.approx(values.std(ddof=1))
        cell = f"{values.mean():.2f} +- {values.std(ddof=1):.2f}"
        assert cell in (folder / "results.md").read_text()


def test_a_single_seed_has_no_spread():
    scores = sweep.Scores(-90.0, 0.3, -91.0, 0.3, 20.0, 0.1, 71.0, 0.2, 5.0, 3, 100)
    member = sweep.Finished(4, 0, 1.0, 1e-3, scores, {}, 2.0, None)
    (row,) = sweep_results.over_seeds({"vae": cvae.Architecture()}, {"vae": [member]})
    assert row.log_likelihood == (-90.0, None)
    other = replace(member, seed=1, test=replace(scores, log_likelihood=-92.0, log_likelihood_error=0.4))
    (row,) = sweep_results.over_seeds({"vae": cvae.Architecture()}, {"vae": [member, other]})
    assert row.log_likelihood == pytest.approx((-91.0, 2**0.5))
    assert row.standard_error == pytest.approx((0.125) ** 0.5)


def test_a_member_can_be_loaded_and_scores_what_its_file_says(made):
    folder, *_ = made
    name = "label/z01_seed1_beta1_lr0.001"
    model, params, _ = cvae.load(folder, name)
    np.testing.assert_array_equal(params["mask"], [1, 0, 0])
    test = cvae.data.load("digits").test
    terms = cvae.evaluate(model, params, jax.random.key(5), test.x, {"label": test.label})
    scores = json.loads((folder / "members" / f"{name}.json").read_text())["test"]
    assert float(terms.kl.mean()) == pytest.approx(scores["rate"], rel=1e-4)
    assert abs(float(terms.value.mean()) - scores["elbo"]) < 5 * scores["elbo_error"]
    with pytest.raises(ValueError, match="name must be label/ and a member of the sweep, got 'label'"):
        cvae.load(folder, "label")


def test_the_same_command_again_trains_nothing(copy, made, trained, capsys):
    before = (copy / "results.csv").read_text(), (copy / "results.md").read_text()
    sweep_latent.main(settings(copy))
    assert trained == []
    assert ((copy / "results.csv").read_text(), (copy / "results.md").read_text()) == before
    assert "8 of 8 members are finished already" in capsys.readouterr().out


def test_its_members_are_scored_again_from_outside(made, copy, trained):
    path = copy / "members" / "none" / "z01_seed1_beta1_lr0.001.json"
    member = json.loads(path.read_text())
    result = call(check, str(made[0]))
    assert "ok      test numbers: 88 recomputed, equal" in result.stdout, result.stdout
    assert trained == []
    member["test"]["rate"] += 0.01
    path.write_text(json.dumps(member))
    result = call(check, str(copy))
    assert result.returncode == 1
    assert f"members/none/{path.name}.rate must be {member['test']['rate']}" in result.stdout


def test_starting_over_says_what_goes(copy, trained, capsys):
    afresh = settings(copy, ("none",), replace(AXES, seeds=(0,)))
    sweep_latent.main(replace(afresh, output=replace(afresh.output, fresh=True)))
    assert f"discarding 8 members in {copy}" in capsys.readouterr().out
    assert trained == ["z01_seed0_beta1_lr0.001", "z03_seed0_beta1_lr0.001"]
    assert not (copy / "members" / "label").exists()


def test_a_stopped_sweep_goes_on_and_ends_the_same(made, tmp_path, trained, monkeypatch):
    keep, kept = sweep.keep_member, []

    def stop_at_the_second(asked, run, name, member):
        if kept:
            # What is left of a member that was stopped while it was kept: parameters, and no file.
            cvae.runs.save(asked.out, f"{name}/{member.member.name}", member.params)
            raise KeyboardInterrupt
        kept.append(member.member.name)
        return keep(asked, run, name, member)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "keep_member", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            sweep_latent.main(settings(tmp_path / "run"))
    assert not (tmp_path / "run" / "results.csv").exists()
    trained.clear()
    sweep_latent.main(settings(tmp_path / "run"))
    assert len(trained) == 7
    assert kept[0] not in trained[:3]
    assert lines(tmp_path / "run") == lines(made[0])


def test_longer_axes_train_the_new_members_only(copy, made, trained):
    sweep_latent.main(settings(copy, axes=replace(AXES, latent_sizes=(3, 1, 2), seeds=(0,))))
    assert trained == ["z02_seed0_beta1_lr0.001"] * 2
    trained.clear()
    sweep_latent.main(settings(copy, axes=replace(AXES, seeds=(0, 1, 2))))
    assert trained == ["z01_seed2_beta1_lr0.001", "z03_seed2_beta1_lr0.001"] * 2
    rows = lines(copy)
    assert len(rows) == 12
    assert [row for row in rows if row["seed"] != "2"] == lines(made[0])


def test_other_betas_are_other_members(copy, trained):
    sweep_latent.main(settings(copy, ("none",), replace(AXES, seeds=(0,), betas=(1.0, 4.0))))
    assert trained == ["z01_seed0_beta4_lr0.001", "z03_seed0_beta4_lr0.001"]
    rates = {(row["latent_size"], row["beta"]): float(row["rate"]) for row in lines(copy)}
    assert rates["3", "4.0"] < rates["3", "1.0"]
    assert "| beta |" in (copy / "results.md").read_text()
    # The type that this command left out is still the folder's.
    assert set(cvae.runs.read_config(copy).models) == {"label", "none"}


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "a field is missing": lambda text: text.replace('"rate"', '"ratio"'),
    "another member": lambda text: text.replace('"seed": 0', '"seed": 1'),
    "empty": lambda text: "",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_member_is_trained_again(damage, copy, made, trained):
    file = copy / "members" / "none" / "z03_seed0_beta1_lr0.001.json"
    file.write_text(damage(file.read_text()))
    with pytest.warns(UserWarning, match="none/z03_seed0_beta1_lr0.001 is damaged and will be trained again"):
        sweep_latent.main(settings(copy))
    assert trained == ["z03_seed0_beta1_lr0.001"]
    assert lines(copy) == lines(made[0])


def test_another_number_of_samples_scores_again_and_trains_nothing(copy, made, trained):
    sweep_latent.main(settings(copy, ("none",), num_samples=30))
    assert trained == []
    old = [row for row in lines(made[0]) if row["condition"] == "none"]
    for new, before in zip(lines(copy), old, strict=True):
        assert new["num_samples"] == "30"
        assert new["elbo"] == before["elbo"]
        assert float(new["log_likelihood"]) != float(before["log_likelihood"])
        assert (
            json.loads(
                (
                    copy / "members/none" / f"z{int(new['latent_size']):02d}_seed{new['seed']}_beta1_lr0.001.json"
                ).read_text()
            )["test"]["num_samples"]
            == 30
        )


def test_a_part_of_the_picture_is_scored_apart(tmp_path, capsys):
    types, axes = sweep.Types(("none", "image")), sweep.Axes((3,), (0,))
    out = sweep_condition.main(
        sweep_condition.Settings(DIGITS, types, axes, FITTING, sweep.Output(tmp_path / "run", num_samples=4))
    )
    printed = capsys.readouterr().out
    assert "pixels scored" in printed
    assert "another event" in printed
    assert "One seed" in printed
    rows = json.loads((out / "summary.json").read_text())["results"]
    assert [(row["condition"], row["pixels_scored"]) for row in rows] == [("none", "all"), ("image", "hidden")]
    # Three quarters of the pixels are scored, so there is less to lose.
    assert rows[1]["distortion"]["mean"] < rows[0]["distortion"]["mean"]
    assert rows[0]["rate"]["std"] is None
    assert [path.name for path in (out / "figures").iterdir()] == ["digits_log_likelihood.png"]


def test_all_types_and_ways_in_are_planned(tmp_path):
    types = sweep.Types(conditioning=("concat", "concat_all", "film"))
    fitting, output = sweep.Fitting(hidden=(5, 6), epochs=1), sweep.Output(out=tmp_path / "run")
    asked = sweep.plan("sweep_condition", sweep_condition.Settings(DIGITS, types, fitting=fitting, output=output))
    told = ("label", "attribute", "label+attribute", "image")
    ways = ("", "_concat_all", "_film")
    assert list(asked.config.models) == ["none", *(f"{kind}{way}" for kind in told for way in ways)]
    assert asked.config.models["image_film"].conditioning == "film"
    assert set(asked.given["test"]["label+attribute"]) == {"label", "stroke"}
    strokes = asked.given["train"]["attribute"]["stroke"]
    condition = asked.config.models["attribute"].condition
    np.testing.assert_allclose(np.asarray(condition.encode({"stroke": strokes})).std(axis=0), 1, rtol=1e-4)
    assert cvae.config.from_json(cvae.config.Config, cvae.config.to_json(asked.config)) == asked.config
    assert list(tmp_path.iterdir()) == []


def test_a_smoke_run_is_short_and_on_digits():
    options = sweep_latent.Settings(output=sweep.Output(smoke=True))
    asked = sweep.plan("sweep_latent", options)
    assert (asked.config.dataset, asked.config.training.epochs, asked.out.name) == (
        "digits",
        2,
        "sweep_latent_digits_smoke",
    )


def test_panels_of_a_chart_by_condition_have_one_scale():
    panels = {"all (nats)": {"none": (-90.0, 1.0), "label": (-80.0, 0.5)}, "hidden (nats)": {"image": (-60.0, 0.2)}}
    figure = cvae.charts.by_condition(panels, "A title")
    spans = [np.diff(axes.get_xlim())[0] for axes in figure.axes]
    assert spans[0] == pytest.approx(spans[1])
    assert spans[0] > 11.5
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["none", "label"]


BAD_OPTIONS = {
    "--latent-sizes": "latent_sizes must name at least one value, got none",
    "--seeds": "seeds must name at least one value, got none",
    "--latent-sizes 2 0": "latent_sizes[1] must be a whole number of at least 1, got 0",
    "--latent-sizes 2 4 2": "latent_sizes must name every value once, got [2, 4, 2]",
    "--seeds -1": "seeds[0] must be a whole number of at least 0, got -1",
    "--betas 0": "betas[0] must be a finite number above 0, got 0.0",
    "--learning-rates nan": "learning_rates[0] must be a finite number above 0, got nan",
    "--conditions": "--conditions must be one or more names, each once, got none",
    "--conditions label label": "--conditions must be one or more names, each once, got label label",
    "--conditions labels": "labels",
    "--conditioning concat concat_all": "--conditioning must name concat_all only where --hidden",
    "--hidden": "hidden must name at least one width, got ()",
    "--epochs 0": "epochs must be a whole number of at least 1, got 0",
    "--batch-size 2000": "x must hold at least one batch, 2000 examples, got 1297 examples",
    "--at-once 0": "--at-once must be a whole number of at least 1, got 0",
    "--num-samples 0": "--num-samples must be a whole number of at least 1, got 0",
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.items(), ids=BAD_OPTIONS.keys())
@pytest.mark.parametrize("module", [sweep_latent, sweep_condition], ids=lambda module: module.__name__)
def test_bad_options_are_refused_before_anything_is_written(module, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep", "--dataset", "digits", *options.split()])
    with pytest.raises(SystemExit) as stop:
        command.run(module.main, module.Settings, module.__doc__)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": replace(AXES, latent_sizes=(1, 4))}, "models.label.latent_size 3, not 4; choose another folder"),
        ({"hidden": (6,)}, r"models.label.hidden \[5\], not \[6\]"),
        ({"epochs": 3}, "training.epochs 2, not 3"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(change, message, made):
    folder, *_ = made
    before = (folder / "config.json").read_text()
    with pytest.raises(ValueError, match=message):
        sweep_latent.main(settings(folder, **change))
    assert (folder / "config.json").read_text() == before
    assert (folder / "results.csv").exists()


def test_a_folder_of_another_experiment_is_refused(made):
    with pytest.raises(ValueError, match="experiment 'sweep_latent', not 'sweep_condition'"):
        sweep_condition.main(settings(made[0]))


def test_help_names_every_option_and_imports_no_jax():
    code = "import sys, experiments.sweep_latent, experiments.sweep_condition; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    arguments = [sys.executable, "-m", "experiments.sweep_condition", "--help"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    for option in (
        "latent-sizes",
        "seeds",
        "betas",
        "learning-rates",
        "conditions",
        "conditioning",
        "hidden",
        "epochs",
    ):
        assert f"--{option}" in result.stdout
    for option in ("batch-size", "at-once", "num-samples", "out", "dataset", "data-dir", "smoke"):
        assert f"--{option}" in result.stdout


def test_the_benchmark_trains_the_same_members_one_by_one(made):
    config, train = cvae.runs.read_config(made[0]), cvae.data.load("digits").train
    model, members = cvae.make(config.models["none"]), cvae.sweeps.members(cvae.Sweep((1, 3)))
    contest = benchmark.Contest(model, members, train.x, {}, config.training, at_once=1)
    np.testing.assert_allclose(contest.sweep(2), contest.masked(2), rtol=1e-5)


class Fake:
    """Contenders that train nothing, for a time that is known."""

    def __init__(self):
        self.members = cvae.sweeps.members(cvae.Sweep((2,)))
        self.contenders = {"sweep": lambda epochs: [1.0], "masked": lambda epochs: [1.5], "own": lambda epochs: [2.0]}


def test_the_benchmark_takes_ratios_within_a_round(monkeypatch, capsys):
    # Warm-up, then rounds that begin with the sweep, with the loop and with the models of their own size.
    times = iter([9, 9, 9, *[1, 2, 4], *[3, 6, 1], *[5, 2, 4]])
    monkeypatch.setattr(benchmark, "timed", lambda train, epochs: (next(times), train(epochs)))
    rows = benchmark.measure("label", Fake(), 1, 3)
    assert rows["sweep"]["seconds"] == [1, 1, 2]
    assert rows["masked"]["seconds"] == [2, 3, 4]
    assert rows["own"]["seconds"] == [4, 6, 5]
    assert rows["masked"]["sweep_over_this"] == 0.5  # the median of 1/2, 1/3 and 2/4
    assert rows["own"]["sweep_over_this"] == 0.25
    assert "z02_seed0_beta1_lr0.001: the loss is 1.00 in the sweep and 1.50 alone" in capsys.readouterr().out


def test_the_benchmark_refuses_bad_options(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "sweep.json")]
    for options, message in {"--epochs 0": "--epochs must be", "--latent-sizes 0": "latent_sizes[0] must be"}.items():
        monkeypatch.setattr(sys, "argv", ["sweep", *options.split(), *out])
        with pytest.raises(SystemExit) as stop:
            command.run(benchmark.main, benchmark.Settings, benchmark.__doc__)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
