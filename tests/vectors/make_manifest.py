"""Makes `manifest.json` beside it: `python -m tests.vectors.make_manifest`.

Signed archives that are right, or wrong in one way each, for the server and for the bot.
Members are base64; keys are the raw public halves. `running_release` is what the bot runs
that is to judge them: a good archive below it is a downgrade.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from botapi.domain.manifest import MANIFEST, SIGNATURE, Label
from tests.fakes.signed_zip import OTHER_KEY, PUBLIC, signed

CONFIG = {"config/config.json": b'{"server": "https://skep.example.com"}'}
RUNNING_RELEASE = 7


def without(members: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: body for name, body in members.items() if name not in names}


def cases() -> dict[str, tuple[dict[str, bytes], int]]:
    """Name to members, and the release number of those that are good, else 0."""
    good = signed(8)
    blank = good[MANIFEST].replace(b",", b", ", 1)
    return {
        "good": (good, 8),
        "generated members are not covered": ({**good, "config/bot_config.py": b"# hooks"}, 8),
        "same release again": (signed(RUNNING_RELEASE), RUNNING_RELEASE),
        "lower release number": (signed(6), 6),
        "altered member": ({**good, "bot_code/x.py": b"x = 2\n"}, 0),
        "member of another length": ({**good, "bot_code/x.py": b"x = 1\n#"}, 0),
        "extra member": ({**good, "extra.py": b""}, 0),
        "extra member in config": ({**good, "config/extra.py": b""}, 0),
        "missing member": (without(good, "bot_code/x.py"), 0),
        "wrong key": (signed(8, OTHER_KEY), 0),
        "unknown key": (signed(8, OTHER_KEY, "other"), 0),
        "development key": (signed(8, kind=Label.DEVELOPMENT), 0),
        "manifest of another release": ({**good, MANIFEST: signed(9)[MANIFEST]}, 0),
        "manifest with a blank": ({**good, MANIFEST: blank}, 0),
        "no signature": (without(good, SIGNATURE), 0),
        "no manifest": (without(good, MANIFEST), 0),
    }


def vectors() -> dict[str, Any]:
    """What the file holds."""
    return {
        "release_keys": {"main": b64encode(PUBLIC).decode()},
        "running_release": RUNNING_RELEASE,
        "cases": [
            {
                "name": name,
                "is_good": release > 0,
                "release": release,
                "is_downgrade": 0 < release < RUNNING_RELEASE,
                "members": {n: b64encode(b).decode() for n, b in (members | CONFIG).items()},
            }
            for name, (members, release) in cases().items()
        ],
    }


if __name__ == "__main__":
    path = Path(__file__).with_name("manifest.json")
    path.write_text(json.dumps(vectors(), indent=1) + "\n")
