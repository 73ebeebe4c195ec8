"""The configuration over the API: looking at it, previewing a change, changing it, going back."""

import pytest

from botapi import app as composition
from botapi.api import config, config_push
from botapi.api.routes import CONFIG_BODY_LIMIT
from botapi.cfg.provider import Rejected
from botapi.concurrency import Threads
from botapi.transactions.push_config import push_config, reject_config
from tests.factories import LOOPBACK_CFG, bots_cfg

ANY = {"If-Match": "*"}
OTHER = LOOPBACK_CFG.replace("pool:default", "pool:other")
SECRET = LOOPBACK_CFG.replace('ip_whitelist: "loopback"', "require_enrolled_secret: true")


def files(text=OTHER, **more):
    return {"bots.cfg": text, **more}


def apply(admin, text=OTHER, **more):
    more = more if "parent" in more else more | {"parent": admin.get("/config").json["digest"]}
    return admin.post("/config/apply", {"files": files(text), "reason": "why not", **more})


@pytest.fixture
def two_bots(make_bot):
    return [make_bot(bot_id).start() for bot_id in ("vm1", "vm2")]


def test_config_in_force(admin, parts):
    found = admin.get("/config").json
    assert (found["rev"], found["author"], found["in_force"]) == (1, "test", True)
    assert found["digest"] == bots_cfg().digest()
    assert found["applied_at"] == "2026-03-04T06:06:07.089Z"
    assert found["files"] == {"bots.cfg": LOOPBACK_CFG, "pools.cfg": "", "settings.cfg": ""}
    assert found["on_disk"] == {
        "state": "none",
        "digest": None,
        "mistakes": [],
        "kept_out_at": None,
    }


def test_config_before_there_is_any(settings, store, clock, rng):
    parts = composition.build(settings, store, Threads(), clock, rng)
    found = config.in_force(parts.api)
    assert (found["rev"], found["digest"], found["applied_at"], found["files"]) == (
        0,
        None,
        None,
        {},
    )


def test_config_says_how_the_files_on_disk_stand_to_it(admin, parts, store, clock):
    digest = bots_cfg().digest()
    push_config(store, bots_cfg(), parent="", author="f", now_ms=clock.now_ms(), from_disk=True)
    assert admin.get("/config").json["on_disk"]["state"] == "in_force"
    apply(admin)
    on_disk = admin.get("/config").json["on_disk"]
    assert (on_disk["state"], on_disk["digest"]) == ("differs", digest)
    reject_config(store, Rejected("raw:1", clock.now_ms(), ("bots.cfg:1:1: bad",)))
    on_disk = admin.get("/config").json["on_disk"]
    assert (on_disk["state"], on_disk["mistakes"]) == ("kept_out", ["bots.cfg:1:1: bad"])
    assert on_disk["kept_out_at"] == "2026-03-04T06:06:07.089Z"


def test_validate_answers_with_digest_and_warnings(admin):
    reply = admin.post("/config/validate", {"files": files()})
    assert reply.status_code == 200
    assert reply.json == {"digest": bots_cfg(OTHER).digest(), "mistakes": [], "warnings": []}
    assert admin.get("/config").json["rev"] == 1


@pytest.mark.control("config.validate")
@pytest.mark.parametrize("call", ["validate", "preview", "apply"])
def test_bad_files_are_400_with_every_mistake(admin, call):
    text = LOOPBACK_CFG.replace("loopback", "nowhere").replace("pool:default", "x")
    body = {"files": files(text, **{"pools.cfg": "pool {"})}
    reply = admin.post(f"/config/{call}", body | ({"reason": "r"} if call == "apply" else {}))
    assert (reply.status_code, reply.json["code"]) == (400, "bad_config")
    assert len(reply.json["mistakes"]) > 1
    assert {line.partition(":")[0] for line in reply.json["mistakes"]} == {"bots.cfg", "pools.cfg"}
    more = len(reply.json["mistakes"]) - 1
    assert reply.json["detail"] == f"{reply.json['mistakes'][0]} (and {more} more)"
    assert admin.get("/config").json["rev"] == 1
    assert admin.get("/audit").json["items"] == []


