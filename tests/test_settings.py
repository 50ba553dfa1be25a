"""Settings of any class: checked when constructed, frozen, hashable, picklable, to JSON and back."""

import json
import pickle
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import Field

import cvae
from cvae.checks import Spec
from cvae.conditions import numbers
from cvae.settings import Count, Fraction, NonNegative, Positive, Seed, from_json, replace, setting, to_json


@setting
class Inner:
    """A setting inside another."""

    sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (2,)
    share: Fraction = 0.5


@setting
class Outer:
    """A setting with a field of every type."""

    seed: Seed
    rate: Positive = 1e-3
    decay: NonNegative = 0.0
    kind: Literal["a", "b"] = "a"
    limit: Positive | None = None
    inner: Inner = Inner()
    named: Annotated[dict[str, Inner], Field()] = Field(default_factory=dict)


@setting
class Double(cvae.Condition):
    """A user's own condition: two numbers, doubled."""

    factor: Positive = 2.0

    @property
    def spec(self):
        """Two numbers."""
        return {"double": Spec((2,))}

    def encode(self, c):
        """The numbers times the factor."""
        return numbers(self.factor * jnp.asarray(c["double"]))


@setting
class Sharp(cvae.Normal):
    """A user's own likelihood, of a class that is itself one."""

    sharpness: Positive = 1.0


BAD = {
    "missing": ({}, "^seed must be given, got "),
    "unknown": ({"seed": 0, "colour": 1}, "^colour must be a known field, got 1$"),
    "range": ({"seed": -1}, "^seed must be greater than or equal to 0, got -1$"),
    "infinite": ({"seed": 0, "rate": float("inf")}, "^rate must be a finite number, got inf$"),
    "zero": ({"seed": 0, "rate": 0}, "^rate must be greater than 0, got 0$"),
    "choice": ({"seed": 0, "kind": "c"}, "^kind must be 'a' or 'b', got 'c'$"),
    "optional": ({"seed": 0, "limit": -1}, "^limit must be greater than 0, got -1$"),
    "nested": ({"seed": 0, "inner": {"sizes": [3, 0]}}, r"^inner\.sizes\[1\] must be .* equal to 1, got 0$"),
    "in a dict": ({"seed": 0, "named": {"one": {"share": 2}}}, r"^named\.one\.share must be .* equal to 1, got 2$"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD.keys())
def test_errors_name_field_rule_and_value(fields, message):
    with pytest.raises(ValueError, match=message):
        Outer(**fields)
    with pytest.raises(ValueError, match=message.replace("^", r"^file\.")):
        from_json(Outer, fields, "file")


def test_positional_arguments_are_named_too():
    with pytest.raises(ValueError, match=r"^rate must be greater than 0, got -1$"):
        Outer(0, -1)
    with pytest.raises(ValueError, match=r"^sizes\[0\] must be a valid integer.*, got 2.5$"):
        Inner((2.5,))


def test_replacing_a_field_checks_again():
    outer = Outer(3)
    assert replace(outer, rate=2) == Outer(3, 2.0)
    assert outer.rate == 1e-3
    for fields, message in (({"rate": -1}, "^rate must"), ({"rates": 1}, "^rates must be a known field")):
        with pytest.raises(ValueError, match=message):
            replace(outer, **fields)
    with pytest.raises(AttributeError):
        outer.rate = 2


def test_numbers_of_numpy_become_pythons():
    outer = Outer(np.uint8(200), np.float16(0.5), jnp.asarray(0.25), inner=Inner(np.arange(1, 3), np.float32(0.5)))
    assert outer == Outer(200, 0.5, 0.25, inner=Inner([1, 2], 0.5))
    types = [type(value) for value in (outer.seed, outer.rate, outer.decay, outer.inner.sizes[0], outer.inner.share)]
    assert types == [int, float, float, int, float]
    for value in (np.timedelta64(3, "s"), np.array([1, 2]), 1 + 2j):
        with pytest.raises(ValueError, match=r"^seed must be a valid integer, got "):
            Outer(value)


def architecture(**fields):
    return cvae.Architecture((2, 3, 1), latent_size=4, hidden=(7,), **fields)


SETTINGS = {
    "defaults": Inner(),
    "nested": Outer(4, 0.1, 0.2, "b", 3.0, Inner((3, 4), 1), {}),
    "own condition": architecture(condition=Double(3.0), prior="learned"),
    "own likelihood": architecture(likelihood=Sharp(std=0.5, sharpness=2)),
    "own part": architecture(condition=cvae.Mixed((cvae.Label(3), Double()))),
}


@pytest.mark.parametrize("value", SETTINGS.values(), ids=SETTINGS.keys())
def test_json_pickle_and_hash(value):
    written = json.loads(json.dumps(to_json(value)))
    for copy in (from_json(type(value), written), pickle.loads(pickle.dumps(value)), replace(value)):
        assert copy == value
        assert to_json(copy) == written
        if not hasattr(value, "named"):  # a dict has no hash
            assert hash(copy) == hash(value)
    assert len({Inner(), Inner((2,), 0.5), Inner((3,))}) == 2


def test_a_class_is_chosen_by_its_name():
    assert to_json(SETTINGS["own condition"])["condition"] == {"kind": "Double", "factor": 3.0}
    part = to_json(SETTINGS["own part"])["condition"]["parts"][0]
    assert part == {"kind": "Label", "num_classes": 3, "name": "label", "categories": []}


def test_a_users_class_does_not_replace_one_of_the_library():
    @setting
    class Normal(cvae.Likelihood):
        sharpness: Count = 1

    library = architecture(likelihood=cvae.Normal())
    assert from_json(cvae.Architecture, to_json(library)) == library
    with pytest.raises(ValueError, match="class Normal must have a name that cvae does not use, to be saved"):
        to_json(architecture(likelihood=Normal()))
