"""The table of controls in docs/threat-model.md, from `tests/security/controls.toml` and the tests.

A test claims a control with `@pytest.mark.control("<id>")`. `check` fails when the table is stale
or a control has neither a test nor a reason to come later.
"""

import sys
import tomllib

from tools.conformance import ROOT, marked

CONTROLS = ROOT / "tests" / "security" / "controls.toml"
PAGE = ROOT / "docs" / "threat-model.md"
BEGIN = "<!-- the table below is written by `make conformance` -->\n"


def render() -> tuple[str, list[str]]:
    """The table, and what is wrong."""
    tests = marked("control")
    areas = tomllib.loads(CONTROLS.read_text(encoding="utf-8"))
    known = {f"{area}.{name}" for area, controls in areas.items() for name in controls}
    wrong = [
        f"no such control: {name} ({where[0]})"
        for name, where in tests.items()
        if name not in known
    ]
    lines = ["| control | against | held by |", "|---|---|---|"]
    for area, controls in areas.items():
        for name, control in controls.items():
            names = (test.removeprefix("tests/") for test in tests.get(f"{area}.{name}", ()))
            held = ", ".join(f"`{test}`" for test in names)
            if not held and "later" not in control:
                wrong.append(f"no test claims the control {area}.{name}")
            held = held or f"not yet: {control.get('later', '')}"
            lines.append(f"| **{area}.{name}** {control['text']} | {control['against']} | {held} |")
    return "\n".join(lines) + "\n", wrong


def main(arguments: list[str]) -> int:
    """Write the table, or with `check` compare it."""
    table, wrong = render()
    text, _, old = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    if arguments == ["check"] and old != table:
        wrong.append("docs/threat-model.md is stale: make conformance")
    if arguments != ["check"]:
        PAGE.write_text(text + BEGIN + table, encoding="utf-8")
    for line in wrong:
        print(line)
    return 1 if arguments == ["check"] and wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
