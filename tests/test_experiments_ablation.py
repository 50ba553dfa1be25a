"""One change at a time: every variant differs from the default by one option, and is compared on validation."""

import json

from experiments import mnist_quadrants, quadrants_ablation
from experiments.quadrants_ablation import VARIANTS, Settings


def test_every_variant_is_the_default_with_one_change(tmp_path):
    settings = Settings(dataset="digits", epochs=3)
    runs = {name: quadrants_ablation.variant(settings, name, "digits", tmp_path) for name in VARIANTS}
    default = runs["default"]
    assert len({(run.architecture, run.training) for run in runs.values()}) == len(VARIANTS)
    for name, run in runs.items():
        assert (run.training.epochs, run.split, run.rows, run.many_samples) == (3, "validation", ("residual",), 0)
        assert run.out == tmp_path / name / "quadrants_1" / "residual"
    assert runs["two_blocks"].architecture.hidden == 2 * default.architecture.hidden
    assert (runs["guess_frozen"].training.frozen, runs["guess_joint"].training.frozen) == (("guess",), ())
    dataset = mnist_quadrants.load(default)
    assert list(mnist_quadrants.models(runs["no_shift"], dataset)["cvae"].condition.spec) == ["image"]
    assert list(mnist_quadrants.models(runs["guess_joint"], dataset)) == ["guess", "cvae"]


def test_a_smoke_run_compares_on_validation(tmp_path):
    settings = Settings(quadrants=3, variants=("default",), epochs=1, out=tmp_path / "run", smoke=True, figures=False)
    out = quadrants_ablation.execute(settings)
    summary = json.loads((out / "default" / "quadrants_3" / "residual" / "summary.json").read_text())
    (record,) = json.loads((out / "table.json").read_text())
    nats = summary["validation"]["importance_sampling_100"]["nats"]
    assert record["importance_sampling_100"] == nats
    text = (out / "table.md").read_text()
    assert text.splitlines()[2].startswith("| the default")
    assert f"{nats['value']:.2f} ± {nats['standard_error']:.2f} |" in text
    assert "+0.00 |" in text
