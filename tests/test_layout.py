"""The layout of the package: what its modules may import, one argument order everywhere, functions of modest size."""

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

import pytest

import cvae

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "cvae").rglob("*.py"))
}
ORDER = ["model", "params", "key", "x", "c"]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
every_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(nodes: list[ast.stmt], *, run_time: bool = False) -> set[str]:
    """The modules imported by statements, at any depth.

    With `run_time` only those that importing the module imports: not those in functions or under TYPE_CHECKING.
    """
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif run_time and isinstance(node, FUNCTIONS):
            continue
        elif run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= imports(node.orelse, run_time=True)
        else:
            children = [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)
            ]
            found |= imports(children, run_time=run_time)
    return found


def importers(package: str) -> set[str]:
    """The modules that import a package, anywhere in them."""
    return {module for module in MODULES if package in {name.split(".")[0] for name in imports(tree(module).body)}}


def test_the_library_imports_nothing_that_is_built_on_it():
    for package in ("experiments", "benchmarks", "tests"):
        assert importers(package) == set(), package


def test_each_framework_is_known_to_one_place():
    assert all(module.startswith("cvae.networks.") for module in importers("flax"))
    assert all(module.startswith("cvae.plotting.") for module in importers("matplotlib"))
    assert importers("orbax") == {"cvae.checkpoints"}
    assert importers("tyro") == {"cvae.config"}


def test_modules_import_each_other_without_cycles():
    """Importing a package runs its `__init__`, but that is left out: within a package it is not yet complete."""
    edges = {}
    for module in MODULES:
        found = imports(tree(module).body, run_time=True) & set(MODULES)
        edges[module] = {other for other in found if not module.startswith(f"{other}.")} - {module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in edges[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert edges["cvae.sweeps"] > {"cvae.fitting", "cvae.training"}  # edges are found
    assert "cvae.loop" not in edges["cvae.progress"]  # it is imported for types alone


@every_module
def test_modules_and_functions_are_of_modest_size(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(module)):
        if isinstance(node, FUNCTIONS):
            assert node.end_lineno - node.lineno < 60, node.name
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([a for a in arguments if a.arg not in ("self", "cls")]) <= 11, node.name


@every_module
def test_what_is_public_has_a_docstring(module):
    assert ast.get_docstring(tree(module)), "the module"

    def check(parent: ast.AST) -> None:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, FUNCTIONS | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), node.name
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                check(node)

    check(tree(module))


def public_functions():
    """Every public function of the library and of its modules, and the four of a model, by name."""
    model = cvae.make(cvae.Architecture((3,), cvae.Unconditional(), 1, (2,)))
    yield from ((f"model.{name}", getattr(model, name)) for name in ("init", "encode", "prior", "decode"))
    for module in map(importlib.import_module, MODULES):
        for name, value in vars(module).items():
            function = inspect.unwrap(value) if callable(value) else value
            if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", function


def test_one_argument_order_everywhere():
    checked = {}
    for name, function in public_functions():
        arguments = [a for a in inspect.signature(function).parameters if a in ORDER]
        assert arguments == [a for a in ORDER if a in arguments], name
        checked[name] = arguments
    for name in ("objectives.elbo", "evaluation.evaluate", "fitting.fit", "fitting.epochs", "generation.reconstruct"):
        assert checked[f"cvae.{name}"] == ORDER
    assert checked["cvae.training.train_steps"] == ["model", "key", "x", "c"]  # found behind `jax.jit`
    assert checked["model.encode"] == ["params", "x", "c"]


def test_the_top_level_lists_what_a_user_needs():
    assert len(set(cvae.__all__)) == len(cvae.__all__)
    assert set(dir(cvae)) == {*cvae.__all__, "__version__"}
    for name in cvae.__all__:
        assert inspect.getdoc(getattr(cvae, name)), name
        assert not name.startswith("_")
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cvae.nonsense  # noqa: B018
