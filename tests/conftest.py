"""Session-wide: servers end with the session, and what could not run here is said in one line."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from tests.support import cli, servers, soak

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _servers() -> Iterator[None]:
    """Stop whatever was started."""
    yield
    servers.stop_all()


@pytest.fixture(autouse=True)
def _children() -> Iterator[None]:
    """No command outlives the test that started it."""
    yield
    cli.end_started()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist tells its controller what it missed: the summary is written there."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["missing"] = sorted(servers.missing)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller hears it; a worker that crashed says nothing."""
    servers.missing.update(getattr(node, "workeroutput", {}).get("missing", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that names what this machine could not run."""
    skipped = {str(r.longrepr[2]) for r in terminalreporter.stats.get("skipped", []) if isinstance(r.longrepr, tuple)}
    told = sorted({*(s.removeprefix("Skipped: needs ") for s in skipped), *servers.missing})
    if told:
        terminalreporter.write_line(f"not run here: {', '.join(told)} (CI runs all of it, with PGKURA_TEST_ALL=1)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long random runs only when asked for (`make soak`)."""
    if "soak" not in config.getoption("-m", default=""):
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]
    else:
        soak.share_among(sum(item.get_closest_marker("soak") is not None for item in items))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """How to have the same run again."""
    if "soak" not in config.getoption("-m", default=""):
        return []
    return [f"soak: SOAK_SECONDS={soak.SECONDS:g} SOAK_SEED={soak.SEED}"]
