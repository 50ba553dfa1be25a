"""Generates the tables of README.md and docs/ from the files under `results/`, and from docstrings.

    python -m docs.generate     # rewrites what lies between <!-- table: NAME --> and <!-- end -->

A test compares the documents with the files, so every number in them was measured by a run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from docs import scale, tables
from docs.tables import ROOT
from experiments.__main__ import commands
from experiments.harness.tables import render

DOCUMENTS = ("README.md", "docs/results.md", "docs/layout.md", "docs/scaling.md")


def experiments() -> str:
    """The commands, from their docstrings."""
    lines = [[f"`{name}`", text] for name, text in commands().items()]
    return render(["`python -m experiments.`", "what it does"], lines, text_columns=2)


def layout() -> str:
    """The modules, each with the first paragraph of its docstring."""
    paths = [path for folder in ("cvae", "experiments") for path in sorted((ROOT / folder).glob("**/*.py"))]
    lines = []
    for path in sorted(paths, key=lambda path: (path.parent.as_posix(), path.stem != "__init__", path.stem)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = path.relative_to(ROOT).as_posix().removesuffix("__init__.py")
        first = " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|")
        lines.append([f"`{name}`", first])
    return render(["module", "contents"], lines, text_columns=2)


TABLES: dict[str, Callable[[], str]] = {"experiments": experiments, "layout": layout}


MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A table by its name, which is that of its function here, in `tables` or in `scale`."""
    function: Callable[[], str] = TABLES.get(name) or getattr(tables, name, None) or getattr(scale, name)
    return function()


def fill(text: str) -> str:
    """A document with all of its tables generated."""
    return MARKED.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", text)


def main() -> None:
    """Rewrite the documents."""
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
