"""Run folders: what is written is read back, what does not fit is named, and only one process writes."""

import json
import platform
import shutil

import jax
import numpy as np
import pytest

import cvae
from cvae import checkpoints, locks, runs
from cvae.config import Config
from cvae.loop import Epoch
from cvae.settings import replace, to_json
from cvae.training import Metrics
from tests.conftest import weights

MODELS = {
    "cvae": cvae.Architecture(event_shape=(2, 3, 1), condition=cvae.Label(5), latent_size=4, hidden=(7,)),
    "vae": cvae.Architecture(event_shape=(2, 3, 1), condition=cvae.Unconditional(), latent_size=4, hidden=(7,)),
}
CONFIG = Config("test", "digits", 0, cvae.Training(epochs=2), MODELS)
EPOCHS = [
    Epoch(1, Metrics(150.1, -140.0, 10.1), None, 542.7, 1.5, 2e4),
    Epoch(2, Metrics(0.1 + 0.2, float("nan"), 1e-45), Metrics(1 / 3, -1.0, 2.0), 120.0, 0.25, 1e5),
]


def make_params(model: cvae.CVAE, seed: int, dtype: str = "float32") -> dict:
    """Parameters of a model's shapes, without compiling its `init`."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), weights(model, seed))


def assert_same(one: dict, two: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert [leaf.dtype for leaf in jax.tree.leaves(one)] == [leaf.dtype for leaf in jax.tree.leaves(two)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder with two models."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    folder.mkdir()
    runs.write_json(folder / "config.json", to_json(CONFIG))
    for seed, (name, architecture) in enumerate(MODELS.items()):
        checkpoints.save_tree(folder / "params" / name, make_params(cvae.make(architecture), seed))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


# Models


def test_the_models_of_a_run_are_loaded_to_the_bit(finished):
    for seed, (name, architecture) in enumerate(MODELS.items()):
        model, params = runs.load(finished, name)
        assert model is cvae.make(architecture)
        assert_same(params, make_params(model, seed))
    assert runs.load(str(finished))[0] is cvae.make(MODELS["cvae"])


def test_a_member_of_a_sweep_is_loaded_as_a_masked_model(tmp_path):
    model = cvae.masked(cvae.make(MODELS["cvae"]))
    params = make_params(model, 3)
    runs.write_json(tmp_path / "config.json", to_json(replace(CONFIG, sweep=cvae.Sweep((2, 4)))))
    checkpoints.save_tree(tmp_path / "params" / "cvae" / "z02_seed0_beta1_lr0.001", params)
    loaded, its_params = runs.load(tmp_path, "cvae/z02_seed0_beta1_lr0.001")
    assert loaded.latent_mask
    assert_same(its_params, params)
    message = r"name must be cvae/MEMBER, with a member of \['z02_seed0_beta1_lr0.001'\], got 'cvae'"
    with pytest.raises(ValueError, match=message):
        runs.load(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_saved_model_is_loaded_without_a_run(dtype, masked, tmp_path):
    model = cvae.make(MODELS["cvae"])
    model = cvae.masked(model) if masked else model
    for seed in (1, 2):  # the second replaces the first
        runs.save(tmp_path / "model", model, make_params(model, seed, dtype))
    loaded, params = runs.load(tmp_path / "model")
    assert (loaded.architecture, loaded.latent_mask) == (model.architecture, masked)
    assert_same(params, make_params(model, 2, dtype))
    with pytest.raises(ValueError, match="name must be left out for a folder of a single model, got 'vae'"):
        runs.load(tmp_path / "model", "vae")


def test_a_model_that_could_not_be_loaded_is_not_saved(finished, tmp_path):
    model = cvae.make(MODELS["cvae"])
    params = make_params(model, 1)
    with pytest.raises(ValueError, match=r"folder must be another than that of a run"):
        runs.save(finished, model, params)
    with pytest.raises(ValueError, match=r"model must be made by cvae.make, got functions of your own"):
        runs.save(tmp_path / "model", model._replace(architecture=None), params)
    wider = cvae.make(cvae.replace(MODELS["cvae"], latent_size=MODELS["cvae"].latent_size + 1))
    with pytest.raises(ValueError, match=r"leaf decoder\..* must have shape \(\d+, 7\), got \(\d+, 7\) in params"):
        runs.save(tmp_path / "model", model, make_params(wider, 1))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"folder must be a folder, got a file at .*file"):
        runs.save(tmp_path / "file", model, params)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_model_is_refused(finished):
    with pytest.raises(ValueError, match="name must be one of cvae, vae, got 'gan'"):
        runs.load(finished, "gan")


# Run folders


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run folder must hold a config.json, got none at .*nowhere"):
        runs.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json must be JSON"):
        runs.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.experiment must be given"):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match=r"run folder must be a folder, got a file at .*config.json"):
        runs.check_folder(tmp_path / "config.json", CONFIG)


def test_the_folder_of_another_run_is_refused_and_left_alone(run):
    other = replace(CONFIG, training=replace(CONFIG.training, epochs=1))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    message = r"with training\.epochs 2, not 1; choose another folder \(--out\) or discard that run \(--fresh\)"
    with pytest.raises(ValueError, match=message):
        runs.check_folder(run, other)
    runs.check_folder(run, other, fresh=True)
    runs.check_folder(run, CONFIG)
    runs.check_folder(run, replace(CONFIG, training=replace(CONFIG.training, epochs=3)))  # goes on
    runs.check_folder(run / "new" / "folder", CONFIG)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_other_data_are_named_as_such_unless_a_setting_differs_too(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 2))

    def fitted(x, ages):
        condition = cvae.Mixed((cvae.Label(3), cvae.Continuous.fitted(ages[:, None])))
        likelihood = cvae.Columns((cvae.Normal.fitted(x),), ((0, 1),))
        return replace(CONFIG, models={"cvae": cvae.Architecture((2,), condition, likelihood=likelihood)})

    runs.write_json(tmp_path / "config.json", to_json(fitted(x, x[:, 0])))
    remedy = r"; choose another folder \(--out\) or discard that run \(--fresh\)$"
    for config, name in (
        (fitted(x + 1, x[:, 0]), r"likelihood\.parts\[0\]\.location"),
        (fitted(x, x[:, 1]), r"condition\.parts\[1\]\.mean"),
    ):
        got = rf"got .*, begun with other data \(models\.cvae\.{name} differs\)"
        with pytest.raises(ValueError, match=f"^run folder must be of the same data, {got}{remedy}"):
            runs.check_folder(tmp_path, config)
    with pytest.raises(ValueError, match=r"of the same config, got .* with seed 0, not 1" + remedy):
        runs.check_folder(tmp_path, replace(fitted(x + 1, x[:, 0]), seed=1))


def test_a_folder_of_something_else_is_never_written_to(tmp_path):
    (tmp_path / "params").mkdir()
    for config in (None, '{"model_type": "gpt"}'):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        for call in (lambda: runs.check_folder(tmp_path, CONFIG, fresh=True), lambda: runs.discard(tmp_path)):
            with pytest.raises(ValueError, match=r"run folder must hold a config\.json|config.* must be"):
                call()
    assert (tmp_path / "params").is_dir()


def test_a_run_that_was_killed_before_it_had_a_config_blocks_nothing(tmp_path):
    with locks.lock(tmp_path):
        (tmp_path / ".config.json.4711").write_text('{"exp')
        (tmp_path / ".metrics.jsonl.4711").touch()
        runs.check_folder(tmp_path, CONFIG)
    assert runs.discard(tmp_path) == []


def test_only_what_a_run_left_is_discarded(run, tmp_path):
    (run / "notes.txt").write_text("mine")
    (run / "metrics.jsonl").write_text("one\ntwo\n")
    (tmp_path / "elsewhere" / "cvae").mkdir(parents=True)
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert runs.discard(run) == [f"discarding 2 epochs in {run}"]
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    assert (tmp_path / "elsewhere" / "cvae").is_dir()


def test_a_folder_that_cannot_be_discarded_stays_a_run(run, monkeypatch):
    def refuse(path):
        raise OSError(16, "Device or resource busy", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(runs.shutil, "rmtree", refuse)
        with pytest.raises(OSError, match=r"busy.*params"):
            runs.discard(run)
    assert runs.read_config(run) == CONFIG


# Files


def test_metrics_are_a_line_for_each_epoch(tmp_path):
    for epoch in EPOCHS:
        runs.append_metrics(tmp_path, "cvae", epoch)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines] == ["cvae", "cvae"]
    assert lines[0]["train"] == {"loss": 150.1, "log_likelihood": -140.0, "kl": 10.1}
    assert lines[0]["validation"] is None
    with pytest.raises(OSError, match=r"epoch 1 of cvae cannot be written to .*metrics\.jsonl: No such file"):
        runs.append_metrics(tmp_path / "missing", "cvae", EPOCHS[0])


def test_lines_after_the_checkpoint_are_dropped_and_those_of_other_models_stay(tmp_path):
    """As of a process that was killed between two checkpoints, while it wrote a line."""
    for name, epoch in (("vae", EPOCHS[0]), ("cvae", EPOCHS[0]), ("cvae", EPOCHS[1]), ("cvae2", EPOCHS[0])):
        runs.append_metrics(tmp_path, name, epoch)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"model": "cva')
    runs.rewrite_metrics(tmp_path, "cvae", EPOCHS[:1])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [("vae", 1), ("cvae2", 1), ("cvae", 1)]


def test_a_history_comes_back_from_json_to_the_bit():
    plain = json.loads(json.dumps(runs.history_to_json(EPOCHS)))
    found = runs.history_from_json(plain)
    assert isinstance(found[1].validation, Metrics)
    assert repr(found) == repr(EPOCHS)
    with pytest.raises(ValueError, match="history"):
        runs.history_from_json([{"epoch": 1}])
    with pytest.raises(ValueError, match="history must be as history_to_json writes it"):
        runs.history_from_json([plain[0] | {"train": None}])


def test_a_file_is_written_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    runs.write_json(path, {"loss": 1.5})
    with monkeypatch.context() as patched:
        patched.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match=r"summary\.json cannot be written: No space left on device"):
            runs.write_json(path, {"loss": 2.5})
    assert runs.read_json(path) == {"loss": 1.5}
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "run folder must hold a summary.json, as a finished run does"),
        ("[" * 10_000, "must be JSON"),
        ("[1]", r"must be an object, got \[1\]"),
        ('{"experiment": "test"}', r"must have the entries .*, got no \['dataset', 'seed', 'date', 'commit'"),
    ],
)
def test_a_summary_that_is_missing_or_damaged_is_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        runs.read_summary(tmp_path)


# Where results come from


def test_provenance_names_versions_and_machine_but_no_host():
    found = runs.provenance()
    assert found["versions"]["jax"] == jax.__version__
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["devices"]
    assert platform.node() not in json.dumps(found)
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40


def test_there_is_no_commit_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.commit() is None


def test_a_fingerprint_covers_names_shapes_dtypes_and_values():
    array = np.arange(6)
    tree = {"a": array, "b": (np.zeros(2), np.array("words"))}
    same = {"b": (np.zeros(2), np.array("words")), "a": np.asfortranarray(array)}
    others = [
        {"c": array, "b": tree["b"]},
        tree | {"a": array.reshape(2, 3)},
        tree | {"a": array.astype(np.int32)},
        tree | {"a": array[::-1]},
        tree | {"b": (np.zeros(2), np.array("word"))},
    ]
    assert runs.fingerprint(tree) == runs.fingerprint(same)
    assert len({runs.fingerprint(each) for each in [tree, *others]}) == 6
