"""Two users with a chat of Discuss; the password of each is its login."""

from __future__ import annotations

import json
import re

from .odoo import Odoo

LOGINS = "alice", "bob"

CREATE_USERS = """
import json
alice, bob = env["res.users"].create([
    {"name": name.capitalize(), "login": name, "password": name,
     "group_ids": [(4, env.ref("base.group_user").id)]}
    for name in ("alice", "bob")
])
chat = env["discuss.channel"].with_user(alice)._get_or_create_chat([bob.partner_id.id])
channel = env["discuss.channel"].with_user(alice)._create_channel("planning", group_id=None)
channel._add_members(partners=bob.partner_id)
env.cr.commit()
print("conversations", json.dumps([chat.id, channel.id]))
"""


def create_users(odoo: Odoo) -> list[int]:
    """Create both users in the database of a server that is not started yet (19.0, module mail).

    :return: the ids of their chat and of a channel that both are in (``discuss.channel``)
    """
    done = odoo.run_command("shell", "--no-http", text=CREATE_USERS)
    return json.loads(re.search("^conversations (.*)$", done.stdout, re.M)[1])


def login_url(url: str, conversation: int) -> str:
    """Return the link to the login that opens this conversation."""
    return f"{url}/web/login?redirect=/odoo/discuss%3Factive_id%3Ddiscuss.channel_{conversation}"
