"""Bootstrap tokens listed and revoked: what is recorded, and what a revoke stops."""

import json

import pytest

from botapi.api import bootstrap
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Caller, Grant, Role


@pytest.fixture
def enroll(client):
    """Trade a token for a secret; the status."""

    def enroll(token, bot_id="vm1"):
        body = json.dumps({"bot_id": bot_id, "token": token})
        headers = {"Content-Type": "application/json; charset=utf-8"}
        reply = client.post("/skep/v1/enroll", data=body, headers=headers)
        return reply.status_code

    return enroll


def test_token_is_recorded_and_counts_its_uses(admin, enroll):
    made = admin.post("/bootstrap-tokens", {"uses": 2, "ttl_s": 60, "pool": "default"}).json
    assert enroll(made["token"]) == 200
    (item,) = admin.get("/bootstrap-tokens").json["items"]
    assert item == {
        "token_id": made["token_id"],
        "pool": "default",
        "creator": "alice",
        "uses": 2,
        "uses_left": 1,
        "created_at": "2026-03-04T06:06:07.089Z",
        "expires_at": made["expires_at"],
        "revoked_at": None,
        "problem": None,
    }


def test_revoked_token_enrols_nobody_and_those_it_did_stay(admin, enroll, clock):
    made = admin.post("/bootstrap-tokens", {"uses": 5}).json
    assert enroll(made["token"], "vm1") == 200
    clock.advance(1)
    reply = admin.post(f"/bootstrap-tokens/{made['token_id']}/revoke", {"reason": "leaked"})
    assert reply.status_code == 200
    assert reply.json["problem"] == "the bootstrap token is revoked"
    assert reply.json["revoked_at"] is not None
    assert enroll(made["token"], "vm2") == 403
    again = admin.post(f"/bootstrap-tokens/{made['token_id']}/revoke", {"reason": "x"})
    assert again.json["revoked_at"] == reply.json["revoked_at"]
    entries = admin.get("/audit").json["items"]
    revoked = [entry for entry in entries if entry["verb"] == "bootstrap.revoke"]
    assert [(entry["reason"], entry["before"]) for entry in revoked] == [
        ("leaked", "4 of 5 uses left")
    ]


def test_used_up_and_expired_tokens_say_so(admin, enroll, clock):
    used = admin.post("/bootstrap-tokens", {}).json
    assert enroll(used["token"]) == 200
    admin.post("/bootstrap-tokens", {"ttl_s": 5})
    clock.advance(6)
    problems = sorted(item["problem"] for item in admin.get("/bootstrap-tokens").json["items"])
    assert problems == ["the bootstrap token is expired", "the bootstrap token is used up"]


@pytest.mark.parametrize("token_id", ["0" * 20, "nonsense", "x!y", "A" * 300])
def test_unknown_token_is_404(admin, token_id):
    assert admin.post(f"/bootstrap-tokens/{token_id}/revoke", {}).status_code == 404


def test_list_of_tokens_pages(admin):
    made = {admin.post("/bootstrap-tokens", {}).json["token_id"] for _ in range(3)}
    first = admin.get("/bootstrap-tokens?limit=2").json
    second = admin.get(f"/bootstrap-tokens?limit=2&cursor={first['next_cursor']}").json
    assert len(first["items"]) == 2
    assert {item["token_id"] for item in [*first["items"], *second["items"]]} == made
    assert second["next_cursor"] is None


def of_pool(pool):
    """Somebody who may add bots to this pool only."""
    return Caller("user:bob", frozenset({Grant(Role.BOOTSTRAP, pool)}))


def test_tokens_of_other_pools_are_neither_shown_nor_revoked(admin, parts):
    ours = admin.post("/bootstrap-tokens", {"pool": "ci"}).json["token_id"]
    any_pool = admin.post("/bootstrap-tokens", {}).json["token_id"]
    found = bootstrap.listed(parts.api, of_pool("ci"), {})
    assert [item["token_id"] for item in found["items"]] == [ours]
    body = bootstrap.RevokeBody(reason="x")
    for caller, token_id in (
        (of_pool("ci"), any_pool),
        (of_pool("web"), ours),
        (of_pool("ci"), "0" * 20),
    ):
        with pytest.raises(Refusal) as refused:
            bootstrap.revoke(parts.api, caller, "bob", token_id, body)
        assert refused.value.code is Code.PERMISSION_DENIED
    assert bootstrap.revoke(parts.api, of_pool("ci"), "bob", ours, body)["problem"]
