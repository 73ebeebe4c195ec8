"""Bootstrap tokens, bots.cfg and the audit record."""

import pytest

from botapi.auth.bootstrap import check_bootstrap_token
from botapi.auth.keys import SIGNING
from botapi.cfg.provider import Rejected
from botapi.transactions.enrol_bot import read_bootstrap_token
from botapi.transactions.push_config import reject_config
from tests.factories import LOOPBACK_CFG


def test_bootstrap_token_is_stored_and_opens_the_script(admin, parts, client, clock):
    reply = admin.post("/bootstrap-tokens", {"uses": 3, "ttl_s": 60, "pool": "default"})
    made = reply.json
    assert (reply.status_code, made["uses"]) == (201, 3)
    assert made["expires_at"] == "2026-03-04T06:07:07.089Z"
    assert made["command"] == (
        f"curl -fsS 'http://localhost/bootstrap?tok={made['token']}' | python3 -"
    )
    keys = parts.api.keys.keys(SIGNING)
    token_id = check_bootstrap_token(keys, made["token"], now_ms=clock.now_ms())
    record = read_bootstrap_token(parts.store, token_id)
    assert (record.uses_left, record.pool, record.creator) == (3, "default", "alice")
    assert client.get(f"/bootstrap?tok={made['token']}").status_code == 200
    (entry,) = admin.get("/audit").json["items"]
    assert (entry["verb"], entry["actor"]) == ("bootstrap.create", "alice")
    assert entry["target"] == f"bootstrap token {token_id}"
    assert made["token"] not in str(entry)


def test_bootstrap_token_has_defaults(admin):
    made = admin.post("/bootstrap-tokens", {}).json
    assert (made["uses"], made["expires_at"]) == (1, "2026-03-04T07:06:07.089Z")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"uses": 0}, "uses is 0, not from 1 to 1000"),
        ({"uses": 1001}, "uses is 1001"),
        ({"ttl_s": 0}, "ttl_s is 0"),
        ({"ttl_s": 99_999_999}, "ttl_s is 99999999"),
        ({"pool": ""}, "/pool: empty value"),
        ({"pool": "a:b"}, '/pool: ":" in a pool name'),
        ({"poool": "a"}, 'the body: Object contains unknown field "poool"'),
        ({"uses": "1"}, "/uses: Expected"),
    ],
)
def test_wrong_bootstrap_token_is_400(admin, body, complaint):
    reply = admin.post("/bootstrap-tokens", body)
    assert reply.status_code == 400
    assert reply.json["detail"].startswith(complaint)
    assert admin.get("/audit").json["items"] == []


def test_bots_cfg_in_force(admin):
    found = admin.get("/config/bots.cfg").json
    assert set(found) == {"digest", "text", "applied_at", "error"}
    assert found["text"] == LOOPBACK_CFG
    assert (found["applied_at"], found["error"]) == ("2026-03-04T06:06:07.089Z", None)
    assert found["digest"]


def test_bots_cfg_that_was_refused(admin, store, clock):
    mistakes = ("bots.cfg:12:3: bot_group #1: what is wrong", "bots.cfg:13:1: more")
    reject_config(store, Rejected("d", clock.now_ms(), mistakes))
    found = admin.get("/config/bots.cfg").json
    assert (found["text"], found["error"]) == (
        LOOPBACK_CFG,
        "12:3: bot_group #1: what is wrong",
    )


def test_audit_is_newest_first_and_pages(admin, ready_bot, clock):
    made = []
    for _ in range(3):
        made.append(f"task {admin.submit('x')['task_id']}")
        clock.advance(1)
    first = admin.get("/audit?limit=2").json
    rest = admin.get(f"/audit?limit=2&cursor={first['next_cursor']}").json
    targets = [entry["target"] for entry in first["items"] + rest["items"]]
    assert (targets, rest["next_cursor"]) == (made[::-1], None)
    assert admin.get("/audit?actor=x").status_code == 400
