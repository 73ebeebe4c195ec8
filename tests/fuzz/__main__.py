"""Fuzzing guided by coverage: `python -m tests.fuzz TARGET [libFuzzer options]`.

An input that breaks a promise ends the process with a stack and is written to `crash-<digest>`;
`python -m tests.fuzz TARGET crash-<digest>` runs just that one again.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["botapi", "tests.fuzz"]):
    from tests.fuzz import targets

MEMORY_MB = 1_500


def main(arguments: list[str]) -> None:
    """Run a target until its time is over or a promise is broken."""
    name, *options = arguments
    target = targets.TARGETS[name]()
    with tempfile.TemporaryDirectory(prefix=f"skep-fuzz-{name}-") as folder:
        corpus = Path(folder)
        for number, seed in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = corpus / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        limits = [f"-rss_limit_mb={MEMORY_MB}", "-timeout=10", f"-dict={words}"]
        inputs = [] if any(not option.startswith("-") for option in options) else [folder]
        atheris.Setup([sys.argv[0], *limits, *options, *inputs], target.run)
        atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in targets.TARGETS:
        main(sys.argv[1:])
    else:
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(targets.TARGETS)} [options]")
