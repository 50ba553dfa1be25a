"""The documents say what is true: their code runs, their tables equal the results, their links lead somewhere."""

import contextlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from cvae import locks, runs
from docs import generate
from experiments import mnist_label
from experiments.harness import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def code(name):
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


# Tables, links and results


@pytest.mark.parametrize("name", generate.DOCUMENTS)
def test_tables_equal_the_results(name):
    assert generate.fill(text(name)) == text(name), "run `python -m docs.generate`"


def test_a_changed_number_is_noticed():
    page = text("docs/results.md")
    loss = f"{json.loads(text('results/mnist_label/summary.json'))['test']['cvae']['loss']['value']:.2f}"
    forged = page.replace(f"| {loss} ", "| 1.23 ")
    assert forged != page == generate.fill(forged)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    page = re.sub(r"```.*?```", "", text(name), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", page):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / name).parent / file
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=lambda path: path.parent.name)
def test_results_say_where_they_come_from(path):
    record = json.loads(path.read_text())
    if path.name == "config.json":
        assert cvae.settings.from_json(cvae.config.Config, record)
        return
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"]), "a result must come from a commit, not from a changed tree"
    assert {"date", "versions", "machine"} <= set(record)
    assert "config" in record or (path.parent / "config.json").is_file()


def test_readme_is_short_and_its_commands_exist():
    assert len(text("README.md").splitlines()) <= 150
    assert any(
        line.endswith("&& .venv/bin/python -m pytest") for line in text("README.md").splitlines()
    )  # `.ci/run` reads it
    for name in DOCUMENTS:
        for module in re.findall(r"python -m ((?:experiments|benchmarks|docs|tests)(?:\.\w+)*)", text(name)):
            own = name == "docs/extending.md" and module == "experiments.bodies"
            assert own or importlib.util.find_spec(module) is not None, module


def test_one_version_everywhere():
    assert f"\nversion: {cvae.__version__}\n" in text("CITATION.cff")
    assert re.search(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)[1] == cvae.__version__


# Code


def test_readme_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = code("README.md")[0]
    assert len(example.strip().splitlines()) <= 12
    names = {}
    exec(example, names)
    assert names["terms"].value.shape == (300,)
    assert cvae.evaluation.mean(names["terms"].value).value > -24
    assert names["sevens"].shape == (12, 8, 8, 1)
    _, params = cvae.load("digits_model")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, names["params"]))


def run(number, folder):
    """A code block of docs/extending.md as an imported module."""
    path = folder / f"snippet_{number}.py"
    path.write_text(code("docs/extending.md")[number], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def test_a_likelihood(tmp_path):
    counts = run(0, tmp_path).counts
    assert (counts == np.round(counts)).all()
    np.testing.assert_allclose(counts.mean(axis=0), [20, 3, 1], rtol=0.15)


def test_a_condition(tmp_path):
    np.testing.assert_allclose(run(1, tmp_path).drawn.mean(axis=1)[:, 0], [10, 20, 10], atol=0.7)


def test_a_body(tmp_path):
    try:
        history = run(2, tmp_path).history
    finally:
        del cvae.networks.BODIES["gated"]
    assert history[-1].train.loss < 24 < history[0].train.loss


def test_a_metric(tmp_path):
    errors = run(3, tmp_path).errors
    assert errors.shape == (300,)
    assert 0 < errors.mean() < 0.06


def test_an_experiment(tmp_path, capsys):
    module = run(4, tmp_path)
    settings = cvae.replace(module.CONFIGS["smoke"], out=tmp_path / "run", bodies=("mlp",))
    out = cli.execute(module.EXPERIMENT, settings)
    assert runs.read_summary(out)["test"].keys() == {"mlp"}
    assert [path.name for path in (out / "figures").glob("*.png")] == ["digits_samples_mlp.png"]
    assert "active units" in capsys.readouterr().out


def test_an_optimizer_and_an_augmentation(tmp_path):
    history = run(5, tmp_path).history
    assert history[-1].train.loss < history[0].train.loss - 10


# Errors


def arrays():
    """Refusals of arrays by a model of images conditioned on the label."""
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(10), 2, (4,)))
    params, x = jax.jit(model.init)(jax.random.key(0)), np.zeros((4, 28, 28, 1), np.float32)
    label = {"label": np.arange(4)}
    scaled = np.linspace(0, 255, x.size, dtype=np.float32).reshape(x.shape)
    few, one_epoch = {"label": np.arange(3)}, cvae.Training(epochs=1)
    yield "a label out of range", lambda: model.encode(params, x, {"label": np.array([1, 2, 3, 12])})
    yield "one-hot labels", lambda: model.encode(params, x[:3], {"label": np.eye(10, dtype=np.float32)[:3]})
    yield "too few labels", lambda: model.encode(params, x, few)
    yield "pixels from 0 to 255 as floats", lambda: model.encode(params, scaled, label)
    yield "flat images", lambda: model.encode(params, x[:3].reshape(3, 784), few)
    yield "images without channels", lambda: model.encode(params, x[..., 0], label)
    yield "a list", lambda: model.encode(params, x.tolist(), label)
    yield "no condition", lambda: model.encode(params, x, {})
    yield "a condition that the model does not have", lambda: model.encode(params, x, label | {"age": np.arange(4)})
    yield "a constant as a condition", lambda: cvae.Continuous.fitted(np.full((4, 1), 40.0), "age")
    yield "a seed in place of a key", lambda: cvae.sample(model, params, 0, label)
    yield (
        "fewer examples than a batch",
        lambda: cvae.fit(model, params, jax.random.key(0), x[:3], few, one_epoch, progress=False),
    )


