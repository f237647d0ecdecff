"""Which payloads Odoo's loop may see."""

import pytest

from bus_alt_connection.integration.bus_protocol import (
    as_subscribed,
    databases_of,
    is_valid_payload,
)


@pytest.mark.parametrize(
    "text",
    [
        *('["a"]', "[]", '[["db","a"]]', '[["db","res.partner",3]]', '["\\u00e9"]'),
        *('[["db","a"],"b"]', '"text"', '{"a": 1}'),
    ],
)
def test_what_its_loop_survives(text):
    assert is_valid_payload(text)
    assert is_valid_payload(text, nested_channels=True)


@pytest.mark.parametrize(
    "text",
    ["", "hello", "5", "null", "[", "[NaN]", "[Infinity]", '["\\ud800"]', "[" * 7000],
)
def test_what_would_end_its_loop(text):
    assert not is_valid_payload(text)
    assert not is_valid_payload(text, nested_channels=True)


@pytest.mark.parametrize(
    "text",
    [
        *('[{"a": 1}]', '[["db", ["a"]]]', '[["db", {}]]'),
        # pairs of a channel and a number, alone and in a list
        *('[["db", "a"], 5, [["db", "b"], 6]]', '[[["db", "res.partner", 3], 5]]'),
    ],
)
def test_what_only_a_newer_odoo_can_read(text):
    assert not is_valid_payload(text)
    assert is_valid_payload(text, nested_channels=True)


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ('["db","a"]', ("db", "a")),
        ('["db","res.partner",3]', ("db", "res.partner", 3)),
        ('["db",["res.partner",3],"x"]', ("db", ("res.partner", 3), "x")),
        ('"uuid"', "uuid"),
        *((text, None) for text in ("{}", "[{}]", "", "no JSON", None, "[" * 7000)),
    ],
)
def test_the_channel_of_a_row_as_it_is_subscribed_to(text, channel):
    assert as_subscribed(text) == channel


def test_which_databases_have_subscribers():
    subscriptions = {("b", "x"): {1}, ("a", "res.partner", 3): {2}, "uuid": {3}, (): {4}, (5,): {6}}
    assert databases_of(subscriptions) == ["a", "b"]
