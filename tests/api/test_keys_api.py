"""`/keys`: listed, rotated, revoked by an administrator, and never shown."""

import json

import pytest

from botapi.auth import keys as key_room
from botapi.auth.keys import KIND, OIDC, SESSION, SIGNING, read_keys
from botapi.clock import SystemClock, SystemRng
from tests.fakes.person import Person
from tests.transactions.stores import dump

PURPOSES = [SESSION, SIGNING, OIDC]


@pytest.fixture(scope="module")
def rsa_secrets():
    return [key_room.new_key(OIDC, SystemClock(), SystemRng()).secret for _ in range(3)]


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch, rsa_secrets):
    """Making an RSA key takes a tenth of a second and more."""
    left = list(rsa_secrets)
    monkeypatch.setattr(key_room, "_rsa_secret", left.pop)


def stored(store, purpose):
    (doc,) = store.get(KIND, purpose)
    return read_keys(doc.body)


def states(reply):
    return [key["state"] for key in reply.json["keys"]]


def test_keys_are_listed_by_purpose_and_never_shown(admin, store):
    reply = admin.get("/keys")
    assert reply.status_code == 200
    assert [item["purpose"] for item in reply.json["items"]] == PURPOSES
    for item in reply.json["items"]:
        (key,) = stored(store, item["purpose"])
        assert (item["key_id"], item["state"], item["then"]) == (key.key_id, "active", None)
        assert item["then_at"] is None
        for secret in (key.secret.hex(), key.secret.decode("latin-1")):
            assert secret not in reply.text
    assert "secret" not in reply.text


@pytest.mark.control("tokens.rotation")
@pytest.mark.parametrize("purpose", PURPOSES)
def test_rotation_takes_its_steps_by_time(admin, parts, clock, store, purpose):
    before = {item["purpose"]: item for item in admin.get("/keys").json["items"]}[purpose]
    made = admin.post(f"/keys/{purpose}/rotate")
    assert (made.status_code, states(made)) == (201, ["next", "active"])
    assert made.json["signs"] == before["key_id"]
    waiting = made.json["keys"][0]
    assert waiting["then"] == "active"

    def sweep():
        parts.sweeps.next_slow = 0.0
        return parts.sweeps.round()["keys"]

    publish_s, overlap_s = {
        SESSION: (120, 3_720),
        SIGNING: (120, 30 * 24 * 3_600 + 120),
        OIDC: (3_600, 3_720),
    }[purpose]
    clock.advance(publish_s - 1)
    assert sweep() == 0
    clock.advance(1)
    assert sweep() == 1
    old, new = stored(store, purpose)
    assert (new.key_id, old.key_id) == (waiting["key_id"], before["key_id"])
    clock.advance(overlap_s - 1)
    assert sweep() == 0
    clock.advance(1)
    assert sweep() == 1
    assert [key.key_id for key in stored(store, purpose)] == [waiting["key_id"]]
    verbs = [
        (item["actor"], item["verb"], item["target"], item["before"], item["after"])
        for item in admin.get("/audit").json["items"]
    ]
    old_id, new_id = before["key_id"], waiting["key_id"]
    assert verbs == [
        (
            "sweeper",
            "key.advance",
            f"{purpose} keys",
            f"{old_id} verify, {new_id} active",
            f"{new_id} active",
        ),
        (
            "sweeper",
            "key.advance",
            f"{purpose} keys",
            f"{new_id} next, {old_id} active",
            f"{old_id} verify, {new_id} active",
        ),
        (
            "alice",
            "key.rotate",
            f"{purpose} keys",
            f"{old_id} active",
            f"{new_id} next, {old_id} active",
        ),
    ]


def test_second_rotation_is_409_while_a_key_waits(admin, store):
    waiting = admin.post("/keys/session/rotate").json["keys"][0]["key_id"]
    before = dump(store)
    reply = admin.post("/keys/session/rotate")
    assert (reply.status_code, reply.json["code"]) == (409, "already_exists")
    assert f"key {waiting} waits to sign" in reply.json["detail"]
    assert dump(store) == before


