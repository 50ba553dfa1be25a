"""Run folders and checkpoints: what is written is read back, and what does not fit is named."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import cvae
from cvae import checkpoints, runs
from cvae.config import Config

MODELS = {
    "cvae": cvae.Architecture((2, 3, 1), cvae.Label(5), 4, (7,)),
    "vae": cvae.Architecture((2, 3, 1), cvae.Nothing(), 4, (7,)),
}
CONFIG = Config("test", "digits", 0, cvae.Training(epochs=2), MODELS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder with both models."""
    folder = tmp_path_factory.mktemp("run")
    runs.start(folder, CONFIG)
    for number, (name, architecture) in enumerate(MODELS.items()):
        runs.save(folder, name, cvae.make(architecture).init(jax.random.key(number)))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_model_comes_back_to_the_bit(finished):
    for number, name in enumerate(MODELS):
        model, params, config = cvae.load(finished, name)
        assert config == CONFIG
        assert model is cvae.make(MODELS[name])
        jax.tree.map(np.testing.assert_array_equal, params, model.init(jax.random.key(number)))
    assert cvae.load(finished)[0] is cvae.make(MODELS["cvae"])


def test_a_model_comes_back_in_another_process(finished):
    code = (
        "import cvae, jax, sys; m, p, c = cvae.load(sys.argv[1], 'vae');"
        "print(float(sum(abs(x).sum() for x in jax.tree.leaves(p))))"
    )
    out = subprocess.run([sys.executable, "-c", code, finished], capture_output=True, text=True, check=True).stdout
    expected = sum(abs(leaf).sum() for leaf in jax.tree.leaves(cvae.load(finished, "vae")[1]))
    assert float(out) == pytest.approx(float(expected))


