"""What a library makes of a Ctrl-C does not change how the command ends."""

import os
import signal

import pytest

from fedexp.commands import cli, list
from fedexp.core.checks import InputError


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_became_another_error_still_ends_like_one(
    monkeypatch, capsys, sent, code
):
    def composing(arguments):
        try:
            os.kill(os.getpid(), sent)
            signal.sigtimedwait([], 1)  # a moment in which Python looks for signals
        except KeyboardInterrupt as interrupt:
            raise InputError("ConfigCompositionException") from interrupt
        return 0

    monkeypatch.setattr(list, "main", composing)
    assert cli.main(["list"]) == code
    assert capsys.readouterr().err == ""


def test_an_error_after_an_earlier_commands_interrupt_is_an_error(monkeypatch, capsys):
    def refusing(arguments):
        raise InputError("is wrong")

    monkeypatch.setattr(list, "main", refusing)
    assert cli.main(["list"]) == 2
    assert "is wrong" in capsys.readouterr().err
