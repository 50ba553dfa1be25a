"""Arrays of any shape, dtype and value at every public door: the right answer, or a refusal that names the argument?

    python -m benchmarks.properties                           # 1,000 cases a function, some ten minutes
    python -m benchmarks.properties --profile quick           # what the suite runs

Runs `tests/test_properties.py` under one of Hypothesis's profiles, and counts its cases. Exits with code 1 if a
property does not hold.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cvae
from experiments import command

ROOT = Path(__file__).resolve().parent.parent
# As Hypothesis reports what it did: the name of a property, then its phases.
NAME = re.compile(r"^tests/test_properties\.py::(.+):$")
CASES = re.compile(r"- (\d+) passing, (\d+) failing, and \d+ invalid test cases$")


@dataclass(frozen=True)
class Settings:
    """Options."""

    profile: Literal["thorough", "quick"] = "thorough"
    """of Hypothesis: 1,000 cases a function, or 7"""
    out: Path = Path("results/benchmark_properties.json")
    """JSON file to write"""


def count(report: str) -> dict[str, dict[str, int]]:
    """What Hypothesis says of every property: how many cases passed, and how many failed."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in report.splitlines():
        if named := NAME.match(line):
            name = named[1]
            found[name] = {"passed": 0, "failed": 0}
        elif counted := CASES.search(line):
            found[name]["passed"] += int(counted[1])
            found[name]["failed"] += int(counted[2])
    return found


def main(settings: Settings) -> dict[str, dict[str, int]]:
    """Run them, print the counts and write the file."""
    cvae.checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    provenance = cvae.runs.provenance()
    arguments = [f"--hypothesis-profile={settings.profile}", "--hypothesis-show-statistics", "-n0"]
    tests = [sys.executable, "-m", "pytest", "tests/test_properties.py", *arguments]
    with subprocess.Popen(tests, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:  # it takes minutes: show that it goes on
            print(line, end="", flush=True)
            lines.append(line)
    properties = count("".join(lines))
    held = process.returncode == 0 and len(properties) > 0
    cases = sum(each["passed"] for each in properties.values())
    print(f"{len(properties)} properties, {cases:,} cases passed: {'all hold' if held else 'NOT all hold'}")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"held": held, "properties": properties}
    record = {"benchmark": "properties", "config": {"profile": settings.profile}, "results": results}
    cvae.runs.write_json(settings.out, record | provenance)
    if not held:
        sys.exit(1)
    return properties


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
