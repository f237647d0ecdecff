import pytest

from .stack.client import BusClient
from .stack.deployment import deployment as running_deployment
from .stack.odoo import Sender
from .stack.process import end_on_signals

end_on_signals()


@pytest.fixture(scope="session")
def deployment():
    """PostgreSQL and PgBouncer, shared by all tests that do not break them."""
    with running_deployment() as whole:
        yield whole


@pytest.fixture
def deliver():
    """A function that sends 100 notifications one by one and returns how many arrive."""

    def deliver(odoo, number: int = 100, timeout: float = 30.0) -> int:
        sender = Sender(odoo)
        try:
            with BusClient(odoo, "test_channel") as client:
                for i in range(number):
                    sender.send("test_channel", f"message {i}")
                try:
                    client.wait_for(f"message {number - 1}", timeout)
                except TimeoutError:
                    pass
                return len(client.received)
        finally:
            sender.close()

    return deliver
