"""The properties of `tests/test_properties.py` with 1,000 random cases each.

    python -m tests.stress.properties                           # about ten minutes
    python -m tests.stress.properties --profile quick           # as many cases as in `pytest`

Exits with code 1 if a property does not hold.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import cvae
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

# From Hypothesis's statistics: the name of a property, then its phases.
NAME = re.compile(r"^tests/test_properties\.py::(.+):$")
CASES = re.compile(r"- (\d+) passing, (\d+) failing, and \d+ invalid test cases$")


@cvae.setting
class Settings:
    """Options."""

    profile: Literal["thorough", "quick"] = "thorough"
    """of Hypothesis: 1,000 cases per property, or 7"""
    out: Path = Path("results/stress_properties.json")
    """JSON file to write"""


def count(report: str) -> dict[str, dict[str, int]]:
    """How many cases of each property passed and failed, from Hypothesis's statistics."""
    counts: dict[str, dict[str, int]] = {}
    name = ""
    for line in report.splitlines():
        if named := NAME.match(line):
            name = named[1]
            counts[name] = {"passed": 0, "failed": 0}
        elif cases := CASES.search(line):
            counts[name]["passed"] += int(cases[1])
            counts[name]["failed"] += int(cases[2])
    return counts


def main(settings: Settings) -> None:
    """Run the tests, print the counts and write the file."""
    check_out(settings.out)
    provenance, lines = cvae.runs.provenance(), []
    arguments = [f"--hypothesis-profile={settings.profile}", "--hypothesis-show-statistics", "-n0", "-v"]
    command = [sys.executable, "-m", "pytest", "tests/test_properties.py", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    properties = count("".join(lines))
    held = process.returncode == 0 and len(properties) > 0
    cases = sum(each["passed"] for each in properties.values())
    print(f"{len(properties)} properties, {cases:,} cases passed: {'all hold' if held else 'NOT all hold'}")
    results = {"held": held, "properties": properties}
    write(settings.out, "properties", {"profile": settings.profile}, results, provenance)
    if not held:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
