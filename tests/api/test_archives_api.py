"""Uploads, rollouts and rollbacks over the API."""

from base64 import b64encode
from dataclasses import replace

import pytest

from botapi.api.archives import MAX_UPLOAD_BYTES
from botapi.cfg.bot_archive import content_digest
from botapi.cfg.releases import read_release
from botapi.transactions.change_deployment import Author, change_deployment
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG, bots_cfg
from tests.fakes.signed_zip import MEMBERS, OTHER_KEY, PUBLIC, signed, zipped

UPLOADED = content_digest(MEMBERS)
ROLLOUT = {"release": UPLOADED, "rings": [20], "soak_s": 60}


def push(parts, settings="", bots=LOOPBACK_CFG):
    head = parts.config.latest()
    source = replace(bots_cfg(bots), settings=settings)
    push_config(parts.store, source, parent=head.digest, author="t", now_ms=parts.clock.now_ms())


def release_key(key_id="main"):
    public = b64encode(PUBLIC).decode()
    return f'release_key {{ id: "{key_id}" public_key: "{public}" role: RELEASE }}\n'


def upload(admin, members=MEMBERS, query="", content=None):
    content = zipped(members) if content is None else content
    return admin.call("POST", f"/archives{query}", data=content)


@pytest.fixture
def uploaded(admin):
    reply = upload(admin, query="?file_name=theirs.zip")
    assert reply.status_code == 201, reply.text
    return reply.json


def audit(admin, *verbs):
    items = admin.get("/audit").json["items"]
    return [item for item in items if item["verb"] in verbs]


# Uploads.


def test_upload_keeps_an_archive_that_nobody_runs(admin, parts, clock, uploaded):
    assert uploaded == {
        "release_id": UPLOADED,
        "label": "unsigned",
        "number": None,
        "origin": "upload",
        "used_as": [],
        "is_rejected": False,
        "key_id": None,
        "min_server": None,
        "file_name": "theirs.zip",
        "files": 2,
        "size": sum(map(len, MEMBERS.values())),
        "created_at": uploaded["created_at"],
        "actor": "alice",
    }
    clock.advance(1)
    again = upload(admin)
    assert (again.status_code, again.json) == (201, uploaded), "the same archive is kept once"
    assert UPLOADED in [item["release_id"] for item in admin.get("/archives").json["items"]]
    (entry,) = audit(admin, "archive.upload")
    assert (entry["actor"], entry["target"]) == ("alice", f"release {UPLOADED[:12]} theirs.zip")


def test_release_is_shown_with_its_members_and_version(admin, parts, uploaded):
    shown = admin.get(f"/archives/{UPLOADED[:10]}").json
    assert [member["name"] for member in shown["members"]] == ["__main__.py", "bot_code/x.py"]
    assert shown["version"] == parts.archives.version(UPLOADED, "http://localhost")
    source = admin.get("/archives/source").json
    assert (source["label"], source["number"]) == ("development", 1)
    assert source["used_as"] == ["stable", "source"]
    assert {"manifest.json", "manifest.sig"}.isdisjoint(m["name"] for m in source["members"])


@pytest.mark.parametrize("text", ["0" * 64, "zz", "abc", "%2e%2e"])
def test_release_that_is_not_there_is_not_found(admin, text):
    assert admin.get(f"/archives/{text}").status_code == 404


def test_signed_release_is_known_by_its_key(admin, parts):
    push(parts, release_key())
    shown = upload(admin, signed(7)).json
    assert (shown["label"], shown["number"], shown["key_id"]) == ("release", 7, "main")
    assert shown["min_server"] == "0.1"


@pytest.mark.control("archive.manifest")
def test_hooks_that_somebody_added_to_a_signed_archive_are_left_out(admin, parts):
    push(parts, release_key())
    clean = upload(admin, signed(7)).json
    added = upload(admin, signed(7, **{"config/bot_config.py": b"evil()\n"})).json
    assert (added["label"], added["release_id"]) == ("release", clean["release_id"])
    names = [m["name"] for m in admin.get(f"/archives/{clean['release_id']}").json["members"]]
    assert names == ["__main__.py", "bot_code/x.py"]
    kept = read_release(parts.store, parts.concurrency, clean["release_id"])
    assert set(kept) == set(signed(7))


