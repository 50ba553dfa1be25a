"""Metadata of the project; build-system and tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "cvae" / "__init__.py").read_text())[1]

setup(
    name="cvae",
    version=VERSION,
    description="Conditional variational autoencoders as pure functions, in JAX",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=["cvae", "experiments"],
    package_data={"cvae": ["py.typed"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "tensorflow-datasets>=4.9.10",
        "array_record>=0.5",  # the format of prepared sets; tensorflow-datasets asks for it on Linux only
        "absl-py>=2",
        "requests>=2.31",
        # tensorflow-datasets imports these and forgets to require them.
        "importlib_resources>=6",
        "pillow>=11",
        "numpy>=2",
        "scikit-image>=0.25",
        "scikit-learn>=1.6",
        "scipy>=1.15",
        "matplotlib>=3.10",
        "tyro>=1.0",
        "tqdm>=4.67",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-cov>=6",
            "pytest-xdist>=3.6",
            "hypothesis>=6.170",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "ruff>=0.15",
            "mypy>=1.18",
        ],
        "bench": ["torch>=2.10", "keras>=3.12"],
        "cuda": ["jax[cuda13]>=0.10"],
    },
)