@pytest.mark.parametrize(
    ("call", "body", "complaint"),
    [
        ("validate", {"files": {}}, "/files: bots.cfg is missing"),
        ("validate", {"files": {"bots.cfg": "", "x.cfg": ""}}, '/files: "x.cfg" is no file of'),
        ("validate", {"files": {"bots.cfg": 1}}, "/files/...: Expected"),
        ("validate", {}, 'the body: Object missing required field "files"'),
        ("preview", {}, "the body: give either files or rev"),
        ("preview", {"files": {}, "rev": 1}, "the body: give either files or rev"),
        ("apply", {"files": files()}, 'the body: Object missing required field "reason"'),
        ("apply", {"files": files(), "reason": " "}, "/reason: is empty"),
        ("apply", {"files": files(), "reason": "x" * 1001}, "/reason: has 1001 characters"),
        ("apply", {"files": files(), "reason": "x", "force": True}, "the body: Object contains"),
        ("rollback", {"rev": 1, "reason": ""}, "/reason: is empty"),
        ("rollback", {"rev": "1", "reason": "x"}, "/rev: Expected"),
    ],
)
def test_wrong_bodies_are_400(admin, call, body, complaint):
    reply = admin.post(f"/config/{call}", body)
    assert reply.status_code == 400
    assert reply.json["detail"].startswith(complaint)


@pytest.mark.parametrize("call", ["validate", "preview", "apply", "rollback"])
def test_only_an_admin_may_change_or_preview(client, parts, admin, call):
    assert client.post(f"/api/v1/config/{call}", json={}).status_code == 401
    assert client.get(f"/api/v1/config/{call}").status_code == 401
    assert admin.get(f"/config/{call}").status_code == 405


def test_half_a_surrogate_pair_is_a_mistake_and_no_crash(admin):
    reply = admin.call(
        "POST",
        "/config/validate",
        data=b'{"files": {"bots.cfg": "\\ud800"}}',
        content_type="application/json",
    )
    assert reply.status_code == 400


def test_files_may_be_larger_than_other_bodies(admin):
    text = LOOPBACK_CFG + "# " + "x" * 700_000 + "\n"
    body = {"files": {"bots.cfg": text, "scripts/unused.py": "x" * 1_000_000}}
    assert admin.post("/config/validate", body).status_code == 200
    body["files"]["scripts/unused.py"] = "x" * CONFIG_BODY_LIMIT
    assert admin.post("/config/validate", body).status_code == 413


def test_apply_puts_files_in_force_with_author_reason_and_audit(admin, parts):
    reply = apply(admin)
    assert reply.status_code == 200
    made = reply.json
    assert (made["rev"], made["author"], made["reason"]) == (2, "alice", "why not")
    assert (made["is_new"], made["in_force"], made["dropped_bots"]) == (True, True, 0)
    assert parts.config.latest().source.bots == OTHER
    found = admin.get("/config").json
    assert (found["author"], found["reason"], found["rev"]) == ("alice", "why not", 2)
    (entry,) = admin.get("/audit").json["items"]
    assert (entry["actor"], entry["verb"], entry["reason"]) == ("alice", "config.apply", "why not")
    assert (entry["before"], entry["after"]) == (bots_cfg().digest(), made["digest"])


def test_apply_answers_when_this_process_knows_the_new_revision(admin, parts):
    """Not only that it is in the store: the next poll here meets it."""
    assert apply(admin).status_code == 200
    assert parts.config._snapshot.source.bots == OTHER


def test_apply_of_what_is_in_force_is_no_change(admin):
    reply = apply(admin, LOOPBACK_CFG, parent="anything", drop=7)
    assert (reply.status_code, reply.json["is_new"], reply.json["rev"]) == (200, False, 1)
    assert admin.get("/audit").json["items"] == []


