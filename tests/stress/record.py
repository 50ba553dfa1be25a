"""The result files of the stress tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cvae
from cvae import checks

ROOT = Path(__file__).resolve().parents[2]


def check_out(out: Path) -> None:
    """Refuse an output file that cannot be one."""
    checks.require(not out.is_dir(), "--out", "be a file", f"the folder {out}")


def write(out: Path, name: str, config: Any, results: Any, provenance: dict[str, Any]) -> None:
    """Write the results and where they come from as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    cvae.runs.write_json(out, {"stress": name, "config": config, "results": results} | provenance)
    print(f"results in {out}")
