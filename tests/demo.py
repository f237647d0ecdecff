"""``./run demo``: notifications arrive live although every other query is pooled."""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from .stack import series
from .stack.chat_users import LOGINS, create_users, login_url
from .stack.client import BusClient
from .stack.deployment import running_deployment
from .stack.odoo import Sender
from .stack.process import end_on_signals, wait_until

NOTIFICATIONS = 50
SHOWN = 5
LOST_AFTER = 5


def say(text: str):
    print(f"• {text}", file=sys.stderr, flush=True)


def send_and_watch(odoo, show: bool) -> list[float]:
    """Send notifications to a websocket; return the seconds that each arrival took."""
    sender = Sender(odoo)
    try:
        with BusClient(odoo, "demo") as client:
            begun = {}
            for i in range(1, NOTIFICATIONS + 1):
                text = f"notification {i}"
                begun[text] = sender.send("demo", text)["begin"]
                if show and i <= SHOWN:
                    client.wait_for(text)
                    took = client.received[-1][1] - begun[text]
                    print(f"    {text}: sent, at the websocket {took * 1000:.0f} ms later")
                elif show and i == SHOWN + 1:
                    print("    …")
            try:
                client.wait_for(text, LOST_AFTER)
            except TimeoutError:
                pass
            return [arrival - begun[text] for text, arrival in client.received]
    finally:
        sender.close()


def where_it_listens(deployment, odoo) -> str:
    backends = deployment.postgres.listeners()
    direct = {port: pid for pid, port in odoo.connections_to(deployment.direct.port)}
    if not backends:
        return "nowhere: PgBouncer gave the session that ran LISTEN to others"
    return "; ".join(
        f"backend {pid} ({name}), "
        + ("straight from Odoo" if port in direct else "through PgBouncer")
        for pid, name, port in backends
    )


def row(name: str, took: list[float], where: str) -> str:
    median = f"{statistics.median(took) * 1000:.1f} ms" if took else "–"
    return f"  {name:<24}{f'{len(took)} of {NOTIFICATIONS}':>11}{median:>11}   {where}"


def kill_and_watch(deployment, odoo):
    """End the listener's backend, send a notification at once, and print when it was shown."""
    ((backend, _name, _port),) = deployment.postgres.listeners()
    sender = Sender(odoo)
    try:
        with BusClient(odoo, "demo") as client:
            sender.send("demo", "before")
            client.wait_for("before")
            deployment.postgres.execute("SELECT pg_terminate_backend(%s)", [backend])
            begun = time.monotonic()
            sender.send("demo", "after")
            client.wait_for("after")
            took = client.received[-1][1] - begun
        wait_until(lambda: "back after" in odoo.log(), "the listener is back")
    finally:
        sender.close()
    ((again, _name, _port),) = deployment.postgres.listeners()
    print(f"  killed the listener, backend {backend}, and sent a notification at once:")
    print(
        f"    at the websocket {took:.2f} s later; the listener is backend {again} now\n",
        flush=True,
    )


def show_chat(deployment, odoo, chat: int):
    """Print how to see it in two browsers."""
    ((backend, _name, _port),) = deployment.postgres.listeners()
    print("  Chat, in two windows, one of them private; each one's password is the login:")
    for login in LOGINS:
        print(f"    {login:<6} {login_url(odoo.url, chat)}")
    print("  Kill the listener and write on; the next message is there all the same:")
    print(f"    kill {backend}")
    print(f"  Odoo: {odoo.url}   login: admin   password: admin")
    print("  Ctrl-C stops and removes everything.", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the table")
    parser.add_argument("--kill", action="store_true", help="then end the listener's session")
    arguments = parser.parse_args()
    end_on_signals()

    say(f"preparing a database with Odoo {series.SERIES} Discuss (the first time: a minute)")
    with running_deployment("mail") as deployment:
        mode = deployment.pgbouncer.pool_mode()
        say(f"PostgreSQL is at 127.0.0.1:{deployment.direct.port}")
        say(f"PgBouncer is at 127.0.0.1:{deployment.pooled.port}, pool_mode = {mode}")
        rows = [f"  {'':<24}{'delivered':>11}{'median':>11}   where LISTEN is"]

        say("Odoo as it is, behind PgBouncer")
        with deployment.odoo(addon=False) as odoo:
            took = send_and_watch(odoo, show=False)
            rows.append(row("stock", took, where_it_listens(deployment, odoo)))
            lost = not took

        say("Odoo with bus_alt_connection, behind PgBouncer; odoo.conf has two more lines:")
        for name, value in deployment.direct_settings.items():
            print(f"    {name} = {value}")
        with deployment.odoo(options=deployment.direct_settings, start=False) as odoo:
            chat = None if arguments.once else create_users(odoo)[0]
            odoo.start()
            took = send_and_watch(odoo, show=True)
            rows.append(row("bus_alt_connection", took, where_it_listens(deployment, odoo)))
            print("\n" + "\n".join(rows) + "\n", flush=True)
            if not lost or len(took) != NOTIFICATIONS:
                sys.exit("run demo: this is not what the demo should show")
            if arguments.kill:
                kill_and_watch(deployment, odoo)
            if chat:
                show_chat(deployment, odoo, chat)
                while odoo.process.running():
                    time.sleep(0.5)
                sys.exit(f"Odoo ended:\n{odoo.process.tail()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("stopped")