def settings():
    """Refusals of settings: what is passed is the code itself."""
    for passed in re.findall(r"^\| `((?:Architecture|Training)\(.*?\))`", text("docs/errors.md"), re.MULTILINE):
        yield f"`{passed}`", lambda passed=passed: eval(f"cvae.{passed}", {"cvae": cvae})


def files():
    """Refusals of files and run folders, in the working directory."""
    np.savez("mine.npz", pixels=np.zeros((4, 2, 2), np.uint8), digit=np.arange(4), age=np.arange(4.0))
    config, folder = cvae.config.Config("mnist_label", "digits", 0, cvae.Training()), Path("runs/mnist_label")
    folder.mkdir(parents=True)
    runs.write_json(folder / "config.json", cvae.settings.to_json(config))
    shorter = cvae.replace(config, training=cvae.Training(epochs=10))
    no_class = cvae.replace(mnist_label.CONFIGS["smoke"], digit=12)

    def twice():
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(locks.lock(folder))

    yield "a name that the file does not have", lambda: cvae.data.read_npz("mine.npz", ["pixels", "digits"])
    yield "a folder without a model", lambda: cvae.load("runs/nothing")
    yield "a run folder of another config", lambda: runs.check_folder(folder, shorter)
    yield "a run folder in use", twice
    yield "a digit that is no class", lambda: cli.execute(mnist_label.EXPERIMENT, no_class)


def training():
    """A loss that is not finite from the second step on."""
    model = cvae.make(cvae.Architecture((3,), latent_size=1, hidden=(2,)))
    params, x = jax.jit(model.init)(jax.random.key(0)), np.eye(3, dtype=np.float32)
    steep = cvae.Training(epochs=2, batch_size=1, learning_rate=1e20)
    passed = "a learning rate that is too high (`FloatingPointError`)"
    yield passed, lambda: cvae.fit(model, params, jax.random.key(0), x, {}, steep, progress=False)


def variable(message):
    """A message without what differs from call to call."""
    message = re.sub(r"process \d+ since \S+", "process N since T", message).replace("\\", "/")
    return re.sub(r" is (inf|-inf|nan);", " is not finite;", message)


def test_errors_are_those_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", text("docs/errors.md"), re.MULTILINE))
    raised = {}
    for passed, call in [*arrays(), *settings(), *files(), *training()]:
        with pytest.raises((ValueError, FloatingPointError)) as error:
            call()
        raised[passed] = variable(str(error.value))
    assert raised == {passed: variable(message) for passed, message in written.items()}