def test_archive_that_this_server_signed_itself_comes_back_as_development(admin, parts):
    built = parts.archives.archive("http://localhost")
    assert upload(admin, content=built.content).json["label"] == "development"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (signed(1, OTHER_KEY), "manifest.sig was not made for this manifest.json"),
        (signed(1, key_id="unknown"), "no release key 'unknown' is trusted here"),
        (signed(1, **{"bot_code/x.py": b"x = 2\n"}), "bot_code/x.py is not what manifest.json"),
        (signed(1, extra=b""), "extra is in the archive and not in manifest.json"),
        (
            {name: body for name, body in signed(1).items() if name != "bot_code/x.py"},
            "bot_code/x.py is in manifest.json and not in the archive",
        ),
        (MEMBERS | {"manifest.json": b"{}"}, "there is no manifest.sig in it"),
        (signed(1, min_server="99.0"), "it needs server 99.0"),
        ({"a.py": b""}, "there is no __main__.py in it"),
    ],
)
@pytest.mark.control("archive.manifest")
def test_bad_archive_is_refused_and_not_kept(admin, parts, members, said):
    push(parts, release_key())
    before = admin.get("/archives").json
    reply = upload(admin, members, "?allow_unsigned=1")
    assert reply.status_code == 400
    assert said in reply.json["detail"]
    assert admin.get("/archives").json == before
    assert audit(admin, "archive.upload") == []


@pytest.mark.control("archive.manifest")
def test_unsigned_archive_refused(admin, parts):
    push(parts, release_key())
    reply = upload(admin)
    assert reply.status_code == 400
    assert "it is not signed, and settings.cfg has release keys" in reply.json["detail"]
    allowed = upload(admin, query="?allow_unsigned=1")
    assert (allowed.status_code, allowed.json["label"]) == (201, "unsigned")


def test_what_is_no_zip_is_refused(admin):
    assert "not a readable zip" in upload(admin, content=b"hello").json["detail"]
    assert upload(admin, content=b"").status_code == 400


@pytest.mark.parametrize("query", ["?x=1", "?allow_unsigned=2", "?file_name=" + "a" * 201])
def test_upload_reads_its_parameters_strictly(admin, query):
    assert upload(admin, query=query).status_code == 400


def test_huge_upload_is_refused_before_it_is_read(admin):
    size = {"CONTENT_LENGTH": str(MAX_UPLOAD_BYTES + 1)}
    reply = admin.call("POST", "/archives", data=b"x", environ_overrides=size)
    assert reply.status_code == 413


def test_nobody_but_an_admin_uploads_or_rolls_out(anybody):
    assert upload(anybody).status_code == 401
    for path in ("", "/halt", "/resume", "/rollback", "/canary"):
        assert anybody.post(f"/rollout{path}", {}).status_code == 401


@pytest.mark.spec("8.5.1.4", "13.1.7")
@pytest.mark.parametrize(
    ("later_s", "status"), [(3600, 200), (3600.001, 403), (-30, 200), (-31, 403)]
)
def test_bootstrap_token_lives_for_an_hour_with_30_s_of_drift(
    admin, client, clock, later_s, status
):
    token = admin.post("/bootstrap-tokens", {}).json["token"]
    clock.advance(later_s)
    assert client.get(f"/bootstrap?tok={token}").status_code == status


# Rollouts.


def poll(bot, version=None):
    """The version that a poll is told, empty for none."""
    return bot.poll(**({"version": version} if version else {})).get("version", "")


@pytest.fixture
def ring_bot(make_bot):
    """Bucket 5: in the first ring."""
    return make_bot("vm2-m1").start()


@pytest.fixture
def late_bot(make_bot):
    """Bucket 95: in the last ring."""
    return make_bot("vm1-m1").start()


def test_rollout_goes_on_by_itself_while_its_bots_are_well(
    admin, parts, clock, uploaded, ring_bot, late_bot
):
    begun = admin.post("/rollout", ROLLOUT)
    assert begun.status_code == 200, begun.text
    assert begun.json["rollout"]["rings"] == [20, 100]
    new = parts.archives.version(UPLOADED, "http://localhost")
    assert (poll(ring_bot), poll(late_bot)) == (new, "")
    parts.sweeps.round()
    assert admin.get("/rollout").json["rollout"]["bots"] == {
        "told": 1,
        "waiting": 1,
        "healthy": 0,
        "failed": 0,
        "unfit": 0,
    }
    update(ring_bot, new)
    clock.advance(59)
    touch(ring_bot, late_bot)
    parts.sweeps.round()
    assert poll(late_bot) == ""
    clock.advance(1)
    parts.sweeps.round()
    assert admin.get("/rollout").json["rollout"]["percent"] == 100
    assert poll(late_bot) == new
    update(late_bot, new)
    clock.advance(61)
    touch(ring_bot, late_bot)
    parts.sweeps.round()
    status = admin.get("/rollout").json
    assert (status["stable"], status["rollout"]["stage"]) == (UPLOADED, "done")
    assert status["follows_source"] is False
    entries = audit(admin, "rollout.start", "rollout.advance")
    assert [entry["actor"] for entry in entries] == ["rollout", "rollout", "alice"]


