"""Screenshots of a command in a terminal of 80 x 24, as people have it, for pages and for a look.

    python docs/screenshots.py fit.svg fit-end.png --when "epoch 2" --when "next:" -- \
        bcl fit --config digits.yaml

Each file shows the terminal at the moment when its text is first seen on it. The command runs in
tmux; PNG needs chromium too.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

SCALE = 2


class Terminal:
    """A command in a terminal of its own.

    Args:
        command: The command and its arguments.
        width: Number of columns.
        height: Number of lines.
    """

    def __init__(self, command: list[str], width: int = 80, height: int = 24) -> None:
        self.command = command
        self.width = width
        self._tmux = ["tmux", "-L", f"screenshots-{os.getpid()}"]
        # The screen stays when the command has ended.
        shown = f"printf '$ %s\\n' {shlex.quote(shlex.join(command))}"
        line = f"{shown}; {shlex.join(command)}; sleep 600"
        size = ["-x", str(width), "-y", str(height)]
        self._run("-f", os.devnull, "new-session", "-d", *size, "sh", "-c", line)

    def __enter__(self) -> "Terminal":
        """The terminal, which `__exit__` ends with its command."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the command."""
        self._run("kill-server")

    def screen(self, colours: bool = False) -> str:
        """What is on the screen now, with control sequences for colours if asked for."""
        return self._run("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until a text is on the screen.

        Raises:
            SystemExit: It is not there in time; what is there instead is printed.
        """
        _wait(lambda: text in self.screen(), seconds, lambda: f"no {text!r} on:\n{self.screen()}")

    def svg(self) -> str:
        """The screen as an SVG."""
        console = Console(
            record=True,
            file=io.StringIO(),
            width=self.width,
            force_terminal=True,
            legacy_windows=False,
        )
        console.print(Text.from_ansi(self.screen(colours=True).rstrip("\n")), end="")
        return console.export_svg(title=shlex.join(self.command))

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=True)
        return done.stdout


def _wait(there: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise SystemExit(otherwise())
        time.sleep(0.1)


def write(path: Path, svg: str) -> None:
    """Write an SVG, or draw it where the file is called PNG."""
    if path.suffix != ".png":
        path.write_text(svg, encoding="utf-8")
        return
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("PNG needs chromium; write SVG")
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if found is None:
        raise SystemExit("the SVG has no size")
    width, height = (round(float(number)) for number in found.groups())
    with tempfile.TemporaryDirectory() as folder:
        # In a page of its own size, since a browser centres a bare SVG.
        page = Path(folder) / "page.html"
        page.write_text(f"<body style='margin:0'>{svg}</body>", encoding="utf-8")
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                f"--force-device-scale-factor={SCALE}",
                f"--window-size={width},{height}",
                f"--screenshot={path.resolve()}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Run a command, and write a file at each of the moments that are waited for."""
    own, _, command = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".svg or .png")
    parser.add_argument("--when", action="append", required=True, metavar="TEXT")
    parser.add_argument("--within", type=float, default=300.0, metavar="SECONDS")
    options = parser.parse_args(shlex.split(own))
    if len(options.files) != len(options.when) or not command:
        parser.error("give a --when for each file, and after -- a command")
    with Terminal(shlex.split(command)) as terminal:
        for path, text in zip(options.files, options.when, strict=True):
            terminal.wait_for(text, options.within)
            write(path, terminal.svg())


if __name__ == "__main__":
    main()
