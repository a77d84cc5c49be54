import sys

import pytest

from hilum.cli import terminal

ROWS = [["first", "a" * 20, "b" * 20, "last"]]
HEADER = ["name", "long", "longer", "end"]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(80, ["name", "long", "longer", "end"]), (40, ["name", "longer", "end"]), (20, ["name", "end"])],
)
def test_a_narrow_terminal_leaves_out_what_can_be_spared(capsys, monkeypatch, columns, shown):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "0")  # no bold letters
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    terminal.show(ROWS, header=HEADER, spare=(1, 2))

    out, err = capsys.readouterr()
    header, row = out.splitlines()
    assert header.split() == shown
    assert len(row.split()) == len(shown)
    assert all(name in err for name in HEADER if name not in shown)


def test_a_pipe_gets_the_width_of_its_reader_and_no_trailing_blanks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")

    terminal.show([["a", "word " * 40], ["b", "short"]], header=["check", "what"])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_pipe_gets_every_column(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    terminal.show(ROWS, header=HEADER, spare=(1, 2))

    assert capsys.readouterr().out.split()[:4] == HEADER
