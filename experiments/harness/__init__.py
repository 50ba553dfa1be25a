"""What the experiments share: command lines, run folders, tables and figures.

An experiment is named configs, `evaluate` and `figures`; everything else is here.
"""

from experiments.harness.cli import Experiment, Job, RunSettings, Settings, command
from experiments.harness.run import Examples, Proposal, Run, Trained, elbo_summary, finished, likelihood_summary
from experiments.harness.tables import Row

__all__ = [
    "Examples", "Experiment", "Job", "Proposal", "Row", "Run", "RunSettings", "Settings", "Trained", "command",
    "elbo_summary", "finished", "likelihood_summary",
]  # fmt: skip
