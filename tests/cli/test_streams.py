"""What is shown before torch is there."""

import io
import sys

import pytest

from bclightning.cli import main as main_module
from bclightning.cli.main import main
from bclightning.cli.streams import loading


class Terminal(io.StringIO):
    def isatty(self):
        return True


def stop(*_):
    raise SystemExit(7)


@pytest.mark.parametrize("dumb", [False, True])
def test_a_terminal_shows_that_torch_is_loaded_and_nothing_else_is_touched(
    monkeypatch, capsys, dumb
):
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with loading():
        print("what a program reads")
    assert capsys.readouterr().out == "what a program reads\n"
    said = sys.stderr.getvalue()
    # Erased in the end, with the cursor shown again.
    assert ("loading PyTorch ..." in said and said.endswith("\x1b[2K")) != dumb
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == (not dumb)


def test_a_pipe_shows_nothing(capsys):
    with loading():
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_command_says_so_before_it_imports_what_it_needs(monkeypatch, command):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(main_module, "make_parser", stop)
    with pytest.raises(SystemExit):
        main([command, "--config", "digits.yaml"])
    assert "loading PyTorch ..." in sys.stderr.getvalue()
