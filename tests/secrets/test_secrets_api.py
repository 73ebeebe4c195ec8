"""Secrets from the API to the claim: who sets them, who gets them, and that nobody sees them."""

import base64

import pytest

from botapi.secrets.key_file import make_key_file
from botapi.secrets.vault import NAMED
from botapi.store.protocol import join_key
from tests.fakes.person import Person, new_key

CANARY = "canary-4f1c9e"


@pytest.fixture(autouse=True)
def keys(parts, rng):
    parts.api.vault.path.parent.mkdir(parents=True, exist_ok=True)
    make_key_file(parts.api.vault.path, rng)


@pytest.fixture
def admin(client, store, clock, rng):
    return Person(client, new_key(store, clock, rng))


def put(admin, name="npm", status=200, **body):
    body = {"pools": ["default"], "value": CANARY, **body}
    reply = admin.call("PUT", f"/secrets/{name}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json


def claimed(admin, bot, **task):
    made = admin.submit("/bin/true", **task)
    bot.claimed = bot.claim(bot.update()["lease"])
    assert bot.claimed.get("cmd") == "run", bot.text
    return made, bot.claimed["manifest"]


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_secret_is_listed_without_its_value(admin, store):
    made = put(admin)
    assert (made["name"], made["version"], made["pools"]) == ("npm", 1, ["default"])
    assert put(admin, value="another value")["version"] == 2
    found = admin.get("/secrets")
    assert [item["version"] for item in found.json["items"]] == [2]
    assert "value" not in found.text
    (doc,) = store.get(NAMED, join_key("npm"))
    assert CANARY.encode() not in repr(doc.body).encode()


@pytest.mark.spec("4.4.1.16")
def test_named_secret_and_secret_bytes_reach_the_run_that_owns_them(admin, make_bot):
    put(admin)
    bot = make_bot("vm1").start()
    _, manifest = claimed(
        admin, bot, secrets={"NPM_TOKEN": "npm"}, secret_bytes_b64=b64("bytes of its own")
    )
    assert manifest["skep"] == {"secrets": {"NPM_TOKEN": b64(CANARY)}, "secrets_missing": []}
    assert manifest["secret_bytes"] == b64("bytes of its own")
    (said,) = [e for e in admin.get("/audit").json["items"] if e["verb"] == "secret.release"]
    assert said["reason"] == "npm version 1, secret bytes"


def test_same_claim_again_gets_the_same_and_is_written_once(admin, make_bot):
    put(admin)
    bot = make_bot("vm1").start()
    admin.submit("/bin/true", secrets={"NPM_TOKEN": "npm"})
    lease = bot.update()["lease"]
    assert bot.claim(lease)["manifest"]["skep"] == bot.claim(lease)["manifest"]["skep"]
    said = [e for e in admin.get("/audit").json["items"] if e["verb"] == "secret.release"]
    assert len(said) == 1


def test_bot_of_others_gets_secret_bytes_and_no_named_secret(admin, make_bot):
    put(admin)
    bot = make_bot("vm1", ours=False).start()
    _, manifest = claimed(
        admin, bot, secrets={"NPM_TOKEN": "npm"}, secret_bytes_b64=b64("bytes of its own")
    )
    assert "skep" not in manifest
    assert manifest["secret_bytes"] == b64("bytes of its own")


def test_secret_deleted_before_the_claim_is_named_as_missing(admin, make_bot):
    put(admin)
    bot = make_bot("vm1").start()
    admin.submit("/bin/true", secrets={"NPM_TOKEN": "npm"})
    assert admin.call("DELETE", "/secrets/npm?reason=leaked").json == {"deleted": True}
    manifest = bot.claim(bot.update()["lease"])["manifest"]
    assert manifest["skep"] == {"secrets": {}, "secrets_missing": ["NPM_TOKEN"]}


def test_task_without_secrets_has_no_word_of_them(admin, make_bot):
    _, manifest = claimed(admin, make_bot("vm1").start())
    assert not {"skep", "secret_bytes"} & manifest.keys()


@pytest.mark.parametrize("pools", [["other"], ["other", "more"]])
def test_task_of_another_pool_cannot_name_the_secret(admin, make_bot, pools):
    make_bot("vm1").start()
    put(admin, pools=pools)
    reply = admin.post("/tasks", {"command": ["x"], "secrets": {"TOKEN": "npm"}})
    assert (reply.status_code, reply.json["detail"]) == (
        400,
        '/secrets/TOKEN: pool "default" has no secret "npm"',
    )
    there_is_none = admin.post("/tasks", {"command": ["x"], "secrets": {"TOKEN": "none"}})
    assert there_is_none.json["detail"].replace("none", "npm") == reply.json["detail"]


def test_secret_of_any_pool_may_be_named_in_each(admin, make_bot):
    make_bot("vm1").start()
    put(admin, pools=["*"])
    admin.submit("x", secrets={"TOKEN": "npm"})


@pytest.mark.parametrize(
    ("name", "body", "place"),
    [
        ("-x", {}, "/name"),
        ("npm", {"value": "abc"}, "/value"),
        ("npm", {"value": None}, "/value"),
        ("npm", {"value_b64": "AAAA"}, "/value"),
        ("npm", {"value": None, "value_b64": "?"}, "/value_b64"),
        ("npm", {"value": "x" * 65_537}, "/value"),
        ("npm", {"pools": []}, "/pools"),
        ("npm", {"pools": ["a:b"]}, "/pools/0"),
    ],
)
def test_unfit_secret_is_refused_with_its_place_and_not_shown(admin, name, body, place):
    reply = put(admin, name, 400, **body)
    assert reply["detail"].startswith(place)
    assert CANARY not in str(reply)
    assert admin.get("/secrets").json["items"] == []


def test_rotation_wraps_everything_with_a_new_key_while_it_is_used(admin, make_bot, parts):
    put(admin)
    bot = make_bot("vm1").start()
    admin.submit("/bin/true", secrets={"TOKEN": "npm"}, secret_bytes_b64=b64("own bytes"))
    before = parts.api.vault.keys()
    done = admin.post("/secrets/rotate", {}).json
    assert (done["rewrapped"], done["left"]) == (2, 0)
    assert done["key_id"] != before.active_id
    assert [key_id for key_id, _ in parts.api.vault.keys().keys] == [done["key_id"]]
    manifest = bot.claim(bot.update()["lease"])["manifest"]
    assert manifest["skep"]["secrets"] == {"TOKEN": b64(CANARY)}
    assert manifest["secret_bytes"] == b64("own bytes")


def test_lost_key_file_is_one_clear_line_and_loses_nothing(admin, parts):
    put(admin)
    parts.api.vault.path.rename(parts.api.vault.path.with_suffix(".away"))
    reply = put(admin, "other", 400)
    assert "No such file" in reply["detail"]
    assert [item["name"] for item in admin.get("/secrets").json["items"]] == ["npm"]
