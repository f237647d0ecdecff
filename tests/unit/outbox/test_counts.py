"""What the outboxes of a server count, read by any of its processes."""

import os

from bus_alt_connection.outbox.counts import ROW, Counts, SharedCounts
from bus_alt_connection.outbox.outbox import Outbox


def in_a_child(function) -> int:
    """Run this in a process that is forked, until the other one has looked; return its number."""
    pid = os.fork()
    if not pid:
        function()
        os.kill(os.getpid(), 19)  # stops: it is alive
    os.waitpid(pid, os.WUNTRACED)
    return pid


def test_each_process_tells_of_all():
    shared = SharedCounts()
    shared.publish(Counts(1, 2, 3, 4))

    def start(number):
        return in_a_child(lambda: shared.publish(Counts(number)))

    pids = [start(number) for number in range(20)]
    try:
        found = shared.of_all()
        assert found == {
            os.getpid(): Counts(1, 2, 3, 4),
            **{pid: Counts(number) for number, pid in enumerate(pids)},
        }
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    assert list(shared.of_all()) == [os.getpid()], "those that ended are forgotten"


def test_rows_of_processes_that_ended_are_used_again(monkeypatch):
    monkeypatch.setattr("bus_alt_connection.outbox.counts.ROWS", 2)
    shared = SharedCounts()
    for number in range(5):
        pid = os.fork()
        if not pid:
            shared.publish(Counts(number))
            os._exit(0)
        os.waitpid(pid, 0)
    shared.publish(Counts(7))
    assert shared.of_all() == {os.getpid(): Counts(7)}


def test_the_counts_of_an_earlier_process_of_the_same_number_are_not_its_own():
    outbox = Outbox({})
    earlier = in_a_child(lambda: outbox._shared.publish(Counts()))
    outbox._shared.publish(Counts(failures=99))  # as one with this process's number that has ended
    os.kill(earlier, 9)
    os.waitpid(earlier, 0)
    assert outbox.counts_of_all() == {os.getpid(): Counts()}


def test_two_processes_that_take_one_row_at_a_time():
    """The second one has overwritten it."""
    shared = SharedCounts()
    shared.publish(Counts(1))
    ROW.pack_into(shared._numbers, 0, os.getppid(), *Counts(2))
    shared.publish(Counts(3))
    assert shared.of_all() == {os.getppid(): Counts(2), os.getpid(): Counts(3)}
