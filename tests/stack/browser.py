"""A real Chromium for users of Odoo's Discuss."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time

from playwright.sync_api import Page, sync_playwright

from .chat_users import login_url
from .odoo import CHECKOUT

SCREENSHOTS = CHECKOUT / "screenshots"

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)

# the websocket is in a SharedWorker, so the page's events do not show it
CONNECTED = (
    "() => globalThis.odoo?.__WOWL_DEBUG__?.root.env.services.bus_service.workerState"
    " === 'CONNECTED'"
)

# the first page compiles its assets
FIRST_PAGE = 120_000  # ms

FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{folder}</cachedir></fontconfig>
"""


class ChatUser:
    """One user who has a conversation of Discuss open, in a browser context of their own."""

    def __init__(self, page: Page, login: str):
        self.page = page
        self.login = login

    def open(self, url: str, conversation: int):
        """Log in and look at this ``discuss.channel``, until the bus is connected."""
        self.page.goto(login_url(url, conversation), timeout=FIRST_PAGE)
        self.page.fill("input[name=login]", self.login)
        self.page.fill("input[name=password]", self.login)
        self.page.click("button[type=submit]")
        self._ready()

    def look_at(self, url: str, conversation: int):
        self.page.goto(f"{url}/odoo/discuss?active_id=discuss.channel_{conversation}")
        self._ready()

    def reload(self):
        self.page.reload()
        self._ready()

    def _ready(self):
        self.page.wait_for_selector(".o-mail-Composer-input", timeout=FIRST_PAGE)
        self.page.wait_for_function(CONNECTED, timeout=FIRST_PAGE)

    def write(self, text: str) -> float:
        """Send a message; return when (monotonic, s)."""
        self.type(text)
        begin = time.monotonic()
        self.page.press(".o-mail-Composer-input", "Enter")
        return begin

    def type(self, text: str):
        self.page.locator(".o-mail-Composer-input").press_sequentially(text, delay=20)

    def sees(self, text: str, timeout: float = 20.0) -> bool:
        """Tell whether a message with this text appears within so many seconds."""
        return self._appears(self.page.locator(".o-mail-Message", has_text=text), timeout)

    def sees_typing(self, name: str, timeout: float = 20.0) -> bool:
        typing = self.page.locator(".o-discuss-Typing", has_text=f"{name} is typing")
        return self._appears(typing, timeout)

    @staticmethod
    def _appears(locator, timeout: float) -> bool:
        from playwright.sync_api import TimeoutError as TooLate

        try:
            locator.first.wait_for(timeout=timeout * 1000)
        except TooLate:
            return False
        return True

    def screenshot(self, name: str):
        """Keep a picture of the page beside the tests' other output."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@contextlib.contextmanager
def chromium(folder: pathlib.Path):
    """Yield a function that makes a ``ChatUser`` from a login."""
    root = pathlib.Path(os.environ["BUS_ALT_BROWSER"])
    program = root / "usr/lib/chromium/chromium"
    options: dict = {}
    if program.exists():  # otherwise Playwright has brought one
        folder.mkdir()
        fonts = folder / "fonts.conf"
        fonts.write_text(FONTS.format(root=root, folder=folder))
        libraries = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
        libraries += root.glob("usr/lib/*-linux-gnu*/pulseaudio")
        options = {
            "executable_path": program,
            "env": {
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "FONTCONFIG_FILE": str(fonts),
                "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            },
        }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(args=list(FLAGS), **options)

        def open_context(login: str) -> ChatUser:
            size = {"width": 900, "height": 520}
            return ChatUser(browser.new_context(viewport=size).new_page(), login)

        yield open_context
        browser.close()
