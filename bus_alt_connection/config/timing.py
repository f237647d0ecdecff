# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How long the addon waits for what, in seconds: all of its times stand here."""

from __future__ import annotations

from typing import NamedTuple

NEVER = float("inf")
MAX_WAIT = 3600.0  # selectors take no infinity


class Timing(NamedTuple):
    """The listener's times. A pair is a range to draw from, which spreads a fleet out."""

    # Reconnecting: the delay doubles from the first to the last. It stays short where no primary
    # was reached, since that costs no server anything, and at the beginning of an outage.
    initial_delay: float = 0.5
    max_delay_early: float = 1.0
    max_delay: float = 30.0
    early: float = 60.0
    # A session that has listened for so long ends the outage.
    stable_after: float = 60.0

    # Probes: sent after a silence, for the whole fleet to hear; but each server hears one of its
    # own once a minute.
    probe_after_silence: tuple[float, float] = (9.0, 11.0)
    probe_interval: tuple[float, float] = (45.0, 60.0)
    probe_timeout: float = 9.0

    # A probe that could not be sent is sent again; sooner while something may have been missed.
    probe_retry: tuple[float, float] = (10.0, 15.0)
    probe_retry_early: tuple[float, float] = (0.5, 1.0)

    # The log says again that notifications do not arrive.
    log_interval: float = 60.0


DEFAULT_TIMING = Timing()

# connecting, where the operator wants no limit
CONNECT_TIMEOUT = 60.0

# connecting for a probe, and its NOTIFY
PROBE_SEND_TIMEOUT = 10.0

# asking the pooled connection where it leads, while an earlier answer is there
ROUTE_TIMEOUT = 1.0

# a NOTIFY on the pooled connection is received on the direct one
PROOF_TIMEOUT = 2.0

# after an error that no code expects: no file descriptor, no thread, a bug in this addon
AFTER_UNEXPECTED_ERROR = 1.0

# how often a wait looks whether it has to end
POLL_INTERVAL = 0.1

# Catching up with everybody: so long after a batch Odoo's pool is asked for a connection, and the
# next batch follows once there was one, at the latest after the longest period; where there is no
# pool to ask, after a period. At most so long until the first one: other processes catch up too.
CATCH_UP_ASK = 0.02
CATCH_UP_PERIOD = 0.1
CATCH_UP_MAX_PERIOD = 1.0
CATCH_UP_JITTER = 0.3

# one listener for the processes of a machine: how often its process shows that it is at work, after
# which silence the others give it up, and how long they wait for its first answer
LEAD_RENEWAL = 5.0
LEAD_TIMEOUT = 20.0
JOIN_TIMEOUT = 10.0
STATUS_INTERVAL = 1.0  # between two packets that tell of proofs and counts alone
JOIN_INTERVAL = 0.01  # until the next attempt, where another process was faster

# asking a database who missed something; so long the others wait for the answers of all databases
MISSED_STATEMENT_TIMEOUT_MS = 1000  # milliseconds
MISSED_TIMEOUT = 2.0
# create_date of a row is when its transaction began: by default Odoo ends a request after so long
MISSED_MARGIN = 120.0

# the outbox
ANSWER_TIMEOUT = 10.0  # connecting and each answer: a pooler that is paused gives it late
POOL_MODE_TIMEOUT = 1.0  # connecting a second session, to see the pooler's pool mode
POOL_MODE_MORE_TIMEOUT = 0.25  # a third one, where several poolers may be behind one address
POOL_MODE_TTL = 600.0  # how long that is believed
POOL_MODE_RETRY = 30.0  # until it is asked again, where there was no answer
IDLE_TIMEOUT = 60.0  # a session without use
COMMIT_CONNECT_TIMEOUT = 0.25  # how long a commit waits, at most, for a session
COMMIT_TIMEOUT = 0.05  # and for an answer; a thread waits on
COMMIT_TOTAL_TIMEOUT = 0.3  # and for all of it; a name server takes as long as it takes
OUTBOX_MAX_DELAY = 1.5  # between attempts: what waits leaves soon after the pooler is back
STOP_TIMEOUT = 2.0  # stopping
TCP_USER_TIMEOUT_MS = 2000  # milliseconds until the kernel gives up a peer that confirms nothing

# /ready: without a proof for so long, the listener itself hangs, as one is due every 11 s; or there
# never was one, as where the pooler does not know the system database
STALE_AFTER = 90.0

# buscheck: each address, each probe, all together
CHECK_TIMEOUT = 4.0
CHECK_PROBE_TIMEOUT = 2.0
CHECK_TOTAL_TIMEOUT = 10.0

# seconds between attempts to take a slot for loading modules
SLOT_INTERVAL = 0.0125
