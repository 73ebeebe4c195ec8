"""`python -m tools.openapi [check]`: write the API's document, or fail when it is stale."""

import json
import sys

from botapi.api.openapi import document
from botapi.api.routes import OPENAPI, TABLE


def render() -> str:
    """The document as it is committed."""
    needs = {path: {m: route.needs for m, route in by.items()} for path, by in TABLE.items()}
    return json.dumps(document(needs), indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write, or with `check` compare."""
    text = render()
    if arguments == ["check"]:
        if OPENAPI.read_text(encoding="utf-8") != text:
            print("botapi/api/openapi.json is stale: make openapi")
            return 1
        return 0
    OPENAPI.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
