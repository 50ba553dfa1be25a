"""The shape of the house: imports point downwards, and one argument order holds everywhere."""

import ast
import inspect
from pathlib import Path

import pytest

import cvae

ROOT = Path(__file__).parent.parent

# A room imports only from lower floors.
FLOORS = {
    "checks": 0,
    "plotting": 0,
    "silence": 0,
    "arrays": 1,
    "attributes": 1,
    "charts": 1,
    "checkpoints": 1,
    "convolutions": 1,
    "distributions": 1,
    "download": 1,
    "masks": 1,
    "conditions": 2,
    "data": 2,
    "likelihoods": 2,
    "config": 3,
    "preparation": 3,
    "networks": 4,
    "model": 5,
    "generation": 6,
    "objectives": 6,
    "evaluation": 7,
    "classification": 8,
    "fidelity": 8,
    "training": 8,
    "runs": 9,
    "sweeps": 9,
}
ORDER = ["model", "params", "key", "x", "c"]


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_a_floor():
    rooms = {path.stem for path in (ROOT / "cvae").glob("*.py")} - {"__init__"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_downwards(room):
    found = imports(ROOT / "cvae" / f"{room}.py")
    rooms = {name.split(".")[1] for name in found if name.startswith("cvae.")} & set(FLOORS)
    assert all(FLOORS[other] < FLOORS[room] for other in rooms), rooms
    assert not any(name.split(".")[0] in ("experiments", "benchmarks", "tests") for name in found)


def test_only_networks_knows_flax():
    knows = {room for room in FLOORS if any(n.split(".")[0] == "flax" for n in imports(ROOT / "cvae" / f"{room}.py"))}
    assert knows == {"networks"}


def test_only_conditions_encodes_labels():
    encodes = {path.name for path in (ROOT / "cvae").glob("*.py") if "one_hot(" in path.read_text()}
    assert encodes == {"conditions.py"}


@pytest.mark.parametrize(
    "room", ["arrays", "attributes", "charts", "checks", "data", "download", "plotting", "silence"]
)
def test_rooms_of_host_arrays_do_not_import_jax_at_the_top(room):
    tree = ast.parse((ROOT / "cvae" / f"{room}.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("jax" in ast.unparse(node) for node in top)


def public_functions():
    """Every public function of the library that takes a model, and the four of a model."""
    model = cvae.make(cvae.Architecture((3,), cvae.Nothing(), 1, (2,)))
    yield from ((f"model.{name}", getattr(model, name)) for name in ("init", "encode", "prior", "decode"))
    for room in FLOORS:
        module = getattr(cvae, room)
        for name, function in vars(module).items():
            own = inspect.getmodule(function) is module or hasattr(function, "__wrapped__")
            if callable(function) and not inspect.isclass(function) and own and not name.startswith("_"):
                yield f"{room}.{name}", function


def test_one_argument_order_everywhere():
    checked = []
    for name, function in public_functions():
        arguments = [a for a in inspect.signature(function).parameters if a in ORDER]
        assert arguments == [a for a in ORDER if a in arguments], name
        if len(arguments) > 1:
            checked.append(name)
    assert {"model.encode", "model.prior", "objectives.elbo", "generation.sample", "training.fit"} <= set(checked)
    assert {"training.epoch", "evaluation.evaluate", "generation.reconstruct"} <= set(checked)


def test_every_public_name_is_there_and_documented():
    for name in cvae.__all__:
        assert getattr(cvae, name) is not None
        if name != "__version__":
            assert inspect.getdoc(getattr(cvae, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cvae.nonsense  # noqa: B018
    assert set(cvae.__all__) <= set(dir(cvae))
