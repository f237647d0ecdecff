# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The session of a listener: straight to the primary, whichever of the places that is."""

from typing import Callable, Mapping

import psycopg2

from .session import NoPrimary, Session, Waker, places

STANDBY = (
    "{} is a standby, which cannot LISTEN. Name the primary in imdispatcher_db_host, or several"
    " hosts separated by commas, of which the primary is taken"
)
POOLER = (
    "{} is a pooler, not PostgreSQL (it lent backend {} to a session that began as backend {}),"
    " and no NOTIFY comes through it. Set imdispatcher_db_host and imdispatcher_db_port to"
    " PostgreSQL itself"
)
ELSEWHERE = (
    "a NOTIFY on the normal path (Odoo's db_host and db_port) was not heard at {} within {:g} s:"
    " that is another server or another database, or it does not answer any more"
)

# A cluster may end sessions that are idle, as a listener is (PostgreSQL 14); and PostgreSQL's own
# keepalives let a backend end within 25 s where the network took away the listener.
MEET = """
    SELECT pg_backend_pid(), pg_is_in_recovery(), (
        SELECT count(set_config(name, value, false)) FROM pg_settings JOIN (VALUES
            ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '10'),
            ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')
        ) AS wanted (name, value) USING (name)
    )
"""


class Direct(Session):
    """A session with a primary."""

    turn = 0  # which of the places it leads to

    def meet(self) -> None:
        """Learn who is at the other end.

        :raises NoPrimary: a standby
        """
        self.backend, standby, _set = self.run(MEET)
        if standby:
            raise NoPrimary(STANDBY.format(self.place()))

    def listen(self, statements: list) -> None:
        """Run statements that LISTEN."""
        # moves the queue past entries whose transaction PostgreSQL has forgotten; LISTEN
        # would fail on them: "could not access status of transaction"
        self.run("SELECT pg_notification_queue_usage()")
        for statement in statements:
            self.run(statement)

    def where(self) -> str:
        """Return what the log says of it."""
        return (
            f"{self.place()}, PostgreSQL {self.info.parameter_status('server_version')},"
            f" database {self.info.dbname}, backend {self.backend}"
        )

    def behind_pooler(self) -> bool:
        """Tell whether something else answered the start-up message, as poolers do."""
        return self.backend != self.info.backend_pid

    def why_not_heard(self, seconds: float) -> str:
        """Return why a NOTIFY on the normal path may not have been heard within so many s."""
        if self.behind_pooler():
            return POOLER.format(self.place(), self.backend, self.info.backend_pid)
        return ELSEWHERE.format(self.place(), seconds)


def connect(
    parameters: Mapping[str, str], waker: Waker, turn: int, meanwhile: Callable[[], None]
) -> Direct:
    """Return a session with the first place that is a primary.

    :param parameters: libpq's
    :param turn: the place to begin with, counted from 0, over and over
    :param meanwhile: as in ``Session``
    :raises NoPrimary: where nobody is there, or only standbys
    :raises psycopg2.OperationalError: where somebody refuses
    """
    rest = dict(parameters)
    timeout = float(rest.pop("connect_timeout")) or float("inf")
    found = places(rest)
    errors, texts = [], []
    for i in range(turn, turn + len(found)):
        place = found[i % len(found)]
        try:
            direct = Direct(place, waker, timeout, meanwhile)
        except psycopg2.Error as error:
            errors.append(error)
            texts.append(named(place, error))
            continue
        try:
            direct.meet()
        except psycopg2.Error as error:
            direct.close()
            errors.append(error)
            texts.append(named(place, error))
        except BaseException:
            direct.close()
            raise
        else:
            direct.turn = i
            return direct
    gone = all(isinstance(error, NoPrimary) for error in errors)
    raise (NoPrimary if gone else psycopg2.OperationalError)("; ".join(texts))


def named(place: Mapping[str, str], error: Exception) -> str:
    """Return what libpq says, with the place that it says it of."""
    text = one_line(error)
    name = f"{place.get('host', '')}:{place.get('port', '')}"
    return text if name in text else f"{name}: {text}"


def one_line(error: Exception) -> str:
    """Return what libpq says first; what follows are its guesses."""
    first = (str(error).splitlines() or [repr(error)])[0]
    return " ".join(first.split()).rstrip(".")
