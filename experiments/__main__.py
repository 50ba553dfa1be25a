"""Lists the experiments."""

import ast
from pathlib import Path

HERE = Path(__file__).parent


def commands() -> dict[str, str]:
    """The experiments by name, each with the first line of its docstring."""
    docstrings = {
        path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in HERE.glob("[!_]*.py")
    }
    return {name: (text or "").partition("\n")[0] for name, text in sorted(docstrings.items())}


def main() -> None:
    """Print the commands."""
    print("Experiments; each has --help:\n")
    for name, first in commands().items():
        print(f"  python -m experiments.{name:18} {first}")


if __name__ == "__main__":
    main()
