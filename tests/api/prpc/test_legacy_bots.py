"""The two lists that older tools ask for, and the old addresses of pages."""

import pytest

from botapi.domain.bot import Bot, LiveBot
from botapi.domain.dimensions import flatten
from botapi.store import codec
from botapi.store.protocol import Outage
from tests.fakes.person import Person

spec = pytest.mark.spec
NOW_MS = 1_772_604_367_089
ROOT = "/_ah/api/swarming/v1/bots/"


@pytest.fixture
def ask(client, admin_key):
    def asked(path, key=admin_key, method="GET"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return client.open(ROOT + path, method=method, headers=headers)

    return asked


@pytest.fixture(autouse=True)
def fleet(store):
    for n in range(3):
        dims = {"id": [f"vm{n}"], "pool": ["ci"], "os": [("Linux", "Mac", "Linux")[n]]}
        bot = Bot(f"vm{n}", flatten(dims), NOW_MS, dead=n == 2, idle_since_ms=NOW_MS)
        live = LiveBot(f"vm{n}", NOW_MS + 123, state={})
        store.write_many([(codec.BOT, codec.bot_doc(bot)), (codec.LIVE, codec.live_doc(live))])


@spec("prpc:8.2.p1")
def test_count_is_text_and_indented(ask):
    reply = ask("count?dimensions=os:Linux")
    assert reply.status_code == 200
    assert reply.content_type == "application/json; charset=utf-8"
    assert reply.json == {
        "count": "2",
        "quarantined": "0",
        "maintenance": "0",
        "dead": "1",
        "busy": "0",
        "now": "2026-03-04T06:06:07.089000",
    }
    assert reply.text.startswith("{\n ")


@spec("prpc:8.2.p1")
def test_list_shows_defaults_of_bots(ask):
    reply = ask("list?dimensions=pool:ci&dimensions=os:Linux&is_dead=TRUE&is_busy=NONE")
    assert reply.status_code == 200
    assert reply.json == {
        "death_timeout": "600",
        "now": "2026-03-04T06:06:07.089000",
        "items": [
            {
                "bot_id": "vm2",
                "task_id": "",
                "external_ip": "",
                "authenticated_as": "",
                "first_seen_ts": "2026-03-04T06:06:07.089000",
                "is_dead": True,
                "last_seen_ts": "2026-03-04T06:06:07.212000",
                "quarantined": False,
                "maintenance_msg": "",
                "dimensions": [
                    {"key": "id", "value": ["vm2"]},
                    {"key": "os", "value": ["Linux"]},
                    {"key": "pool", "value": ["ci"]},
                ],
                "task_name": "",
                "version": "",
                "state": "{}",
                "deleted": False,
                "session_id": "",
                "termination_task_id": "",
            }
        ],
    }


@spec("prpc:8.2.p1")
def test_list_goes_on_behind_its_cursor(ask):
    first = ask("list?limit=2").json
    assert [bot["bot_id"] for bot in first["items"]] == ["vm0", "vm1"]
    second = ask(f"list?limit=2&cursor={first['cursor']}").json
    assert [bot["bot_id"] for bot in second["items"]] == ["vm2"]
    assert "cursor" not in second


@spec("prpc:8.2.p1")
@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=-1",
        "limit=1001",
        "limit=" + "9" * 30,
        "cursor=x",
        "dimensions=os",
        "dimensions=:x",
        "is_dead=maybe",
    ],
)
def test_bad_question_is_400_with_a_message(ask, query):
    reply = ask(f"list?{query}")
    assert reply.status_code == 400
    assert set(reply.json) == {"error"}
    assert reply.json["error"]["message"]


@spec("prpc:8.2.p1")
def test_errors_have_one_form(ask, monkeypatch, store):
    for reply, status in (
        (ask("count", key=""), 403),
        (ask("count", key="wrong"), 401),
        (ask("nothing"), 404),
        (ask("count", method="POST"), 405),
    ):
        assert reply.status_code == status
        assert reply.json["error"]["message"]

    def broken(*_args, **_more):
        raise Outage("the disk is gone")

    monkeypatch.setattr(store, "count", broken)
    reply = ask("count")
    assert reply.status_code == 503
    assert "disk" not in reply.text


@pytest.mark.control("people.roles")
def test_lists_take_no_cookie(client, admin_key, parts):
    cookie, _ = parts.api.sign_in(admin_key)
    client.set_cookie("skep_session", cookie)
    assert Person(client).get("/whoami").status_code == 200
    assert client.get(ROOT + "count").status_code == 403


@spec("prpc:8.2.p1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/botlist", "/bots"),
        ("/botlist?f=pool:ci&f=os:Linux%7CMac&l=50&c=id&s=id&d=asc", None),
        ("/bot?id=vm1", "/bots/vm1"),
        ("/bot?id=a%2Fb%20c%0d%0aX:y", "/bots/a/b%20c%0D%0AX%3Ay"),
        ("/bot", "/bots"),
        ("/tasklist", "/tasks"),
        ("/tasklist?f=pool-tag:ci&f=job:a:b&f=state:RUNNING&l=7&st=1&et=2", None),
        ("/tasklist?f=state:COMPLETED_FAILURE", "/tasks?state=COMPLETED"),
        ("/tasklist?f=state:PENDING_RUNNING", "/tasks?state=PENDING&state=RUNNING"),
        ("/tasklist?f=state:ALL", "/tasks"),
        ("/task?id=76d00eba71beef10", "/tasks/76d00eba71beef10"),
        ("/restricted/bot/vm1", "/bot?id=vm1"),
        ("/user/task/76d00eba71beef10", "/task?id=76d00eba71beef10"),
        ("/restricted/bots?dimensions=os:Linux&limit=9", "/botlist?l=9&f=os%3ALinux"),
        ("/user/tasks?task_tag=a:b&task_tag=c:d", "/tasklist?f=a%3Ab&f=c%3Ad"),
    ],
)
def test_old_addresses_lead_to_our_pages(client, old, new):
    reply = client.get(old)
    assert reply.status_code == 302
    if old.startswith("/botlist?"):
        new = "/bots?dimension=pool%3Aci&dimension=os%3ALinux%7CMac&limit=50"
    if old.startswith("/tasklist?f=pool"):
        new = "/tasks?tag=pool%3Aci&tag=job%3Aa%3Ab&state=RUNNING&limit=7"
    assert reply.headers["Location"] == new


@spec("prpc:8.2.p1")
def test_pages_behind_old_addresses_exist(client, parts, admin_key):
    cookie, _ = parts.api.sign_in(admin_key)
    client.set_cookie("skep_session", cookie)
    for old in ("/bot?id=vm1", "/botlist?f=os:Linux&l=5", "/tasklist?f=a:b&f=state:COMPLETED", "/"):
        assert client.get(old, follow_redirects=True).status_code == 200
