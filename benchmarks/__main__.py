"""Runs the benchmarks: every claim of speed, measured beside its peer in one run, as a ratio.

python -m benchmarks [NAME ...]
"""

import importlib
import pkgutil
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
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
