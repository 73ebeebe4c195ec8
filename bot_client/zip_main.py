"""The archive's entry point; its syntax is old on purpose, so that an old Python can say why."""

import sys


def main():  # type: () -> int  # noqa: ANN201 - old syntax
    """Refuse an interpreter that is too old with one line, else run the subcommand."""
    if sys.version_info < (3, 9):  # noqa: UP036 - the whole point of this file
        sys.stderr.write(
            "skep bot: Python 3.9 or later is needed, this is " + sys.version.split()[0] + "\n"
        )
        return 78
    import importlib  # noqa: PLC0415 - not before the check above

    code = importlib.import_module("bot_client.__main__").main(sys.argv[1:])
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