def test_apply_on_an_outdated_parent_is_409(admin):
    first = bots_cfg().digest()
    assert apply(admin, parent=first).status_code == 200
    late = apply(admin, SECRET, parent=first)
    assert (late.status_code, late.json["code"], late.json["rev"]) == (409, "outdated", 2)
    assert late.json["detail"].startswith("revision 2 is in force meanwhile")


def test_apply_that_loses_a_race_is_409(admin, parts, store, clock, monkeypatch):
    """Somebody pushes between the comparison and the transaction."""
    compared = config_push.impact

    def and_meanwhile(*args):
        push_config(
            store, bots_cfg(OTHER), parent=bots_cfg().digest(), author="eve", now_ms=clock.now_ms()
        )
        return compared(*args)

    monkeypatch.setattr(config_push, "impact", and_meanwhile)
    late = apply(admin, SECRET)
    assert (late.status_code, late.json["code"]) == (409, "outdated")
    assert admin.get("/config").json["author"] == "eve"


@pytest.mark.control("config.drop-limit")
@pytest.mark.parametrize("drop", [None, 0, 1, 3])
def test_apply_that_drops_too_many_bots_is_409_without_their_number(admin, two_bots, drop):
    reply = apply(admin, SECRET, **({} if drop is None else {"drop": drop}))
    assert (reply.status_code, reply.json["code"]) == (409, "would_drop")
    said = "would drop 2 of 2 live bots"
    assert reply.json["detail"] == (
        f"{said}; to go on, give drop=2" if drop is None else f"{said}, not {drop}"
    )
    assert (reply.json["dropped_bots"], reply.json["live_bots"]) == (2, 2)
    assert admin.get("/config").json["rev"] == 1


def test_apply_with_the_exact_number_drops_the_bots(admin, two_bots):
    reply = apply(admin, SECRET, drop=2)
    assert (reply.status_code, reply.json["dropped_bots"]) == (200, 2)
    two_bots[0].poll()
    assert two_bots[0].status == 401


def test_limit_is_that_of_the_configuration_in_force(admin, two_bots):
    lax = {"settings.cfg": "max_dropped_percent: 100"}
    both = admin.post("/config/apply", {"files": files(SECRET, **lax), "reason": "r"}, headers=ANY)
    assert both.status_code == 409
    first = admin.post(
        "/config/apply", {"files": files(LOOPBACK_CFG, **lax), "reason": "r"}, headers=ANY
    )
    assert first.status_code == 200
    assert apply(admin, SECRET).status_code == 200


MOVED = (
    LOOPBACK_CFG
    + """\
bot_group {
  bot_id: "x1"
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:other"
}
"""
)


def preview(admin, text=MOVED):
    reply = admin.post("/config/preview", {"files": files(text)})
    assert reply.status_code == 200, reply.text
    assert reply.content_type == "application/json"
    return reply.json


def test_preview_lists_bots_and_the_tasks_that_lose_their_last_bot(admin, two_bots, make_bot):
    make_bot("x1", dims={"os": ["Mac"]}).start()
    lost = [
        admin.submit(name, dimensions={"pool": ["default"], "os": ["Mac|Windows"]})["task_id"]
        for name in ("a", "b")
    ]
    admin.submit("has others", dimensions={"pool": ["default"], "os": ["Linux|Mac"]})
    admin.submit("never had any", dimensions={"os": ["Plan9"]}, wait_for_capacity=True)
    found = preview(admin)
    assert found["bots"] == [
        {
            "bot_id": "x1",
            "live": True,
            "changes": ["group", "dimensions"],
            "group_before": "default group (bots.cfg:2)",
            "group_after": "bot_id x1 (bots.cfg:6)",
            "dimensions_added": ["pool:other"],
            "dimensions_removed": ["pool:default"],
            "restarts": True,
            "dropped": None,
        }
    ]
    wants = ["os:Mac|os:Windows", "pool:default"]
    assert found["tasks"] == [
        {"task_id": task_id, "slice_index": 0, "wants": wants} for task_id in lost
    ]
    assert (found["live_bots"], found["changed_bots"], found["restarting_bots"]) == (3, 1, 1)
    assert (found["dropped_bots"], found["max_dropped_percent"], found["needs_drop"]) == (
        0,
        5,
        False,
    )
    assert (found["files"], found["is_new"], found["parent_rev"]) == (["bots.cfg"], True, 1)
    assert (found["bots_cut"], found["tasks_cut"], found["warnings"]) == (False, False, [])
    assert (found["parent"], found["digest"]) == (bots_cfg().digest(), bots_cfg(MOVED).digest())
    assert admin.get("/config").json["rev"] == 1
    assert len(admin.get("/audit").json["items"]) == 4