def update(bot, version):
    """What a bot does that takes a version."""
    bot.version, bot.session_id = version, f"{bot.session_id}0"
    bot.handshake()
    assert bot.poll()["cmd"] == "rbe"


def touch(*bots):
    for bot in bots:
        bot.poll()


@pytest.mark.control("archive.rollout")
def test_rollout_is_taken_back_by_itself_when_its_bots_fail(
    admin, parts, clock, uploaded, ring_bot, late_bot
):
    admin.post("/rollout", ROLLOUT)
    new = poll(ring_bot)
    clock.advance(1)
    ring_bot.call("/event", event="bot_error", message="New bot code is bad", version="x")
    state = {**ring_bot.state, "quarantined": "Failed to self-update the bot"}
    ring_bot.poll(state={**state, "update": {"failed_version": new, "reason": "no Python"}})
    parts.sweeps.round()
    status = admin.get("/rollout").json
    assert status["rollout"]["stage"] == "rolled_back"
    assert status["rollout"]["failures"] == ["vm2-m1: no Python"]
    assert "1 of 1 bots failed" in status["rollout"]["reason"]
    assert poll(ring_bot) == ""
    (entry,) = audit(admin, "rollout.rollback")
    assert entry["actor"] == "rollout"
    shown = admin.get(f"/archives/{UPLOADED}").json
    assert shown["is_rejected"] is True


def test_foreign_and_pinned_bots_are_no_part_of_a_rollout(admin, parts, uploaded, make_bot):
    foreign = make_bot("vm2-m1", ours=False, version="f" * 64)
    foreign.handshake()
    foreign.poll()
    admin.post("/rollout", ROLLOUT)
    assert admin.get("/rollout").json["rollout"]["bots"]["told"] == 0


def test_halt_resume_and_rollback_are_one_call_each(admin, parts, uploaded, ring_bot):
    assert admin.post("/rollout/halt", {}).status_code == 409
    admin.post("/rollout", ROLLOUT)
    halted = admin.post("/rollout/halt", {"reason": "lunch"}).json["rollout"]
    assert (halted["stage"], halted["reason"]) == ("halted", "lunch")
    parts.sweeps.round()
    assert admin.get("/rollout").json["rollout"]["stage"] == "halted"
    assert admin.post("/rollout/resume", {}).json["rollout"]["stage"] == "running"
    back = admin.post("/rollout/rollback", {"reason": "no"}).json
    assert (back["rollout"]["stage"], poll(ring_bot)) == ("rolled_back", "")
    (entry,) = audit(admin, "rollout.rollback")
    assert (entry["actor"], entry["reason"]) == ("alice", "no")
    assert admin.post("/rollout/rollback", {}).status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"release": "0" * 64}, 404, "no release begins with"),
        ({"release": "source"}, 409, "is stable already"),
        ({**ROLLOUT, "rings": []}, 400, "/rings: not 1 to 10 growing numbers"),
        ({**ROLLOUT, "rings": [50, 20]}, 400, "/rings"),
        ({**ROLLOUT, "rings": [0, 20]}, 400, "/rings"),
        ({**ROLLOUT, "rings": [101]}, 400, "/rings"),
        ({**ROLLOUT, "soak_s": -1}, 400, "/soak_s: is -1, not from 0 to 2592000"),
        ({**ROLLOUT, "max_failed_percent": 101}, 400, "/max_failed_percent"),
        ({**ROLLOUT, "min_updated": 0}, 400, "/min_updated"),
        ({**ROLLOUT, "typo": 0}, 400, "typo"),
    ],
)
def test_rollout_that_makes_no_sense_is_refused(admin, uploaded, body, status, said):
    reply = admin.post("/rollout", body)
    assert (reply.status_code, said in reply.json["detail"]) == (status, True), reply.text
    assert admin.get("/rollout").json["rollout"] is None


@pytest.mark.parametrize("path", ["", "/halt", "/resume", "/rollback", "/canary"])
def test_reason_that_is_too_long_is_refused_and_kept_nowhere(admin, parts, uploaded, path):
    before = parts.archives.deployed()
    body = {"": {"release": UPLOADED}, "/canary": {"release": UPLOADED, "percent": 1}}
    reply = admin.post(f"/rollout{path}", body.get(path, {}) | {"reason": "x" * 1001})
    assert (reply.status_code, reply.json["detail"][:8]) == (400, "/reason:")
    assert parts.archives.deployed() == before