def test_revoked_active_key_is_followed_by_a_fresh_one_at_once(admin, store):
    (item, *_) = admin.get("/keys").json["items"]
    reply = admin.post(
        "/keys/session/revoke", {"key_id": item["key_id"], "reason": "it was in a\nlog"}
    )
    assert (reply.status_code, states(reply)) == (200, ["active"])
    assert reply.json["revoked"] == item["key_id"]
    assert reply.json["stops"] == item["revoke_stops"]
    assert "every bot whose session it signed" in reply.json["stops"]
    (key,) = stored(store, SESSION)
    assert key.key_id == reply.json["signs"] != item["key_id"]
    (entry,) = admin.get("/audit").json["items"]
    assert (entry["actor"], entry["verb"]) == ("alice", "key.revoke")
    assert entry["reason"] == "it was in a log"


def test_revoked_next_key_stops_nothing(admin, make_bot, store):
    bot = make_bot().start()
    waiting = admin.post("/keys/session/rotate").json["keys"][0]
    assert waiting["revoke_stops"] == "nothing: it signed nothing yet"
    reply = admin.post("/keys/session/revoke", {"key_id": waiting["key_id"]})
    assert (states(reply), reply.json["stops"]) == (["active"], "nothing: it signed nothing yet")
    bot.update()
    assert bot.status == 200
    assert admin.post("/keys/session/rotate").status_code == 201


@pytest.mark.control("tokens.rotation")
def test_revoke_of_the_session_key_ends_sessions_at_once(admin, make_bot):
    bot = make_bot().start()
    (item, *_) = admin.get("/keys").json["items"]
    admin.post("/keys/session/revoke", {"key_id": item["key_id"]})
    bot.update()
    assert (bot.status, "bad signature" in bot.text) == (401, True)
    bot.session = None
    assert bot.start().status == 200


@pytest.mark.control("tokens.rotation")
def test_revoke_of_the_signing_key_voids_bootstrap_tokens(admin, client):
    token = admin.post("/bootstrap-tokens", {}).json["token"]
    assert client.get(f"/bootstrap?tok={token}").status_code == 200
    keys = {item["purpose"]: item for item in admin.get("/keys").json["items"]}
    assert admin.post("/keys/signing/rotate").status_code == 201
    assert client.get(f"/bootstrap?tok={token}").status_code == 200
    admin.post("/keys/signing/revoke", {"key_id": keys[SIGNING]["key_id"]})
    assert client.get(f"/bootstrap?tok={token}").status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/keys/development/rotate", None, 404, 'there are no "development" keys; use session'),
        ("/keys/x/revoke", {"key_id": "a"}, 404, 'there are no "x" keys'),
        ("/keys/session/revoke", {"key_id": "nope"}, 404, 'there is no key "nope"'),
        ("/keys/session/revoke", {}, 400, "key_id"),
        ("/keys/session/revoke", {"key_id": "a", "x": 1}, 400, "unknown field"),
        ("/keys/session/revoke", {"key_id": "a", "reason": "x" * 1001}, 400, "/reason: has 1001"),
        ("/keys?x=1", None, 400, "x"),
    ],
)
def test_wrong_calls_are_refused_and_change_nothing(admin, store, path, body, status, detail):
    admin.get("/keys")
    before = dump(store)
    reply = admin.get(path) if "?" in path else admin.post(path, body)
    assert reply.status_code == status
    assert detail in reply.json["detail"]
    assert dump(store) == before


@pytest.mark.parametrize("path", ["/keys/session/rotate", "/keys/session/revoke"])
def test_stranger_changes_no_key(client, store, admin, path):
    admin.get("/keys")
    before = dump(store)
    assert Person(client).post(path, {"key_id": "a"}).status_code == 401
    assert dump(store) == before


def test_published_keys_follow_a_rotation(admin, client):
    def published():
        return [key["kid"] for key in client.get("/.well-known/jwks.json").json["keys"]]

    (first,) = published()
    waiting = admin.post("/keys/oidc/rotate").json["keys"][0]["key_id"]
    assert published() == [waiting, first]
    admin.post("/keys/oidc/revoke", {"key_id": first})
    assert published() == [waiting]
    assert json.loads(client.get("/.well-known/openid-configuration").data)["jwks_uri"]
