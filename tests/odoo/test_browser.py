"""What people see: two of them in Discuss, in a real browser, prefork behind nginx."""

import contextlib
import time

import pytest

from ..stack import series
from ..stack.deployment import running_deployment
from ..stack.odoo import ROLE

if series.NUMBER != 19:
    pytest.skip("the browser is tried with Odoo 19.0", allow_module_level=True)

from ..stack.browser import chromium
from ..stack.chat_users import create_users
from ..stack.nginx import Nginx

LIVE = 20.0  # seconds; most messages take a fraction of one
AFTER_KILL = 20.0
NEVER = 10.0


@pytest.fixture(scope="module")
def whole():
    with running_deployment("mail") as whole:
        yield whole


@pytest.fixture
def discuss(whole):
    """Return a function that starts a server and lets Alice and Bob look at their chat."""
    with contextlib.ExitStack() as stack:
        person = stack.enter_context(chromium(whole.folder / f"chromium-{time.monotonic_ns()}"))

        def discuss(**options):
            odoo = stack.enter_context(whole.odoo(workers=2, start=False, **options))
            conversations = create_users(odoo)
            odoo.start()
            nginx = Nginx(odoo.folder / "nginx", odoo).start()
            stack.callback(nginx.stop)
            people = person("alice"), person("bob")
            for one in people:
                one.open(nginx.url, conversations[0])
            return (*people, nginx.url, conversations[1])

        yield discuss


def options_of(whole) -> dict:
    return {"proxy_mode": True, **whole.direct_settings}


def test_two_people_talk(whole, discuss):
    alice, bob, url, channel = discuss(options=options_of(whole))
    begin = alice.write("Are you there?")
    assert bob.sees("Are you there?", LIVE)
    took = time.monotonic() - begin
    print(f"browser: a message appears after {took:.2f} s")
    begin = bob.write("Here I am.")
    assert alice.sees("Here I am.", LIVE)
    print(f"browser: the answer appears after {time.monotonic() - begin:.2f} s")

    alice.type("I am about to")
    assert bob.sees_typing("Alice", LIVE)
    bob.screenshot("typing")
    alice.page.fill(".o-mail-Composer-input", "")

    rows = whole.postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE %s AND usename = %s",
        ["%-listener", ROLE],
    )
    assert rows
    begin = alice.write("Did PostgreSQL just restart?")
    assert bob.sees("Did PostgreSQL just restart?", AFTER_KILL)
    print(f"browser: the first message after a kill appears after {time.monotonic() - begin:.2f} s")
    bob.screenshot("with")

    for one in (alice, bob):
        one.look_at(url, channel)
    alice.write("Good morning, channel")
    assert bob.sees("Good morning, channel", LIVE)
    bob.screenshot("channel")


@pytest.mark.slow
def test_stock_odoo_shows_it_after_a_reload(whole, discuss):
    alice, bob, _url, _channel = discuss(addon=False, options={"proxy_mode": True})
    alice.write("Are you there?")
    assert alice.sees("Are you there?"), "it was sent"
    assert not bob.sees("Are you there?", NEVER)
    bob.screenshot("without")
    bob.reload()
    assert bob.sees("Are you there?")
