"""`hilum --help` against importing typer and rich alone, each in a fresh process."""

import subprocess
import sys

from benchmarks._timing import compare


def main() -> None:
    def ours() -> None:
        subprocess.run([sys.executable, "-m", "hilum", "--help"], check=True, stdout=subprocess.DEVNULL)

    def peer() -> None:
        subprocess.run([sys.executable, "-c", "import typer, rich, rich.console"], check=True)

    compare("hilum --help against importing typer and rich", ours, peer, at_least=0.5, rounds=11)
