import signal
import threading

import pytest

from lichen.interrupt import asked_to_stop


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts_as_ever(
    kind: signal.Signals, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []
    before = signal.signal(kind, lambda *_: received.append(kind))
    try:
        with asked_to_stop("wait\n") as asked:
            assert not asked.is_set()
            signal.raise_signal(kind)
            assert asked.is_set() and not received
            assert capfd.readouterr().err == "wait\n"
            signal.raise_signal(kind)
            assert received == [kind]
        with asked_to_stop():
            pass
        signal.raise_signal(kind)
        assert received == [kind, kind]
        assert capfd.readouterr().err == ""
    finally:
        signal.signal(kind, before)


def test_other_threads_get_no_signals() -> None:
    found = []

    def work() -> None:
        with asked_to_stop() as asked:
            found.append(asked.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
