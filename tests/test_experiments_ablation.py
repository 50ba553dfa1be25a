"""One change at a time: every variant differs from the default by what it says, and is compared on validation."""

import json

import pytest

from experiments import mnist_quadrants, quadrants_ablation
from experiments.quadrants_ablation import VARIANTS, Settings
from experiments.study import Data, Output


def configs(tmp_path) -> dict:
    """The config of every variant, by its name, as JSON has it."""
    settings = Settings(data=Data(dataset="digits"), epochs=3)
    found = {}
    for name in VARIANTS:
        each = quadrants_ablation.variant(settings, name, "digits", tmp_path)
        assert (each.measuring.split, each.models.rows) == ("validation", ("residual",))
        (plan,) = mnist_quadrants.plan(each)[1]
        found[name] = plan.config
    return found


def test_every_variant_is_the_default_with_one_change(tmp_path):
    found = configs(tmp_path)
    default = found["default"]
    assert all(config != default for name, config in found.items() if name != "default")
    assert len({repr(config) for config in found.values()}) == len(VARIANTS)
    for config in found.values():
        assert (config.training.epochs, config.seed) == (3, 0)
    assert found["gsnn"].training.alpha == 0
    assert found["guess_frozen"].training.frozen == ("guess",)
    assert found["guess_joint"].training.frozen == ()
    assert found["iwae"].training.num_samples == 5
    assert default.models["cvae"].hidden == (128,)
    assert found["two_blocks"].models["cvae"].hidden == (128, 128)
    assert found["one_layer"].models["cvae"].latent_layers == 1
    assert found["not_moved"].models["cvae"].condition.names == ("image", "observed")
    assert list(tmp_path.iterdir()) == []


def test_every_variant_is_kept_as_the_command_says(tmp_path):
    output = Output(tmp_path / "run", save_every=2, fresh=True, smoke=True)
    each = quadrants_ablation.variant(Settings(output=output), "hybrid", "digits", tmp_path / "run")
    assert each.output == Output(tmp_path / "run" / "hybrid", save_every=2, fresh=True, smoke=True)


def test_a_smoke_run_compares_on_validation(tmp_path):
    out = quadrants_ablation.main(
        Settings(quadrants=3, variants=("default",), epochs=2, output=Output(tmp_path / "run", smoke=True))
    )
    summary = json.loads((out / "default" / "quadrants_3" / "residual" / "summary.json").read_text())
    assert summary["split"] == "validation"
    (row,) = json.loads((out / "table.json").read_text())
    nll = summary["validation"]["importance_sampling_100"]["nll"]
    assert row["importance_sampling_100"] == nll
    text = f"| the default | {nll['value']:.2f} ± {nll['standard_error']:.2f} | +0.00 |"
    assert text in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ((), "--variants must name at least one, got none"),
        (("deep",), "--variants must be one of default, .*, got 'deep'"),
    ],
)
def test_bad_variants_are_refused(variants, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quadrants_ablation.main(Settings(variants=variants, output=Output(tmp_path / "run", smoke=True)))
    assert not (tmp_path / "run").exists()
