"""Runs the benchmarks: every claim of speed, measured beside its peer in one run, as a ratio.

python -m benchmarks [NAME ...]
"""

import importlib
import pkgutil
import subprocess
import sys

import benchmarks

SLOW = {"coverage"}  # simulations of many minutes; named on the command line they run


def main() -> None:
    names = [
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    ]
    chosen = sys.argv[1:] or [name for name in names if name not in SLOW]
    for name in chosen:
        if name not in names:
            sys.exit(f"no benchmark {name!r}; there are: {', '.join(names)}")
    if len(chosen) == 1:
        print(f"== {chosen[0]}", flush=True)
        importlib.import_module(f"benchmarks.{chosen[0]}").main()
        return
    # Each in its own process: one never holds two frameworks.
    sys.exit(max(subprocess.run([sys.executable, "-m", "benchmarks", name]).returncode for name in chosen))


if __name__ == "__main__":
    main()
