"""The command line on a real SLURM; skipped, with the reason, where none can be started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import command, forks
from tests.cli.conftest import environment as plain_environment
from tests.slurm.lab import Lab, lab, missing

__all__ = ["command", "forks", "plain_environment"]


@pytest.fixture(scope="session")
def slurm() -> Iterator[Lab]:
    """A SLURM of two nodes, for all tests of the session."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with lab() as running:
        yield running


@pytest.fixture(scope="session")
def environment(plain_environment: dict[str, str], slurm: Lab) -> dict[str, str]:
    """What `command` runs with: no account, no network, this SLURM, and sums that round alike however it is run."""
    return plain_environment | slurm.environment | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def cleared(slurm: Lab) -> Iterator[None]:
    """Leaves no job behind, whatever became of the test."""
    yield
    slurm.clear()
