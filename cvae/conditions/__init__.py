"""Conditions: what a model is conditioned on, each one class of settings.

A model's conditions come as one dict `c` of arrays by name, each of length B. A condition says

    spec                     what each of its arrays must be; checking is generic
    encode(c)                `Features`, as the networks take them
    augment(key, x, c)       what is drawn anew in training, such as masks
    observed(c)              the part of x that c contains, of which there is no density

A subclass with these, defined anywhere, can be passed to `Architecture(condition=...)`. How features enter a network
is the business of `networks`.
"""

from cvae.conditions.base import Condition, Conditions, Features, FeatureSizes, Unconditional, numbers
from cvae.conditions.composed import Mixed, Optional
from cvae.conditions.image import Image
from cvae.conditions.values import Continuous, Exposure, Label

__all__ = [
    "Condition", "Conditions", "Continuous", "Exposure", "FeatureSizes", "Features", "Image", "Label", "Mixed",
    "Optional", "Unconditional", "numbers",
]  # fmt: skip
