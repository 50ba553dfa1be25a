"""Sign errors in densities, KL, ELBO and importance weights, one at a time: do the tests notice each?

    python -m tests.stress.mutations              # about ten minutes on two cores
    python -m tests.stress.mutations --list       # print the mutants

In a copy of the source every `+` and `-` of these functions becomes the other, and every unary minus is removed; then
the tests of distributions, objectives and evaluation run until one fails. Exits with code 1 if a mutant passes them.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

import cvae
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

MUTATED = {
    "cvae/distributions/gaussian.py": ("kl_terms", "Normal.log_terms"),
    "cvae/distributions/binary.py": ("Bernoulli.log_terms",),
    "cvae/distributions/discrete.py": ("Poisson.log_terms", "NegativeBinomial.log_terms", "Categorical.log_terms"),
    "cvae/objectives.py": ("Elbo", "elbo", "hybrid", "Weights.value", "log_weights", "importance_estimate"),
}
TESTS = ("tests/test_distributions.py", "tests/test_objectives.py", "tests/test_evaluation.py")
COPIED = ("cvae", "tests", "experiments", "benchmarks", "pyproject.toml")


@cvae.setting
class Settings:
    """Options."""

    list: bool = False
    """print the mutants, and stop"""
    out: Path = Path("results/stress_mutations.json")
    """JSON file to write"""


class Mutant(NamedTuple):
    """A sign, where it is, and the source with it changed."""

    path: str
    function: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function}: {self.before}  ->  {self.after}"


class _Change(ast.NodeTransformer):
    """Change the sign of one node."""

    def __init__(self, node: ast.AST):
        self.node = node

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, changed if it is the one."""
        if node is not self.node:
            return self.generic_visit(node)
        if isinstance(node, ast.UnaryOp):
            return node.operand
        assert isinstance(node, ast.BinOp)
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return ast.BinOp(node.left, other, node.right)


def has_sign(node: ast.AST) -> bool:
    """Whether a node has a sign to change; that of an integer literal, an axis, does not count."""
    if isinstance(node, ast.UnaryOp):
        is_axis = isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
        return isinstance(node.op, ast.USub) and not is_axis
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)


def mutants() -> list[Mutant]:
    """All mutants."""
    made = []
    for path, functions in MUTATED.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for function in functions:
            count = sum(map(has_sign, ast.walk(part(ast.parse(text), function))))
            for number in range(count):
                tree = ast.parse(text)
                node = [node for node in ast.walk(part(tree, function)) if has_sign(node)][number]
                line, before = node.lineno, ast.unparse(node)  # type: ignore[attr-defined]
                changed = ast.fix_missing_locations(_Change(node).visit(tree))
                after = ast.unparse(_Change(node).visit(node))
                made.append(Mutant(path, function, line, before, after, ast.unparse(changed)))
    return made


def part(tree: ast.Module, name: str) -> ast.AST:
    """A function, a class or a method by its name."""
    at: ast.AST = tree
    for step in name.split("."):
        named = (ast.FunctionDef, ast.ClassDef)
        at = next(node for node in ast.iter_child_nodes(at) if isinstance(node, named) and node.name == step)
    return at


def passes(mutant: Mutant | None) -> bool:
    """Whether all tests pass with this source, or with the source as it is."""
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source, copy = ROOT / name, Path(folder) / name
            shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        if mutant is not None:
            (Path(folder) / mutant.path).write_text(mutant.source, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--numprocesses=2", *TESTS]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0 and " failed" not in result.stdout:
        raise RuntimeError(f"the tests could not run, code {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def main(settings: Settings) -> None:
    """Run the tests with every mutant."""
    check_out(settings.out)
    made = mutants()
    if settings.list:
        print("\n".join(map(str, made)))
        return
    if not passes(None):
        sys.exit("the tests fail with the source as it is")
    provenance, lines = cvae.runs.provenance(), []
    for mutant in tqdm(made, unit="mutant"):
        lines.append(f"{'LIVES ' if passes(mutant) else 'caught'}  {mutant}")
        tqdm.write(lines[-1])
    caught = sum(line.startswith("caught") for line in lines)
    print(f"{caught} of {len(made)} caught")
    results = {"mutants": len(made), "caught": caught, "lines": lines}
    write(settings.out, "mutations", {"tests": list(TESTS)}, results, provenance)
    if caught < len(made):
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
