"""Other server-wide addons replace the functions of Odoo that this one replaces, before or after."""

from __future__ import annotations

import pytest

from ..stack import neighbours, series

CLASS = "Application" if series.NUMBER >= 16 else "Root"

# what instruments WSGI applications puts there: a class, its method, or the application itself
CLASS_BY_OBJECT = f"""
import odoo.http
class Wrapped:
    __slots__ = ("inner",)
    def __init__(self, inner):
        self.inner = inner
    def __call__(self, *args):
        return self.inner(*args)
odoo.http.{CLASS} = Wrapped(odoo.http.{CLASS})
"""
CLASS_BY_PROXY = f"""
import odoo.http
class Proxy:
    def __init__(self, inner):
        object.__setattr__(self, "_inner", inner)
    __class__ = property(lambda self: type(self._inner))
    def __getattr__(self, name):
        return getattr(self._inner, name)
    def __call__(self, *args):
        return self._inner(*args)
odoo.http.{CLASS} = Proxy(odoo.http.{CLASS})
"""
METHOD = f"""
import odoo.http
own = odoo.http.{CLASS}.__call__
def wrapped(self, environ, start_response):
    return own(self, environ, start_response)
odoo.http.{CLASS}.__call__ = wrapped
"""
ROOT = """
import odoo.http
class Middleware:
    def __init__(self, inner):
        self.inner = inner
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def __call__(self, *args):
        return self.inner(*args)
odoo.http.root = Middleware(odoo.http.root)
"""
KINDS = {
    "class by object": CLASS_BY_OBJECT,
    "class by proxy": CLASS_BY_PROXY,
    "method": METHOD,
    "root": ROOT,
    "root and class": ROOT + CLASS_BY_OBJECT,
}
OWN = "bus_alt_connection"
ASK = "print(ask().status_code)"


def in_order(order: str, name: str) -> list[str]:
    return [name, OWN] if order == "before" else [OWN, name]


def errors(done) -> list[str]:
    """What went wrong, but for the settings, which lead nowhere."""
    lines = done.stderr.splitlines()
    return [line for line in lines if " ERROR " in line and "deaf" not in line]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_there_whatever_wraps_the_application(tmp_path, kind, order):
    name = neighbours.addon(tmp_path, "neighbour", KINDS[kind])
    done = neighbours.load(tmp_path, in_order(order, name), ASK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("200", "503"), done.stderr
    assert not errors(done), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_a_set_does_not_matter(tmp_path, seed):
    """Up to 18.0 ``server_wide_modules`` is a set."""
    names = [
        neighbours.addon(tmp_path, f"neighbour_{i}", text)
        for i, text in enumerate([CLASS_BY_OBJECT, METHOD, ROOT])
    ]
    done = neighbours.load(
        tmp_path, [*names, OWN], ASK, PYTHONHASHSEED=str(seed)
    )
    assert done.stdout.strip() in ("200", "503"), done.stderr


def test_what_cannot_be_replaced_is_one_line_and_stays(tmp_path):
    name = neighbours.addon(
        tmp_path, "neighbour", f"import odoo.http\ndel odoo.http.{CLASS}.__call__"
    )
    done = neighbours.load(tmp_path, [name, OWN], "print('goes on')")
    assert (done.returncode, done.stdout.strip()) == (0, "goes on"), done.stderr
    lines = [line for line in done.stderr.splitlines() if f"odoo.http.{CLASS}.__call__" in line]
    assert len(lines) == 1, done.stderr
    assert "/bus_alt_connection/ready" in lines[0]
    assert "Root" not in done.stderr or CLASS == "Root"