def test_preview_foretells_what_happens(admin, two_bots, make_bot):
    """The words come true when the bots poll."""
    x1 = make_bot("x1").start()
    (told,) = preview(admin)["bots"]
    assert apply(admin, MOVED).status_code == 200
    assert (x1.poll()["cmd"], told["restarts"]) == ("bot_restart", True)
    assert [bot.poll()["cmd"] for bot in two_bots] == ["rbe", "rbe"]
    stored = admin.get("/bots/x1").json["dimensions"]
    assert [f"pool:{value}" for value in stored["pool"]] == told["dimensions_added"]


def test_preview_of_no_change_says_so(admin, two_bots):
    found = preview(admin, LOOPBACK_CFG)
    assert (found["is_new"], found["files"], found["bots"], found["tasks"]) == (False, [], [], [])


def test_preview_tells_who_would_be_dropped(admin, two_bots):
    found = preview(admin, SECRET)
    assert (found["dropped_bots"], found["needs_drop"], found["live_bots"]) == (2, True, 2)
    assert [bot["dropped"] for bot in found["bots"]] == [
        "vm1 is not enrolled",
        "vm2 is not enrolled",
    ]


def test_preview_names_a_bounded_number_and_counts_all(admin, two_bots, monkeypatch):
    for name in "ab":
        admin.submit(name, dimensions={"pool": ["default"], "os": ["Linux"]})
    monkeypatch.setattr(config_push, "MAX_LISTED", 1)
    found = preview(admin, OTHER)
    assert (len(found["bots"]), found["bots_cut"], found["changed_bots"]) == (1, True, 2)
    assert (len(found["tasks"]), found["tasks_cut"]) == (1, True)


def test_preview_of_a_rollback(admin, two_bots):
    assert apply(admin, OTHER).status_code == 200
    found = admin.post("/config/preview", {"rev": 1}).json
    assert (found["digest"], found["changed_bots"]) == (bots_cfg().digest(), 2)
    assert admin.post("/config/preview", {"rev": 9}).status_code == 404


def test_revisions_are_newest_first_and_page(admin, clock, monkeypatch):
    monkeypatch.setattr(config, "REVISIONS_AT_ONCE", 2)
    for n in range(4):
        clock.advance(1)
        assert apply(admin, LOOPBACK_CFG + f"# {n}\n", reason=f"no. {n}").status_code == 200
    first = admin.get("/config/revisions?limit=2").json
    assert [(one["rev"], one["reason"]) for one in first["items"]] == [(5, "no. 3"), (4, "no. 2")]
    assert [one["in_force"] for one in first["items"]] == [True, False]
    rest = admin.get(f"/config/revisions?limit=3&cursor={first['next_cursor']}").json
    assert [(one["rev"], one["author"]) for one in rest["items"]] == [
        (3, "alice"),
        (2, "alice"),
        (1, "test"),
    ]
    assert rest["next_cursor"] is None
    assert admin.get("/config/revisions?author=x").status_code == 400


