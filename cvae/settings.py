"""Settings declared once: a field's type, range, default and one line of help, in a frozen class.

From the declaration come the check at construction, the command line (tyro reads it), JSON both ways and hashing.
pydantic does the work; this module only turns its errors into one sentence that names the field, the rule and the
value, and lets a class be chosen by its name where a field takes any of several.
"""

from __future__ import annotations

import dataclasses
import re
from functools import wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic
from pydantic import Field, TypeAdapter

from cvae.checks import one_of, require, shown

T = TypeVar("T")

# Types of fields with their ranges; the command line and the errors show them.
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


@dataclass_transform(frozen_default=True, field_specifiers=(Field, dataclasses.field))
def setting(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen dataclass that checks them when it is constructed.

    Raises:
        ValueError: from the constructor; names the field, the rule and the value.
    """
    config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=config)(cls)
    construct = made.__init__

    @wraps(construct)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            construct(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            raise ValueError(sentence(error, fields=tuple(made.__pydantic_fields__))) from None

    made.__init__ = checked
    return made  # type: ignore[no-any-return]


def sentence(error: pydantic.ValidationError, name: str = "", fields: tuple[str, ...] = ()) -> str:
    """The first of pydantic's errors as `NAME must RULE, got VALUE`; `fields` name positional arguments."""
    first = error.errors()[0]
    # Where a union was tried, pydantic names its branches as well, such as `literal['a']`; readers know the fields.
    place = [str(part) for part in first["loc"] if not (isinstance(part, str) and re.search(r"\[|^constrained-", part))]
    if place and fields and place[0].isdigit():
        place[0] = fields[int(place[0])]
    field = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place)
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "value_error" and cause is not None:  # a sentence of this project's own
        return f"{name}{field}: {cause}".lstrip(".: ") if name else str(cause)
    rule = re.sub(r"^\w+ should ", "", first["msg"])
    rule = {"Field required": "be given", "Unexpected keyword argument": "be a known field"}.get(rule, rule)
    return f"{(name + field).lstrip('.') or 'arguments'} must {rule}, got {shown(first['input'])}"


def replace(setting: T, **changes: Any) -> T:
    """A copy with some fields changed, checked again."""
    return dataclasses.replace(setting, **changes)  # type: ignore[type-var]


def to_json(value: Any) -> Any:
    """A setting as plain dicts, lists and numbers."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], data: Any, name: str = "config") -> T:
    """The inverse of `to_json`: no field may be unknown, and one that is missing has its default.

    Raises:
        ValueError: names the field that does not fit, such as `config.models.cvae.latent_size`.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        raise ValueError(sentence(error, name)) from None


def chosen_by_name(base: type) -> Any:
    """The annotation of a field that takes any subclass of `base`, written to JSON with its class name as "kind".

    A user's own subclass is found once it is defined, so what was saved with it can be read after its definition.
    """

    def read(value: Any) -> Any:
        known = subclasses(base)
        if isinstance(value, dict):
            kind = str(value.get("kind"))
            one_of("kind", kind, known)
            return from_json(known[kind], {key: entry for key, entry in value.items() if key != "kind"}, kind)
        families: list[type] = base.__subclasses__()
        examples = " or ".join(f"cvae.{family.__name__}(...)" for family in families[:3])
        rule = f"be a cvae.{base.__name__}, such as {examples}"
        require(isinstance(value, base), base.__name__.lower(), rule, shown(value))
        return value

    def write(value: Any) -> Any:
        kind = type(value).__name__
        own = _is_of_library(type(value)) or not _is_of_library(subclasses(base)[kind])
        require(own, f"class {kind}", "have a name that cvae does not use, to be saved", repr(type(value)))
        return {"kind": kind} | to_json(value)

    return Annotated[Any, pydantic.BeforeValidator(read), pydantic.PlainSerializer(write)]


def subclasses(base: type) -> dict[str, type]:
    """The subclasses of a class, and theirs, by name; of two of one name the library's own, or else the later one."""
    found: dict[str, type] = {}
    direct: list[type] = base.__subclasses__()
    for cls in direct:
        for name, each in ({cls.__name__: cls} | subclasses(cls)).items():
            if name not in found or not _is_of_library(found[name]):
                found[name] = each
    return found


def _is_of_library(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "cvae"
