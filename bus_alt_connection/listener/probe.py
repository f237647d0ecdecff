# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A probe: a small NOTIFY on the pooled connection, to be received on the direct one."""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from typing import Callable, Mapping, NamedTuple

from ..config.timing import PROBE_SEND_TIMEOUT, Timing
from ..postgres.background import in_background
from ..postgres.proof import NOTIFY_SQL, PROBE_CHANNEL
from ..postgres.session import ServerIdentity, Session
from .liveness import Action, Liveness
from .session import ListenSession


class Probe(NamedTuple):
    """A probe on its way."""

    payload: str
    answer: Future  # the ``ServerIdentity`` of the server that took it, or the error


def send_probe(
    parameters: Mapping[str, str], rotation: int, on_done: Callable[[], object]
) -> Probe:
    """Send a probe, from a thread of its own.

    :param parameters: libpq's, of the pooled connection
    :param rotation: which of its addresses comes first
    :param on_done: called at the end, from that thread
    """
    payload = secrets.token_hex(8)

    def notify() -> ServerIdentity:
        with Session(parameters, PROBE_SEND_TIMEOUT, rotation=rotation) as session:
            row = session.run(NOTIFY_SQL.format(PROBE_CHANNEL, payload))
            return ServerIdentity(*row, session.server_start_time())

    answer = in_background("probe", notify)
    answer.add_done_callback(lambda _future: on_done())
    return Probe(payload, answer)


class Prober:
    """Sends the probes of a listener when they are due (``liveness``).

    :param parameters: libpq's, of the pooled connection
    :param send: sends a probe
    :param wake: called once PostgreSQL has taken a probe, or has not
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        timing: Timing,
        send: Callable[..., Probe],
        wake: Callable[[], object],
    ):
        self.liveness = Liveness(timing)
        self._parameters, self._timing, self._send, self._wake = parameters, timing, send, wake
        self._probe: Probe | None = None  # not known yet whether PostgreSQL takes it
        self._notified_server: ServerIdentity | None = None  # took the last probe
        self._rotation = 0  # which address comes first

    def take_answer(self, now: float, early: bool) -> Future | None:
        """Return whether PostgreSQL has taken the last probe, once that is known.

        Whether it arrives is for ``liveness`` to say.

        :param early: try again soon: something may have been missed, and waits for the pooled
            connection
        """
        if self._probe is None or not self._probe.answer.done():
            return None
        answer, self._probe = self._probe.answer, None
        if answer.exception():
            self._rotation += 1
            self.liveness.not_sent(now, early)
        else:
            self._notified_server = answer.result()
            self.liveness.sent(now)
        return answer

    def listening(self, now: float) -> None:
        """A session listens, or listens on more channels."""
        self._probe = None
        self.liveness.listening(now)

    def lost(self, now: float, listened: bool, probing: bool) -> None:
        """There is no session.

        :param listened: there was one that listened
        :param probing: send probes all the same
        """
        if listened:
            self._probe = None
        self.liveness.lost(now, probing)

    def run_due(self, now: float, session: ListenSession | None) -> None:
        """Send a probe, if one is due.

        :raises ProbeTimeout: where one did not arrive in the session
        """
        action = self.liveness.next_action(now)
        if action is Action.SEND:
            self._probe = self._send(self._parameters, self._rotation, self._wake)
            self.liveness.sending(now, self._probe.payload)
        elif action is Action.RECONNECT:
            timeout = self._timing.probe_timeout
            raise session.explain_missed_probe(self._notified_server, timeout)