def test_no_model_of_that_name(finished):
    with pytest.raises(ValueError, match=r"name must be one of \['cvae', 'vae'\], got 'gan'"):
        cvae.load(finished, "gan")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run folder must hold a config.json, got none at .*nowhere"):
        cvae.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json must be JSON"):
        cvae.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config must have the fields \['experiment'"):
        cvae.load(tmp_path)


def edit_config(run, change) -> None:
    data = json.loads((run / "config.json").read_text())
    change(data["models"]["cvae"])
    (run / "config.json").write_text(json.dumps(data))


LAYER = r"params\['decoder'\]\['mlp'\]\['layers'\]\['layer_0'\]\['linear'\]"
MISFITS = {
    "wider": (lambda a: a.update(hidden=[9]), LAYER + r"\['bias'\] must have shape \(9,\), got \(7,\)"),
    "deeper": (lambda a: a.update(hidden=[7, 7]), r"\['layer_1'\]\['linear'\]\['bias'\] must be in the checkpoint"),
    "latents": (lambda a: a.update(latent_size=3), LAYER + r"\['kernel'\] must have shape \(8, 7\), got \(9, 7\)"),
    "a scale": (
        lambda a: a.update(likelihood={"kind": "Normal", "scale": None, "bounds": [0.01, 10.0]}),
        r"params\['decoder'\]\['outputs'\]\['bias'\] must have shape \(12,\), got \(6,\)",
    ),
    "a prior": (lambda a: a.update(prior="learned"), r"params\['prior'\].* must be in the checkpoint"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_parameters_that_do_not_fit_are_named(run, change, message):
    edit_config(run, change)
    with pytest.raises(ValueError, match=message):
        cvae.load(run, "cvae")


def test_a_leaf_too_many_is_named(tmp_path):
    tree = {"a": np.ones(2, np.float32), "b": {"c": np.ones(3, np.float32)}}
    checkpoints.save(tmp_path / "kept", tree)
    with pytest.raises(ValueError, match=r"params\['b'\]\['c'\] must belong to the model"):
        checkpoints.restore(tmp_path / "kept", {"a": tree["a"]})
    with pytest.raises(ValueError, match=r"params\['a'\] must have dtype int32, got float32"):
        checkpoints.restore(tmp_path / "kept", tree | {"a": np.ones(2, np.int32)})


@pytest.mark.parametrize("part", ["arrays/d/*", "arrays/manifest.ocdbt", "arrays/_METADATA", "record/*"])
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused(run, part, damage):
    damaged = [path for path in (run / "checkpoints" / "cvae").glob(part) if path.is_file()]
    assert damaged
    for path in damaged:
        content = path.read_bytes()
        half = len(content) // 2
        path.write_bytes(content[:half] + (b"" if damage == "truncated" else bytes(b ^ 255 for b in content[half:])))
    with pytest.raises(ValueError, match=r"checkpoint must be (readable|whole), "):
        cvae.load(run, "cvae")


def test_a_missing_checkpoint_is_refused(run):
    shutil.rmtree(run / "checkpoints" / "cvae")
    with pytest.raises(ValueError, match="checkpoint must be a folder, got nothing at"):
        cvae.load(run, "cvae")
    (run / "checkpoints" / "cvae").mkdir()
    with pytest.raises(ValueError, match="checkpoint must"):
        cvae.load(run, "cvae")


def test_saving_again_replaces(tmp_path):
    for value in (1.0, 2.0):
        checkpoints.save(tmp_path / "kept", {"a": np.full(2, value, np.float32)})
    restored = checkpoints.restore(tmp_path / "kept", {"a": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(restored["a"], 2.0)


def test_a_folder_with_another_config_is_refused_and_left_alone(run):
    other = Config("test", "digits", 0, cvae.Training(epochs=3), MODELS)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ValueError, match=r"training\.epochs 2, not 3; choose another folder or delete it"):
        runs.start(run, other)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("path", "message"),
    [(None, "run_dir must be a path, got None"), ("x" * 5000, "run_dir must be a path that a file can have, got 'xx")],
)
def test_what_is_no_path_is_refused(path, message):
    with pytest.raises(ValueError, match=message):
        cvae.load(path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"run folder must hold a config.json, got none"):
        runs.check_free(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="run folder must be a folder, got a file"):
        runs.check_free(tmp_path / "thesis.tex", CONFIG)


def test_the_same_config_goes_on(run):
    (run / "metrics.jsonl").write_text("old\n")
    (run / "summary.json").write_text("{}")
    runs.start(run, CONFIG)
    assert (run / "metrics.jsonl").read_text() == "old\n"
    assert (run / "summary.json").exists()  # until there is another


def test_what_is_discarded_is_said(run):
    (run / "metrics.jsonl").write_text("one\ntwo\n")
    assert runs.discard(run) == [f"discarding 2 epochs in {run}"]
    assert list(run.iterdir()) == []
    assert runs.discard(run) == []


def test_a_link_is_discarded_and_where_it_leads_is_left(run, tmp_path):
    (tmp_path / "big" / "cvae").mkdir(parents=True)
    (run / "progress").symlink_to(tmp_path / "big")
    runs.discard(run)
    assert list(run.iterdir()) == []
    assert (tmp_path / "big" / "cvae").is_dir()


def test_what_cannot_be_deleted_is_said_and_the_folder_stays_a_run(run, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise OSError(16, "Device or resource busy", str(path))

    (run / "progress").mkdir(exist_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr(runs.shutil, "rmtree", refuse)
        with pytest.raises(OSError, match=r"busy.*progress"):
            runs.discard(run)
    assert runs.read_config(run) == CONFIG


def test_a_run_that_ended_before_it_had_a_config_blocks_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def full(path, text):
        path.with_name(f".{path.name}.4711").write_text(text[:9])  # as a kill leaves it
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            runs.start(folder, CONFIG)
    runs.check_free(folder, CONFIG)
    assert runs.discard(folder) == []
    runs.start(folder, CONFIG)
    assert runs.read_config(folder) == CONFIG


def test_only_what_a_run_left_is_discarded(run, tmp_path):
    (run / "notes.txt").write_text("mine")
    runs.discard(run)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    runs.start(run, CONFIG, fresh=True)
    assert runs.read_config(run) == CONFIG
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run folder must hold a config\.json, got none"):
        runs.discard(other)
    (other / "config.json").write_text('{"model_type": "gpt"}')
    with pytest.raises(ValueError, match="config must have the fields"):
        runs.discard(other)
    assert (other / "checkpoints").is_dir()


def test_provenance_says_where_a_figure_came_from_and_names_no_host(monkeypatch):
    import platform

    found = runs.provenance()
    assert found["versions"]["jax"] == jax.__version__
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["devices"]
    assert platform.node() not in json.dumps(found)
    commit = found["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


def test_no_commit_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.commit() is None
