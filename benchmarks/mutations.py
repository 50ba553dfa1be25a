"""Signs turned in the densities, the KL, the ELBO and the importance weights, one at a time: do the tests notice?

    python -m benchmarks.mutations              # some ten minutes on two cores
    python -m benchmarks.mutations --list       # what is turned

In a copy of the source every `+` and `-` of these functions becomes the other, and every unary minus goes; then the
tests of distributions, objectives and evaluation run until one fails. Prints which mutants live, and exits with code 1
if one does.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

import cvae
from experiments import command

ROOT = Path(__file__).resolve().parent.parent
TURNED = {
    "cvae/evaluation.py": ("_log_likelihood_of", "log_likelihood"),
    "cvae/distributions.py": ("kl_terms", "Normal.log_terms", "Bernoulli.log_terms"),
    "cvae/objectives.py": ("Elbo", "elbo", "hybrid", "Weights.value", "Weights.bound", "log_weights"),
}
TESTS = ("tests/test_distributions.py", "tests/test_objectives.py", "tests/test_evaluation.py")


@dataclass(frozen=True)
class Settings:
    """Options."""

    list: bool = False
    """print what would be turned, and stop"""
    out: Path = Path("results/benchmark_mutations.json")
    """JSON file to write"""


class Mutant(NamedTuple):
    """A sign, where it stands, and the source with it turned."""

    path: str
    function: str
    line: int
    before: str
    after: str
    source: str


class _Turn(ast.NodeTransformer):
    """Turn the sign of one node."""

    def __init__(self, node: ast.AST):
        self.node = node

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, turned if it is the one."""
        if node is not self.node:
            return self.generic_visit(node)
        if isinstance(node, ast.UnaryOp):
            return node.operand
        assert isinstance(node, ast.BinOp)
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return ast.BinOp(node.left, other, node.right)


def has_sign(node: ast.AST) -> bool:
    """Whether there is a sign to turn; that of a whole number alone, an axis, is none."""
    if isinstance(node, ast.UnaryOp):
        is_axis = isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
        return isinstance(node.op, ast.USub) and not is_axis
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)


def mutants() -> list[Mutant]:
    """All of them."""
    found = []
    for path, functions in TURNED.items():
        text = (ROOT / path).read_text()
        for function in functions:
            count = sum(has_sign(node) for node in ast.walk(part(ast.parse(text), function)))
            for number in range(count):
                tree = ast.parse(text)
                node = [node for node in ast.walk(part(tree, function)) if has_sign(node)][number]
                line, before = node.lineno, ast.unparse(node)  # type: ignore[attr-defined]
                turned = ast.fix_missing_locations(_Turn(node).visit(tree))
                after = ast.unparse(_Turn(node).visit(node))
                found.append(Mutant(path, function, line, before, after, ast.unparse(turned)))
    return found


def part(tree: ast.Module, name: str) -> ast.AST:
    """A function, a class or a method by its name."""
    at: ast.AST = tree
    for step in name.split("."):
        named = (ast.FunctionDef, ast.ClassDef)
        at = next(node for node in ast.iter_child_nodes(at) if isinstance(node, named) and node.name == step)
    return at


def lives(mutant: Mutant | None) -> bool:
    """Whether all tests pass with this source."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cvae", "tests", "experiments", "benchmarks", "pyproject.toml"):
            source, copy = ROOT / name, Path(folder) / name
            shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        if mutant is not None:
            (Path(folder) / mutant.path).write_text(mutant.source)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--numprocesses=2", *TESTS]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0 and " failed" not in result.stdout:  # the tests could not run
        raise RuntimeError(f"pytest ended with code {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def main(settings: Settings) -> int:
    """Turn every sign and run the tests; returns how many mutants were caught."""
    all_of_them = mutants()
    if settings.list:
        for mutant in all_of_them:
            print(f"{mutant.path}:{mutant.line} {mutant.function}: {mutant.before}  ->  {mutant.after}")
        return 0
    if not lives(None):
        print("the tests fail with the source as it is", file=sys.stderr)
        sys.exit(1)
    caught, provenance = 0, cvae.runs.provenance()
    lines = []
    for mutant in tqdm(all_of_them, unit="mutant"):
        alive = lives(mutant)
        caught += not alive
        words = f"{mutant.path}:{mutant.line} {mutant.function}: {mutant.before}  ->  {mutant.after}"
        lines.append(f"{'LIVES ' if alive else 'caught'}  {words}")
        tqdm.write(lines[-1])
    print(f"{caught} of {len(all_of_them)} caught")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"mutants": len(all_of_them), "caught": caught, "lines": lines}
    record = {"benchmark": "mutations", "config": {"tests": list(TESTS)}, "results": results}
    cvae.runs.write_json(settings.out, record | provenance)
    if caught < len(all_of_them):
        sys.exit(1)
    return caught


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
