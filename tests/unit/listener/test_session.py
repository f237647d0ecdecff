"""In which order a listener tries what ``auto`` may stand for."""

import types

from bus_alt_connection.config.settings import AUTO
from bus_alt_connection.listener import session as module
from bus_alt_connection.listener.session import Router


def test_after_the_pooler_s_second_address_the_server_is_next(monkeypatch):
    """Where neither receives: the first address of the pooler takes no connection."""
    opened: list = []

    def open_session(parameters, _timeout, _wakeup, rotation, _on_wait):
        opened.append((parameters["host"], rotation))
        return types.SimpleNamespace(address_index=int(parameters["host"] == "pooler"))

    monkeypatch.setattr(module, "ListenSession", open_session)
    router, rotation = Router({}), 0
    router._find = lambda *_arguments: [{"host": "server"}, {"host": "pooler"}]
    for _attempt in range(4):
        session = router.open({"host": AUTO}, None, rotation, None)
        rotation += 1 + session.skipped  # as the listener does
    assert opened == [("server", 0), ("pooler", 0), ("server", 2), ("pooler", 2)]
