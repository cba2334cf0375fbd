"""The command `prefrm`, also as `python -m prefrm`."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ctrl-C ends it with one line, also while libraries are imported."""
    try:
        from prefrm.cli import main as run_command
    except KeyboardInterrupt:
        print("prefrm: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    run_command()


if __name__ == "__main__":
    main()
