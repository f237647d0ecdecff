# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""One listener for all processes of a machine that would hear the same.

The first to take a name in Linux' abstract socket namespace leads: it has the session. The others
follow. When the leader ends, one of its followers takes the name. The second name is for them while
the leader hangs, or where a stranger has the first.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import threading
import time

from ..config.parameters import Settings
from ..config.timing import AFTER_UNEXPECTED_ERROR, JOIN_INTERVAL
from ..listener.inbox import Inbox
from ..listener.listener import Listener
from ..listener.status import Failure
from ..postgres.log import PatientLogger
from .follow import Feed, Follower
from .followers import BACKLOG
from .frames import Hello
from .ipc import open_socket
from .lead import LeaderWakeup
from .link import CannotFollow, LeaderLost, Link, connect

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))

ALONE = "%s: no listener is shared with other processes: %s. This process listens for itself."
LEADS = "%s: this process listens for the others from now on: %s"

ATTEMPTS = 100  # others may be faster each time
HASH_ROUNDS = 100_000  # slow on purpose: any user sees the name, and it is made with passwords


def names(settings: Settings, version: str) -> list[str]:
    """Return the names to lead with.

    Two processes have the same only if everything that decides what they hear is equal: settings
    with their secrets, what libpq takes from the environment, the user, the file system, the addon.
    """
    root = os.stat("/")
    libpq = {name: text for name, text in os.environ.items() if name.startswith("PG")}
    parts = settings.database, settings.listener, settings.pooled, libpq, os.environ.get("HOME")
    rest = version, os.geteuid(), root.st_dev, root.st_ino
    secret = json.dumps([*parts, *rest], sort_keys=True, default=dict).encode()
    digest = hashlib.pbkdf2_hmac("sha256", secret, b"bus_alt_connection", HASH_ROUNDS).hex()
    return [f"\0bus_alt_connection-{digest}", f"\0bus_alt_connection-{digest}-2"]


class Sharing:
    """Lets each inbox of this process be filled, by its own listener or by another process's.

    :param version: of the addon
    :param server: the same number for all processes of an Odoo server
    """

    def __init__(self, settings: Settings, version: str, server: int):
        self.listener: Listener | Follower | None = None
        self._settings, self._server = settings, server
        self._names = names(settings, version)
        self._lock = threading.Lock()  # guards listener

    def subscribe(self, inbox: Inbox, lost: LeaderLost | None = None) -> None:
        """Let the inbox be filled.

        :param lost: the error with which its leader was lost, if it had one
        """
        with self._lock:
            if self.listener and self.listener.add(inbox):
                return
            joined, why = None, None
            try:
                joined = self._join(inbox, lost)
            except (OSError, AttributeError, CannotFollow) as error:
                why = error
            try:
                if isinstance(joined, Link):
                    self._follow(inbox, joined)
                else:
                    self._listen(inbox, joined, lost)
                if why:
                    _logger.warning(ALONE, inbox.channel, why)
            except BaseException:  # no thread, no file descriptor to be had
                if joined:
                    joined.close()
                raise

    def _join(self, inbox: Inbox, lost: LeaderLost | None) -> Link | LeaderWakeup:
        """Find a leader, or become one.

        :raises CannotFollow: where neither can be
        :raises OSError: where there are no such sockets
        """
        hello = Hello(
            channel=inbox.channel,
            server=self._server,
            missed=inbox.needs_catch_up,
            while_deaf=inbox.catch_up_while_deaf,
            wants_status=inbox.fixed_fileno,
        )
        silent_pid = lost.silent_pid if lost else None
        refused: dict[str, CannotFollow] = {}
        for _ in range(ATTEMPTS):
            for name in self._names:
                try:
                    link = None if name in refused else connect(name, hello, silent_pid)
                except CannotFollow as error:
                    refused[name] = error
                else:
                    if link:
                        return link
            free = [name for name in self._names if name not in refused]
            if not free:
                raise refused[self._names[0]]
            lead = self._take(free[0])
            if lead:
                return lead
            time.sleep(JOIN_INTERVAL)
        raise CannotFollow("another process was faster each time")

    def _take(self, name: str) -> LeaderWakeup | None:
        """Take the name, unless it is taken."""
        taken = open_socket()
        try:
            taken.bind(name)
            taken.listen(BACKLOG)
            return LeaderWakeup(taken, self._server)
        except OSError as error:
            taken.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise

    def _follow(self, inbox: Inbox, link: Link) -> None:
        inbox.needs_catch_up = False  # the leader knows
        if not inbox.fixed_fileno:
            Feed(link, inbox, self._on_lost)
            return
        quiet = link.status.server == self._server
        self._start(Follower(link, inbox, quiet, self._on_lost_in_thread), inbox)

    def _listen(self, inbox: Inbox, lead: LeaderWakeup | None, lost: LeaderLost | None) -> None:
        on_end = functools.partial(self._on_deposed, lead)
        listener = Listener(self._settings, inbox, wakeup=lead, on_end=on_end)
        if self.listener:  # so that no counter goes back
            listener.failure_counts.update(self.listener.failure_counts)
            listener.notification_counts.update(self.listener.notification_counts)
        if lost:
            listener.failure_counts[Failure.LOST] += 1
        if lead:
            lead.listener = listener
        if lead and lost:
            _logger.info(LEADS, inbox.channel, lost)
        self._start(listener, inbox)

    def _start(self, thread: Listener | Follower, inbox: Inbox) -> None:
        thread.start()
        known = self.listener
        # where cron has to listen for itself, pages go on telling of the bus, which follows
        if inbox.fixed_fileno or not known or known.leads or not known.is_alive():
            self.listener = thread

    def _on_lost(self, inbox: Inbox, error: LeaderLost) -> None:
        inbox.needs_catch_up = True
        self.subscribe(inbox, error)

    def _on_lost_in_thread(self, inbox: Inbox, error: LeaderLost) -> None:
        logged = False
        while not inbox.closed:
            try:
                self._on_lost(inbox, error)
                return
            except Exception:
                if not logged:
                    _logger.exception("%s: unexpected error, trying again", inbox.channel)
                logged = True
            time.sleep(AFTER_UNEXPECTED_ERROR)

    def _on_deposed(self, lead: LeaderWakeup, inbox: Inbox) -> None:
        time.sleep(lead.pause)
        self._on_lost_in_thread(inbox, LeaderLost(lead.deposed))
        inbox.wake()  # its loop waits on another file descriptor now
