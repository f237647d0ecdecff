"""Which payloads Odoo's loop may see."""

import json

import pytest

from bus_alt_connection.payload import is_list_of_channels, is_probe, probe


@pytest.mark.parametrize(
    "text",
    ['["a"]', "[]", '[["db","a"]]', '[["db","res.partner",3]]', '["\\u00e9"]', '[["db","a"],"b"]'],
)
def test_what_odoo_sends(text):
    assert is_list_of_channels(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "5",
        "null",
        '"text"',
        '{"a": 1}',
        "[",
        "[NaN]",
        "[Infinity]",
        '["\\ud800"]',
        '[{"a": 1}]',
        '[["db", ["a"]]]',
        '[["db", {}]]',
        "[" * 7000,
    ],
)
def test_what_would_end_its_loop(text):
    assert not is_list_of_channels(text)


def test_a_probe_is_a_list_of_one_channel_that_nobody_has():
    assert is_list_of_channels(probe())
    assert is_probe(probe())
    assert probe() != probe()
    ((nobody, _token),) = json.loads(probe())
    assert nobody == "bus_alt_connection"
    assert not is_probe('[["a database","a channel"]]')