def test_rollout_takes_what_is_not_said_from_settings_cfg(admin, parts, uploaded):
    push(parts, "rollout { ring_percent: 7 soak_secs: 5 max_failed_percent: 3 min_updated: 2 }")
    rollout = admin.post("/rollout", {"release": UPLOADED[:8]}).json["rollout"]
    assert (rollout["rings"], rollout["soak_s"]) == ([7, 100], 5)
    assert (rollout["max_failed_percent"], rollout["min_updated"]) == (3, 2)


@pytest.mark.control("archive.downgrade")
def test_older_signed_release_is_rolled_out_only_when_that_is_said(admin, parts):
    push(parts, release_key())
    new = upload(admin, signed(8)).json["release_id"]
    old = upload(admin, signed(7)).json["release_id"]
    assert new != old
    body = {"release": new, "rings": [100], "soak_s": 0}
    assert admin.post("/rollout", body).json["rollout"]["candidate"] == new
    admin.post("/rollout/rollback", {})
    make_stable(parts, new)
    reply = admin.post("/rollout", {**body, "release": old})
    assert (reply.status_code, reply.json["code"]) == (409, "aborted")
    assert "release 7 is older than stable, 8" in reply.json["detail"]
    source = admin.post("/rollout", {**body, "release": "source"})
    assert "stable is a signed release" in source.json["detail"]
    allowed = {**body, "release": old, "allow_downgrade": True}
    assert admin.post("/rollout", allowed).json["rollout"]["candidate"] == old


def make_stable(parts, release_id):
    """As after a rollout."""
    change_deployment(
        parts.store,
        lambda deployed: replace(deployed, stable=release_id),
        Author("t", "", "", "", 0, "made stable"),
    )


def test_canary_percent_is_obeyed(admin, parts, uploaded, ring_bot, late_bot):
    reply = admin.post("/rollout/canary", {"release": UPLOADED, "percent": 20})
    assert reply.json["canary"] == {"release": UPLOADED, "percent": 20}
    new = parts.archives.version(UPLOADED, "http://localhost")
    assert (poll(ring_bot), poll(late_bot)) == (new, "")
    assert admin.get("/bots/vm2-m1").json["expected_version"] == new
    assert admin.get("/bots/vm1-m1").json["expected_version"] != new
    admin.post("/rollout/canary", {"release": UPLOADED, "percent": 0})
    assert poll(ring_bot) == ""
    assert admin.post("/rollout/canary", {"release": UPLOADED, "percent": 101}).status_code == 400


def test_settings_cfg_decides_alone_when_it_names_a_release(admin, parts, uploaded, late_bot):
    push(parts, f'bot_deployment {{ stable {{ version: "{UPLOADED}" }} }}')
    new = parts.archives.version(UPLOADED, "http://localhost")
    assert poll(late_bot) == new
    status = admin.get("/rollout").json
    assert (status["stable"], status["fixed_by_settings_cfg"]) == (UPLOADED, True)
    assert status["pins"] == [{"release": UPLOADED, "is_kept": True}]
    for path, body in (
        ("", ROLLOUT),
        ("/rollback", {}),
        ("/canary", {"release": UPLOADED, "percent": 1}),
    ):
        reply = admin.post(f"/rollout{path}", body)
        assert reply.status_code == 409
        assert "bot_deployment in settings.cfg" in reply.json["detail"]


def test_pin_of_a_group_gives_its_bots_that_release(admin, parts, uploaded, late_bot, ring_bot):
    pinned = (
        f'trusted_dimensions: "pool"\nbot_group {{ bot_id_prefix: "vm1" '
        f'auth {{ ip_whitelist: "loopback" }} dimensions: "pool:default" '
        f'bot_archive_pin: "{UPLOADED}" }}\n' + LOOPBACK_CFG.split("\n", 1)[1]
    )
    push(parts, bots=pinned)
    new = parts.archives.version(UPLOADED, "http://localhost")
    assert (poll(late_bot), poll(ring_bot)) == (new, "")
    assert "pin" in admin.get(f"/archives/{UPLOADED}").json["used_as"]


def test_changes_are_found_in_the_audit_record_with_what_was_before(admin, uploaded):
    admin.post("/rollout", {**ROLLOUT, "reason": "weekly"})
    (entry,) = audit(admin, "rollout.start")
    assert entry["reason"] == "weekly"
    assert f"rollout {UPLOADED[:12]} running 20 %" in entry["after"]
    assert "rollout" not in entry["before"]
