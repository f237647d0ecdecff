# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How long the listener waits for what, in seconds."""

from typing import NamedTuple, Tuple

NEVER = float("inf")


class Times(NamedTuple):
    """A pair is a range: each wait is drawn from it, so that a fleet spreads out."""

    # Retries: the pause doubles from the first to the last, or to the short one where nobody is
    # there to be bothered, and in the first minute of trouble.
    first_pause: float = 0.5
    short_pause: float = 1.0
    last_pause: float = 30.0
    trouble: float = 60.0
    # A session that has listened for so long ends the trouble.
    steady: float = 60.0

    # Proof: whoever hears nothing for a while sends a probe, which the whole fleet hears; but
    # each hears one of its own once a minute.
    silence: Tuple[float, float] = (9.0, 11.0)
    own_probe: Tuple[float, float] = (45.0, 60.0)
    heard_within: float = 9.0

    # A probe that could not be sent is sent again; sooner while something may have been missed.
    retry: Tuple[float, float] = (10.0, 15.0)
    retry_soon: Tuple[float, float] = (0.5, 1.0)

    # The log says again that notifications do not arrive.
    reminder: float = 60.0


TIMES = Times()
