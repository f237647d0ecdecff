import sys

from .stack.process import end_on_signals

end_on_signals()


def pytest_unconfigure():
    """Close what the addon keeps open until a process ends: here an open socket is an error."""
    session = sys.modules.get("bus_alt_connection.postgres.session")
    if session:
        session.UNINTERRUPTED.close()
