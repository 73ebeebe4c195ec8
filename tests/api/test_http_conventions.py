"""What holds for many calls of the API: tags, packing, keys of repeats, limits."""

import gzip
import json
import re
from pathlib import Path

import pytest

from botapi.api import answers
from botapi.api.parts import MANY
from botapi.api.routes import TABLE
from botapi.concurrency import Threads
from botapi.wire_json import dumps

PACKED = {"Accept-Encoding": "br, gzip"}


def test_read_of_what_did_not_change_is_304(admin, ready_bot):
    path = f"/tasks/{admin.submit('x')['task_id']}"
    first = admin.get(path)
    assert first.headers["ETag"].startswith('W/"')
    again = admin.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert admin.post(f"{path}/cancel", {"kill_running": False}).status_code == 200
    last = admin.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (last.status_code, last.json["state"]) == (200, "CANCELED")


def test_read_of_a_bot_that_did_not_change_is_304(admin, ready_bot):
    tag = admin.get("/bots/vm1").headers["ETag"]
    assert admin.get("/bots/vm1", headers={"If-None-Match": tag}).status_code == 304
    admin.post("/bots/vm1/quarantine", {"reason": "x"})
    assert admin.get("/bots/vm1", headers={"If-None-Match": tag}).status_code == 200


def test_long_answer_is_packed_for_those_who_accept_it(admin, ready_bot):
    path = f"/tasks/{admin.submit('x', env={f'A{n}': 'a' * 1000 for n in range(40)})['task_id']}"
    plain = admin.get(path)
    assert "Content-Encoding" not in plain.headers
    packed = admin.client.get(
        f"/api/v1{path}", headers={"Authorization": f"Bearer {admin.key}", **PACKED}
    )
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) == int(packed.headers["Content-Length"]) < len(plain.data) / 10
    assert json.loads(gzip.decompress(packed.data)) == plain.json
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert packed.headers["ETag"] == plain.headers["ETag"]


class Native(Threads):
    """Counts what was done away from the loop."""

    calls = 0

    def native(self, fn):
        self.calls += 1
        return fn()


@pytest.mark.parametrize(
    ("content", "calls"),
    [
        ({}, 0),
        ({"items": list(range(MANY))}, 0),
        ({"items": list(range(MANY + 1))}, 1),
        ({'a"b': [{"x": "\u00fc\n", "y": [None, 1.5, True]}] * 200, "next_cursor": None}, 1),
        ({"first": {"deep": ["\u2028"]}, "items": ["z"] * 100, "more": [[]] * 100}, 1),
    ],
    ids=["nothing", "short", "just long", "long", "two lists"],
)
def test_long_list_is_written_away_from_the_loop_and_reads_as_any_other(content, calls):
    concurrency = Native()
    assert answers._text(content, concurrency) == dumps(content)
    assert concurrency.calls == calls


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br"])
def test_answer_is_sent_as_it_is_to_those_who_do_not_accept_gzip(admin, accepted):
    reply = admin.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert len(reply.data) > answers.GZIP_OVER
    assert "Content-Encoding" not in reply.headers


def test_short_answers_configuration_and_output_are_never_packed(admin, ready_bot):
    assert "Content-Encoding" not in admin.get("/whoami", headers=PACKED).headers
    assert "Content-Encoding" not in admin.get("/config", headers=PACKED).headers
    output = admin.get(f"/tasks/{admin.submit('x')['task_id']}/output", headers=PACKED)
    assert output.status_code == 200
    assert "Content-Encoding" not in output.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [("/bootstrap-tokens", {}), ("/api-keys", {"name": "ci", "owner": "user:alice"})],
)
def test_call_that_shows_a_secret_once_takes_no_key_of_a_repeat(admin, path, body):
    before = len(admin.get(path).json["items"])
    refused = admin.post(path, body, headers={"Idempotency-Key": "k1"})
    assert refused.status_code == 400
    assert refused.json["detail"].startswith("Idempotency-Key: ")
    assert len(admin.get(path).json["items"]) == before


def test_page_of_the_api_names_every_call_and_no_other():
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    found = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)", "\n".join(cells))
    here = {plain(f"{method} {path}") for path, by in TABLE.items() for method in by}
    assert {plain(call) for call in found} == here


def plain(call):
    """A call with every variable part under one name."""
    return re.sub("<[^>]*>", "<>", call)
