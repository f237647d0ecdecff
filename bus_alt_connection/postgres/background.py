# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Work in a thread of its own, for what cannot be waited for with a deadline."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Callable


def in_background(name: str, function: Callable[[], object]) -> Future:
    """Run a function in a daemon thread of this name, and return its result to come.

    No executor: that joins its threads when the process ends, and a name server may never answer.
    """
    future: Future = Future()

    def run():
        try:
            result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        threading.Thread(target=run, name=f"bus_alt_connection.{name}", daemon=True).start()
    except RuntimeError:  # no thread to be had; none begins while Python 3.12 ends
        run()
    return future
