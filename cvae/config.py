"""Settings: frozen dataclasses that check themselves and go to JSON and back. They hold no arrays.

`Architecture` decides shapes and so is static and hashable; `Training` says how to fit; `Config` is what a run
folder records, enough to build its models again.
"""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cvae import checks
from cvae.conditions import Condition, Nothing

T = TypeVar("T")


@dataclass(frozen=True)
class Architecture:
    """What decides the shapes of a conditional VAE; the defaults are the article's, without its condition.

    Args:
        event_shape: shape of one example x, a picture (H, W, C) or a row (D,).
        condition: what the model is told about x; `Nothing()` makes a plain VAE.
        latent_size: number of latent dimensions Z.
        hidden: widths of the encoder's ReLU layers; the decoder has the same, in reverse order.

    Raises:
        ValueError: a size is not a whole number of at least 1, or there is none.
    """

    event_shape: tuple[int, ...] = (28, 28, 1)
    condition: Condition = Nothing()
    latent_size: int = 2
    hidden: tuple[int, ...] = (512,)

    def __post_init__(self) -> None:
        # Lists are what JSON and notebooks bring; only tuples hash.
        object.__setattr__(self, "event_shape", tuple(self.event_shape))
        object.__setattr__(self, "hidden", tuple(self.hidden))
        checks.require(len(self.event_shape) > 0, "event_shape", "name at least one axis", "()")
        checks.require(len(self.hidden) > 0, "hidden", "name at least one width", "()")
        for axis, size in enumerate(self.event_shape):
            checks.whole_number(f"event_shape[{axis}]", size)
        for layer, width in enumerate(self.hidden):
            checks.whole_number(f"hidden[{layer}]", width)
        checks.whole_number("latent_size", self.latent_size)
        checks.require(isinstance(self.condition, Condition), "condition", "be a condition", repr(self.condition))


@dataclass(frozen=True)
class Training:
    """How to fit: the defaults are the article's.

    Args:
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: Adam's step size.
        beta: weight of the KL in the loss; 1 is the ELBO.
        num_samples: Monte Carlo samples of z an example.

    Raises:
        ValueError: a setting is not positive.
    """

    epochs: int = 20
    batch_size: int = 50
    learning_rate: float = 1e-3
    beta: float = 1.0
    num_samples: int = 1

    def __post_init__(self) -> None:
        checks.whole_number("epochs", self.epochs)
        checks.whole_number("batch_size", self.batch_size)
        checks.whole_number("num_samples", self.num_samples)
        checks.positive_number("learning_rate", self.learning_rate)
        checks.positive_number("beta", self.beta)


@dataclass(frozen=True)
class Config:
    """What a run folder's `config.json` holds: the data set, the seed, the models by name, how they were fitted."""

    experiment: str
    dataset: str
    seed: int
    training: Training
    models: dict[str, Architecture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.seed("seed", self.seed)


def to_json(config: Any) -> Any:
    """A dataclass as plain dicts, lists and numbers; a condition also says its class, as `kind`."""
    if dataclasses.is_dataclass(config):
        kind = {"kind": type(config).__name__} if isinstance(config, Condition) else {}
        return kind | {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_json(value) for key, value in config.items()}
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    return config


def from_json(kind: type[T], data: Any, name: str = "config") -> T:
    """The inverse of `to_json`, strict: every field is there, none is unknown, each has its type.

    Raises:
        ValueError: names the field that does not fit, as a path such as `config.models.cvae.latent_size`.
    """
    config: T = _read(kind, data, name)
    return config


def _read(hint: Any, data: Any, name: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        choices = {choice.__name__: choice for choice in args}
        kind = data.get("kind") if isinstance(data, dict) else None
        checks.require(kind in choices, f"{name}.kind", f"be one of {sorted(choices)}", repr(kind))
        return _read(choices[kind], {key: value for key, value in data.items() if key != "kind"}, name)
    if dataclasses.is_dataclass(hint):
        checks.require(isinstance(data, dict), name, "be an object", repr(data))
        hints = get_type_hints(hint)
        wanted = [f.name for f in dataclasses.fields(hint)]
        checks.require(sorted(data) == sorted(wanted), name, f"have the fields {wanted}", sorted(data))
        fields = {key: _read(hints[key], data[key], f"{name}.{key}") for key in wanted}
        try:
            return hint(**fields)  # type: ignore[operator]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if origin is tuple:
        checks.require(isinstance(data, list), name, "be a list", repr(data))
        return tuple(_read(args[0], value, f"{name}[{i}]") for i, value in enumerate(data))
    if origin is dict:
        checks.require(isinstance(data, dict), name, "be an object", repr(data))
        return {key: _read(args[1], value, f"{name}.{key}") for key, value in data.items()}
    if hint is float:
        is_number = isinstance(data, (int, float)) and not isinstance(data, bool)
        checks.require(is_number, name, "be a number", repr(data))
        return float(data)
    checks.require(type(data) is hint, name, f"be of type {hint.__name__}", repr(data))
    return data
