"""`python -m tests.strict_bot URL --bot-id X`: exit 0 after SIGTERM or a termination task, 3
after one line that names the row of the protocol page which the server broke."""

import argparse
import signal
import sys
from pathlib import Path

from tests.strict_bot.life import Leave, Options, Signals, live
from tests.strict_bot.task import Pace
from tests.strict_bot.wire import NoAnswer, RealClock, Transcript, Violation


def main(words):
    """Run the bot; the exit code."""
    asked = _parser().parse_args(words)
    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    dimensions = {}
    for pair in asked.dimension:
        key, _, value = pair.partition(":")
        dimensions.setdefault(key, []).append(value)
    options = Options(
        url=asked.url.rstrip("/"),
        bot_id=asked.bot_id,
        folder=str(folder),
        dimensions=dimensions,
        version=asked.version,
        token=asked.token,
        poll_s=tuple(asked.poll),
        pace=Pace(*asked.stream, tuple(asked.ping)),
        restart_pause_s=asked.restart_pause,
        longest_sleep_s=asked.longest_sleep,
        break_on=asked.break_on,
        mint=tuple(asked.mint),
    )
    transcript = Transcript(asked.transcript or folder / "transcript.jsonl")
    signals = Signals()
    signal.signal(signal.SIGTERM, signals.set)
    signal.signal(signal.SIGINT, signals.set)
    try:
        live(options, RealClock(asked.seed), transcript, signals)
    except Violation as error:
        transcript.add(note="violation", row=error.row, text=str(error))
        sys.stderr.write(f"strict_bot {asked.bot_id}: {error}\n")
        return 3
    except (NoAnswer, Leave) as error:
        sys.stderr.write(f"strict_bot {asked.bot_id}: not installed: {error}\n")
        return 1
    finally:
        transcript.close()
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.strict_bot", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--bot-id", required=True)
    parser.add_argument("--folder", required=True, help="work folder, made when it is missing")
    parser.add_argument("--dimension", action="append", default=["os:Linux"], metavar="KEY:VALUE")
    parser.add_argument("--version", default="", help="claim to run this archive")
    parser.add_argument("--token", default="", help="bootstrap token: fetch the archive first")
    seconds = {"type": float, "metavar": "S"}
    parser.add_argument("--poll", nargs=2, default=[100.0, 140.0], **seconds)
    parser.add_argument("--ping", nargs=2, default=[10.0, 15.0], **seconds)
    parser.add_argument("--stream", nargs=2, default=[4.0, 10.0], **seconds)
    parser.add_argument("--restart-pause", default=2.0, **seconds)
    parser.add_argument("--longest-sleep", default=600.0, **seconds)
    parser.add_argument("--break-on", default="", metavar="WORD", help="fail on such a command")
    parser.add_argument("--mint", action="append", default=[], choices=["oauth_token", "id_token"])
    parser.add_argument("--transcript", default="")
    parser.add_argument("--seed", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
