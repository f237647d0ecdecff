# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What is between us and PostgreSQL on the pooled connection?"""

from .session import Session

BACKEND = "SELECT pg_backend_pid()"


def lends(one: Session, other: Session) -> bool:
    """Tell whether a pooler lends these sessions server connections, for one transaction each.

    A pooler that keeps sessions invents backends too, so only the two in turn show it.

    :raises psycopg2.OperationalError: where one of them gets no server connection in time
    """
    for _attempt in range(5):
        (before,) = one.run(BACKEND)
        # holds what it got while the first session asks again
        other.run("BEGIN")
        (others,) = other.run(BACKEND)
        # where there is only one server connection, asking now would be a wait for oneself
        (after,) = (others,) if others == before else one.run(BACKEND)
        other.run("ROLLBACK")
        if others == before or after != before:
            return True
    return False
