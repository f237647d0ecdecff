"""nginx in front of a prefork Odoo, as in docs/nginx.rst."""

from __future__ import annotations

import os
import pathlib

from .guide import block
from .odoo import Odoo
from .process import Process, accepts, free_port

NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""


class Nginx:
    """One nginx on 127.0.0.1, a reverse proxy for ``odoo``."""

    def __init__(self, folder: pathlib.Path, odoo: Odoo):
        self.port = free_port()
        self.process = Process(folder.with_suffix(".log"))
        folder.mkdir()
        site = block("nginx", "proxy_pass http://127.0.0.1:8069")
        for old, new in (
            ("listen 80", f"listen 127.0.0.1:{self.port}"),
            ("127.0.0.1:8069", f"127.0.0.1:{odoo.port}"),
            ("127.0.0.1:8072", f"127.0.0.1:{odoo.gevent_port}"),
        ):
            assert old in site
            site = site.replace(old, new)
        self.conf = folder / "nginx.conf"
        self.conf.write_text(NGINX.format(folder=folder, site=site))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        program = pathlib.Path(os.environ["BUS_ALT_BROWSER"]) / "usr/sbin/nginx"
        self.process.start([program, "-c", self.conf, "-p", self.conf.parent, "-e", "stderr"])
        self.process.wait_for(lambda: accepts(self.port), "nginx accepts connections")
        return self

    def stop(self):
        self.process.stop()