@pytest.mark.control("config.history")
def test_revision_has_its_files(admin):
    text = LOOPBACK_CFG.replace("  dimensions:", '  bot_config_script: "s.py"\n  dimensions:')
    body = {"files": files(text, **{"scripts/s.py": "# é", "scripts/t.py": ""}), "reason": "r"}
    assert admin.post("/config/apply", body, headers=ANY).status_code == 200
    found = admin.get("/config/revisions/2").json
    assert found["files"] == {
        "bots.cfg": text,
        "pools.cfg": "",
        "settings.cfg": "",
        "scripts/s.py": "# é",
    }
    assert (found["rev"], found["in_force"], found["author"]) == (2, True, "alice")
    assert admin.get("/config").json["files"] == found["files"]
    assert admin.get("/config/revisions/1").json["in_force"] is False


@pytest.mark.parametrize("rev", ["0", "9", "x", "-1", "1" * 30, "²"])
def test_revision_that_there_is_not_is_404(admin, rev):
    reply = admin.get(f"/config/revisions/{rev}")
    assert reply.status_code == 404
    assert reply.json["detail"] == f"there is no revision {rev}; the last 1000 are kept"


@pytest.mark.control("config.history")
def test_rollback_is_a_new_revision_with_the_old_content(admin, parts, clock):
    apply(admin, OTHER)
    clock.advance(1)
    made = admin.post("/config/rollback", {"rev": 1, "reason": "oh no"}, headers=ANY).json
    assert (made["rev"], made["digest"]) == (3, bots_cfg().digest())
    assert made["reason"] == "back to revision 1: oh no"
    assert parts.config.latest().source.bots == LOOPBACK_CFG
    entry = admin.get("/audit").json["items"][0]
    assert (entry["verb"], entry["target"]) == ("config.rollback", "bots.cfg revision 1")
    assert (entry["before"], entry["after"]) == (bots_cfg(OTHER).digest(), made["digest"])
    clock.advance(1)
    again = admin.post("/config/rollback", {"rev": 1, "reason": "oh no"}, headers=ANY).json
    assert (again["rev"], again["is_new"]) == (3, False)


def test_rollback_that_drops_too_many_bots_needs_their_number(admin, store, clock, make_bot):
    apply(admin, SECRET)
    apply(admin, LOOPBACK_CFG)
    make_bot("vm1").start()
    refused = admin.post("/config/rollback", {"rev": 2, "reason": "r"}, headers=ANY)
    assert (refused.status_code, refused.json["dropped_bots"]) == (409, 1)
    assert (
        admin.post(
            "/config/rollback", {"rev": 2, "reason": "r", "drop": 1}, headers=ANY
        ).status_code
        == 200
    )


def test_rollback_to_a_revision_that_is_gone_is_404(admin):
    reply = admin.post("/config/rollback", {"rev": 9, "reason": "r"}, headers=ANY)
    assert (reply.status_code, reply.json["code"]) == (404, "not_found")


@pytest.mark.spec("2.7.p1")
def test_fetched_time_of_revisions_only_grows(admin, parts, clock):
    """Also when a rollback brings old content back, and the clock goes back."""
    seen = [parts.config.latest().fetched_ms]
    for text in (OTHER, LOOPBACK_CFG, OTHER):
        clock.advance(-60)
        apply(admin, text)
        seen.append(parts.config.latest().fetched_ms)
    assert seen == sorted({*seen})


@pytest.mark.control("config.drop-limit")
def test_file_that_drops_too_many_bots_is_kept_out_until_the_number_is_given(
    admin, parts, settings, two_bots, clock
):
    folder = settings.config_dir
    folder.mkdir(parents=True)
    (folder / "bots.cfg").write_text(SECRET)
    rejected = parts.watcher.check(clock.now_ms())
    assert rejected.mistakes == (
        "bots.cfg:1:1: would drop 2 of 2 live bots, more than 5 %; "
        f"skep config preview {folder} names them, "
        f"skep config apply {folder} --drop 2 does it all the same",
    )
    assert admin.get("/config").json["on_disk"]["mistakes"] == list(rejected.mistakes)
    assert apply(admin, SECRET, drop=2).status_code == 200
    assert admin.get("/config").json["on_disk"]["state"] == "in_force"
    (folder / "bots.cfg").write_text(OTHER)
    parts.watcher.check(clock.now_ms())
    found = admin.get("/config").json
    assert (found["author"], found["reason"]) == ("bots.cfg", "the file on disk changed")
    assert (found["files"]["bots.cfg"], found["on_disk"]["state"]) == (OTHER, "in_force")


