"""The addon's own pages, asked for as a WSGI server asks."""

import logging
import threading

import pytest
from werkzeug.wrappers import Response

from bus_alt_connection.pages import middleware

PATH = "/bus_alt_connection/a-page"


class Application:
    """An application with one page of the addon before it."""

    def __init__(self, start_bus=list):
        own = {PATH: lambda expected: Response(f"imbus: {expected}", content_type="text/plain")}
        self._middleware = middleware.Middleware(own, start_bus)
        self.status, self.headers = "", {}

    def ask(self, method="GET", path=PATH, query="") -> bytes:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}

        def start_response(status, headers):
            self.status, self.headers = status, dict(headers)

        def odoos(*_request):
            return [b"Odoo's"]

        return b"".join(self._middleware(odoos, self, environ, start_response))


@pytest.fixture(autouse=True)
def _no_filter_is_left():
    yield
    for name in middleware.ACCESS_LOGS:
        logging.getLogger(name).filters.clear()


def test_head_has_the_headers_of_get_and_no_body():
    application = Application()
    body = application.ask()
    headers = application.headers
    assert (application.status, body) == ("200 OK", b"imbus: []")
    assert headers["Content-Type"] == "text/plain"
    assert headers["Content-Length"] == str(len(body))
    assert application.ask("HEAD") == b""
    assert (application.status, application.headers) == ("200 OK", headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused(method):
    application = Application()
    assert application.ask(method) == b""
    assert application.status.startswith("405 ")
    assert application.headers["Allow"] == "GET, HEAD"


def test_other_pages_are_odoos():
    assert Application().ask("POST", "/web/login") == b"Odoo's"


def test_an_error_while_the_bus_is_started_is_one_line_and_no_page_fails(caplog):
    tried = []

    def start_bus():
        tried.append(True)
        raise RuntimeError("can't start new thread")

    application = Application(start_bus)
    assert [application.ask(path="/web/login") for _time in range(3)] == [b"Odoo's"] * 3
    assert len(tried) == 3
    (record,) = caplog.records
    assert "can't start new thread" in record.getMessage()
    assert application.ask() == b"imbus: ['imbus']", "it has to hear all the same"


def test_a_bus_that_could_not_be_started_is_started_with_a_later_request():
    tried = []

    def start_bus():
        tried.append(True)
        if len(tried) == 1:
            raise RuntimeError("can't start new thread")
        return ["the channel"]

    application = Application(start_bus)
    shown = [application.ask() for _time in range(3)]
    assert shown == [b"imbus: ['imbus']", *[b"imbus: ['the channel']"] * 2]
    assert len(tried) == 2


# as werkzeug 2 and later, werkzeug 0 and gevent, and Odoo after 19.0 log it
LINES = {
    "werkzeug": ('1.2.3.4 - - [date] "%s" %s %s\n', ["the request", "200", "-"]),
    "longpolling": ('1.2.3.4 - - [date] "the request" 200 99 0.0', []),
    "odoo.http.server": ("", []),
}


@pytest.mark.parametrize("name", LINES)
def test_only_its_own_line_is_left_out_of_the_access_log(name, caplog):
    caplog.set_level(logging.DEBUG)
    text, args = LINES[name]
    application, log = Application(), logging.getLogger(name)

    def lines(*request) -> int:
        """Ask, and return how many lines stay."""
        caplog.clear()
        application.ask(*request)
        log.info(text, *args)
        return len(caplog.records)

    assert lines() == lines("HEAD") == 0
    # the next in the same connection may be so broken that Odoo never sees it
    log.info(text, *args)
    assert len(caplog.records) == 1
    assert lines("POST") == 1
    assert lines("GET", "/web/login", f"a={PATH}") == 1
    assert lines("GET", f"/x{PATH}") == 1
    assert lines("GET", PATH, "a=what somebody wants to hide") == 1
    assert lines("GET", PATH.upper()) == 1


def test_what_other_threads_log_meanwhile_stays(caplog):
    caplog.set_level(logging.INFO)
    application, log = Application(), logging.getLogger("werkzeug")
    application.ask()
    thread = threading.Thread(target=log.info, args=["another request"])
    thread.start()
    thread.join()
    log.error("not about the request")
    log.info("the request")
    assert [r.getMessage() for r in caplog.records] == ["another request", "not about the request"]
