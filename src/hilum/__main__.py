"""The command line's entry: exceptions become one or two lines and an exit status."""

import io
import os
import sys

from hilum.errors import HilumError
from hilum.files import refusal


def main() -> None:
    """Run `hilum`; exit with 0 done, 1 the data or the model failed a check, 2 wrong use, 130 interrupted."""
    # A file's name may be no UTF-8; printing it must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv or bool(os.environ.get("HILUM_DEBUG"))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if not debug:
        _quieten()
    try:
        from hilum.cli import app

        app(args=arguments, prog_name="hilum", standalone_mode=True)
    except HilumError as error:
        if debug:
            raise
        _fail(f"error: {error}", error.exit_status)
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        if reason := refusal(error):
            place = getattr(error, "filename", None)
            _fail(
                f"error: {f'{place}: ' if place else ''}{reason}; make room there, or give another place", 1
            )
        _fail(
            f"error: {type(error).__name__}: {error}\n"
            "this is a fault of Hilum, not of your data; run again with --debug and report what it prints",
            1,
        )


def _quieten() -> None:
    """Keep other libraries' notices off the terminal: Hilum itself says what a user must know."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    for name in ("absl", "lightning", "lightning.fabric", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A library may set up the root logger; what Hilum logs goes to the run's log.txt, not there.
    logging.getLogger("hilum").propagate = False


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(status)


if __name__ == "__main__":
    main()