@pytest.mark.spec("7.5.1.4")
def test_session_takes_up_auth_and_accounts_silently_at_the_next_poll(admin, parts, ready_bot):
    text = LOOPBACK_CFG.replace(
        "  dimensions:",
        """\
  auth { require_enrolled_secret: true }
  system_service_account: "a@b.example.com"
  logs_cloud_project: "logs"
  owners: "ann@example.com"
  dimensions:""",
    )
    before = parts.bots.session_of(ready_bot.session).bot_config
    assert apply(admin, text).status_code == 200
    assert ready_bot.poll()["cmd"] == "rbe"
    after = parts.bots.session_of(ready_bot.session).bot_config
    assert (len(before.bot_auth), len(after.bot_auth)) == (1, 2)
    assert (before.logs_cloud_project, after.logs_cloud_project) == ("", "logs")
    assert after.system_service_account == "a@b.example.com"


@pytest.mark.spec("7.5.1.3", "2.4.p1")
def test_bot_restarts_at_its_next_poll_for_hooks_and_dimensions_only(admin, ready_bot):
    text = LOOPBACK_CFG.replace("  dimensions:", '  bot_config_script: "s.py"\n  dimensions:')
    for more in ({"scripts/s.py": "# 1"}, {"scripts/s.py": "# 2"}):
        body = {"files": files(text, **more), "reason": "r"}
        assert admin.post("/config/apply", body, headers=ANY).status_code == 200
        assert ready_bot.poll()["cmd"] == "bot_restart"
        ready_bot.session_id += "/n"
        ready_bot.start()
        assert ready_bot.poll()["cmd"] == "rbe"


CHANGES = [("apply", {"files": files(), "reason": "r"}), ("rollback", {"rev": 1, "reason": "r"})]


@pytest.mark.parametrize("path", ["/config", "/config/bots.cfg", "/config/revisions/1"])
def test_reads_carry_the_digest_as_their_etag(admin, path):
    reply = admin.get(path)
    assert reply.headers["ETag"] == f'"{reply.json["digest"]}"'


@pytest.mark.parametrize(("call", "body"), CHANGES)
def test_change_without_a_basis_is_428_and_changes_nothing(admin, call, body):
    reply = admin.post(f"/config/{call}", body)
    assert (reply.status_code, reply.json["code"]) == (428, "precondition_required")
    assert admin.get("/config").json["rev"] == 1


@pytest.mark.parametrize(("call", "body"), CHANGES)
@pytest.mark.parametrize("weak", ["", "W/"])
def test_change_based_on_another_revision_is_412_and_changes_nothing(admin, call, body, weak):
    old = admin.get("/config").headers["ETag"]
    assert apply(admin, SECRET).json["rev"] == 2
    tag = old if not weak else weak + admin.get("/config").headers["ETag"]  # never matches
    reply = admin.post(f"/config/{call}", body, headers={"If-Match": tag})
    assert (reply.status_code, reply.json["code"]) == (412, "precondition_failed")
    assert reply.json["rev"] == 2
    assert admin.get("/config").json["rev"] == 2


def test_change_with_the_etag_in_force_goes_through(admin):
    tag = admin.get("/config").headers["ETag"]
    for call, body in CHANGES:
        made = admin.post(f"/config/{call}", body, headers={"If-Match": f'"x", {tag}'})
        assert (made.status_code, made.json["is_new"]) == (200, True)
        tag = f'"{made.json["digest"]}"'
