"""What pools.cfg makes of new tasks, through the API and on to a bot (bot-api 7.7)."""

import pytest

from botapi.cfg.bundle import Source
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG

POOL = 'pool {{ name: "default" realm: "p:x" default_task_realm: "p:x" {} }}'


@pytest.fixture
def with_pool(parts, clock):
    """Says more about the pool `default`."""

    def say(more):
        source = Source(LOOPBACK_CFG, {}, POOL.format(more))
        parent = parts.config.latest().digest
        push_config(parts.store, source, parent=parent, author="test", now_ms=clock.now_ms())

    return say


@pytest.mark.spec("7.7.1.11")
@pytest.mark.parametrize(
    ("algorithm", "order"), [("FIFO", ["1", "2", "3"]), ("LIFO", ["3", "2", "1"])]
)
def test_pool_decides_whether_the_oldest_or_the_newest_task_goes_first(
    admin, clock, make_bot, with_pool, algorithm, order
):
    with_pool(f"scheduling_algorithm: SCHEDULING_ALGORITHM_{algorithm}")
    for name in "123":
        body = {"command": ["x"], "name": name, "wait_for_capacity": True}
        assert admin.post("/tasks", body).status_code == 201
        clock.advance(1)
    urgent = {"command": ["x"], "name": "urgent", "priority": 50, "wait_for_capacity": True}
    assert admin.post("/tasks", urgent).status_code == 201
    bot = make_bot("vm1").start()
    done = []
    for _ in range(4):
        run = bot.claim(bot.update(nonblocking=False)["lease"])
        done.append(admin.get(f"/tasks/{run['task_id']}").json["name"])
        bot.finish(run["task_id"])
    assert done == ["urgent", *order]


@pytest.mark.spec("7.7.1.12", "10.1.1.4")
@pytest.mark.usefixtures("ready_bot")
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"dimensions": {"pool": ["default"], "label-os": ["x"]}}, "/dimensions"),
        (
            {
                "slices": [
                    {"command": ["x"], "dimensions": {"pool": ["default"]}},
                    {"command": ["x"], "dimensions": {"pool": ["default"], "label-os": ["x"]}},
                ]
            },
            "/slices/1/dimensions",
        ),
    ],
)
def test_task_cannot_ask_for_a_dimension_that_its_pool_only_shows(admin, with_pool, body, place):
    with_pool('informational_dimension_re: ["^label-", "pool"]')
    if "slices" not in body:
        body = {"command": ["x"], **body}
    reply = admin.post("/tasks", {"name": "n", **body})
    assert reply.status_code == 400
    assert reply.json["detail"] == (
        f'{place}: "label-os" is only shown in pool "default" '
        "(informational_dimension_re); leave it out"
    )
    assert admin.get("/tasks").json["items"] == []
    assert admin.post("/tasks", {"command": ["x"]}).status_code == 201


@pytest.mark.spec("10.1.1.3")
@pytest.mark.usefixtures("ready_bot")
def test_task_asks_for_at_most_one_bot_where_a_dimension_names_them(admin, with_pool):
    def made(*serials):
        dims = {"pool": ["default"], "serial": serials}
        return admin.post(
            "/tasks", {"command": ["x"], "dimensions": dims, "wait_for_capacity": True}
        )

    assert made("7", "8").status_code == 201
    with_pool(
        'rbe_migration { rbe_instance: "projects/p/instances/i" rbe_mode_percent: 100 '
        'effective_bot_id_dimension: "serial" }'
    )
    assert made("7").status_code == 201
    reply = made("7", "8")
    assert reply.status_code == 400
    assert reply.json["detail"] == (
        '/dimensions: "serial" names the bots of pool "default" '
        "(effective_bot_id_dimension); give at most one value"
    )
