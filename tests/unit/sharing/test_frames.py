"""What a leader and its followers tell each other."""

import json

import pytest

from bus_alt_connection.sharing import frames
from bus_alt_connection.sharing.frames import Heard, Hello, Look, Missed, ProtocolError, Status

STATUS = Status("listening", "", "db:5432", 1.5, None, ["imbus"], {"imbus": 3}, {"lost": 1}, 2, 8)


@pytest.mark.parametrize(
    "frame",
    [Hello("imbus", 1, True, True, False), Missed(), STATUS, Heard(["a", "é\n\ud800"]), Look()],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_comes_back_as_it_was(frame):
    assert frames.decode(frames.encode(frame)) == frame


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "{}", "1", "null", '["Look",1]', '["Nothing"]', "[[]]", '[{"a":1}]'),
        *('["Heard"]', '["Heard","a"]', '["Heard",[1]]', '["Hello","imbus",1,true,true]'),
        *('["Hello","imbus; DROP TABLE a",1,true,true,true]', '["Hello",1,1,true,true,true]'),
        '["Hello","imbus","1",true,true,true]',
        json.dumps(["Status", "no state", *STATUS[1:]]),
        json.dumps(["Status", *STATUS[:5], [1], *STATUS[6:]]),
        "[" * 100_000,
    ],
)
def test_what_is_no_frame_is_refused(text):
    with pytest.raises(ProtocolError):
        frames.decode(text.encode())


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ProtocolError):
        frames.decode(b"\xff\xfe\xff")


def test_many_payloads_take_several_packets_and_equal_ones_one_place():
    payloads = [f"{n}".rjust(7999, "\x01") for n in range(40)]
    # as JSON, each of the last ones is twelve bytes
    payloads += [f"{n}" + 1998 * "\U0001f600" for n in range(40)]
    packets = list(frames.encode_heard((*payloads, *payloads)))
    assert all(len(packet) <= frames.MAX_FRAME for packet in packets)
    assert [text for packet in packets for text in frames.decode(packet).payloads] == payloads
    assert list(frames.encode_heard(())) == []
    assert len(list(frames.encode_heard(tuple(map(str, range(1000)))))) == 1
