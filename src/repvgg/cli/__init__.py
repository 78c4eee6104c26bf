"""The command line: one file a command, each with its arguments, one call, and what it prints.

Exit status: 0 for success, 1 for a failed check or training, 2 for a mistake of the caller's, 128 and the signal's
number for what a signal stopped.
"""

from repvgg.base.stopping import listening


def main() -> None:
    """Runs the command line; what a caller can mend is one sentence, never a traceback."""
    with listening():
        # Only now: there is a lot to import, and Ctrl-C may come meanwhile.
        from repvgg.cli.commands import run

        run()
