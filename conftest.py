"""Settings of all tests."""

import itertools
import os
import random
from collections.abc import Iterator

import pytest

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # the Meta-World extra's environment: its tests do without
    pass
else:
    # Tests assert no timing: on a busy machine an example may take any time.
    settings.register_profile("rl100", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("rl100")

DOMAINS = 100  # 1 to 100: above, ROS's ports meet those that the system gives out
_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Tests of two checkouts on one machine begin elsewhere; the workers of a run take turns.
_domains = itertools.count(random.Random(_run).randrange(DOMAINS) + _worker, _workers)


@pytest.fixture(autouse=True, scope="module")
def domain_of_its_own() -> Iterator[None]:
    """A ROS domain for the nodes of one file, which run beside those of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + next(_domains) % DOMAINS))
        yield
