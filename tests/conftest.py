"""Session-wide: servers end with the session, and what could not run here is said in one line."""

from collections.abc import Iterator

import pytest
from tests.support import servers


@pytest.fixture(scope="session", autouse=True)
def _servers() -> Iterator[None]:
    """Stop whatever was started."""
    yield
    servers.stop_all()


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
