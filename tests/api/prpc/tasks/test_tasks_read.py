"""GetResult, BatchGetResult, GetRequest, ListTaskStates: on SQLite, with bots' own calls."""

import base64
import zlib

import pytest

from botapi import __version__
from botapi.domain.artifacts import CasReference, CipdPackage
from botapi.domain.errors import Code, Refusal
from botapi.domain.permissions import Role
from botapi.domain.task import TaskState
from botapi.store.protocol import Outage
from tests.fakes.prpc_tasks import ADMIN, caller, direct, new_task, one_slice

DIGEST = {"hash": "a" * 64, "size_bytes": 12}


def present(reply, *names):
    return {name for name in names if name in reply}


RUN = ("botId", "startedTs", "runId")
ENDS = ("completedTs", "abandonedTs")
OUTCOME = ("duration", "exitCode")


def check_presence(reply, *expected):
    """Exactly these of the fields that depend on the state (prpc-api 4)."""
    assert present(reply, *RUN, *ENDS, *OUTCOME) == set(expected)
    assert present(reply, "taskId", "createdTs", "modifiedTs", "state", "name") == {
        "taskId",
        "createdTs",
        "modifiedTs",
        "state",
        "name",
    }
    assert reply["taskId"].endswith("0")


@pytest.mark.spec("prpc:4.5.1", "prpc:4.4.1", "prpc:4.4.9", "prpc:4.4.15", "prpc:4.4.19")
@pytest.mark.spec("prpc:4.4.24")
def test_pending_task_has_nothing_of_a_run(tasks):
    reply = tasks.result(tasks.made(tags=["b:1", "a:1"], user="dev@example.com"))
    check_presence(reply)
    assert reply["state"] == "PENDING"
    assert reply["user"] == "dev@example.com"
    assert {"a:1", "b:1", "pool:default", "priority:100"} <= set(reply["tags"])
    assert reply["serverVersions"] == [__version__]
    assert reply["tags"] == sorted(reply["tags"])
    assert reply["createdTs"] == reply["modifiedTs"] == "2026-03-04T06:06:07.089Z"


@pytest.mark.spec("prpc:4.5.2", "prpc:4.4.2", "prpc:4.4.3", "prpc:4.4.4", "prpc:4.4.5")
@pytest.mark.spec("prpc:4.4.18", "prpc:4.4.27", "prpc:4.4.17")
def test_running_task_names_its_bot_as_it_was_at_the_claim(tasks, clock):
    run_id, bot = tasks.claimed()
    clock.advance(2)
    reply = tasks.result(run_id)
    check_presence(reply, *RUN)
    assert (reply["taskId"], reply["runId"]) == (run_id[:-1] + "0", run_id)
    assert reply["botDimensions"] == [
        {"key": "id", "value": ["vm1"]},
        {"key": "os", "value": ["Linux"]},
        {"key": "pool", "value": ["default"]},
    ]
    assert reply["startedTs"] == "2026-03-04T06:06:07.089Z"
    assert reply["botVersion"] == bot.version
    assert "botIdleSinceTs" in reply
    assert reply["serverVersions"] == [__version__]


@pytest.mark.spec("prpc:4.5.2", "prpc:4.4.20")
def test_running_task_is_abandoned_only_from_the_kill_request_on(tasks, clock, swarming):
    run_id, _ = tasks.claimed()
    clock.advance(1)
    swarming.json("CancelTask", {"taskId": run_id, "killRunning": True})
    clock.advance(1)
    reply = tasks.result(run_id)
    check_presence(reply, *RUN, "abandonedTs")
    assert (reply["state"], reply["abandonedTs"]) == ("RUNNING", "2026-03-04T06:06:08.089Z")


@pytest.mark.spec("prpc:4.5.3", "prpc:4.4.7", "prpc:4.4.11", "prpc:4.4.12", "prpc:4.4.13")
def test_completed_task_has_its_outcome(tasks):
    reply = tasks.result(tasks.finished(exit_code=2))
    check_presence(reply, *RUN, "completedTs", *OUTCOME)
    assert (reply["state"], reply["exitCode"], reply["failure"]) == ("COMPLETED", "2", True)
    assert reply["duration"] == pytest.approx(0.1)
    assert "internalFailure" not in reply


@pytest.mark.spec("prpc:4.4.12", "prpc:1.4.1.2")
def test_exit_code_of_success_is_left_out(tasks):
    reply = tasks.result(tasks.finished(exit_code=0))
    check_presence(reply, *RUN, "completedTs", "duration")
    assert "failure" not in reply


@pytest.mark.spec("prpc:4.5.3", "prpc:4.4.13")
def test_timed_out_task_failed(tasks):
    reply = tasks.result(tasks.finished(exit_code=-1, end={"hard_timeout": True}))
    check_presence(reply, *RUN, "completedTs", *OUTCOME)
    assert (reply["state"], reply["exitCode"], reply["failure"]) == ("TIMED_OUT", "-1", True)


@pytest.mark.spec("prpc:4.5.4", "prpc:4.4.20")
def test_killed_task_keeps_the_time_of_the_kill_request(tasks):
    reply = tasks.result(tasks.killed())
    check_presence(reply, *RUN, *ENDS, *OUTCOME)
    assert reply["state"] == "KILLED"
    assert reply["abandonedTs"] < reply["completedTs"]


@pytest.mark.spec("prpc:4.5.5", "prpc:4.4.14", "prpc:4.4.20")
def test_task_whose_bot_died_ended_when_it_was_abandoned(tasks):
    reply = tasks.result(tasks.failed())
    check_presence(reply, *RUN, *ENDS, *OUTCOME)
    assert (reply["state"], reply["internalFailure"]) == ("BOT_DIED", True)
    assert reply["abandonedTs"] == reply["completedTs"]


@pytest.mark.spec("prpc:4.5.5", "prpc:4.4.30", "prpc:4.4.31")
def test_task_without_its_inputs_says_what_is_missing(tasks):
    missing = {
        "missing_cas": [{"instance": "projects/p/instances/i", "digest": f"{'a' * 64}/12"}],
        "missing_cipd": [{"package_name": "p", "version": "v", "path": "."}],
    }
    reply = tasks.result(tasks.failed(missing))
    check_presence(reply, *RUN, *ENDS, *OUTCOME)
    assert reply["state"] == "CLIENT_ERROR"
    assert reply["missingCas"] == [
        {
            "casInstance": "projects/p/instances/i",
            "digest": {"hash": "a" * 64, "sizeBytes": "12"},
        }
    ]
    assert reply["missingCipd"] == [{"packageName": "p", "version": "v", "path": "."}]


@pytest.mark.spec("prpc:4.4.6", "prpc:4.4.29")
def test_bots_log_project_is_told_and_results_are_in_no_database(tasks):
    run_id, _ = tasks.claimed()
    tasks.change(run_id, bot_logs_cloud_project="logs")
    reply = tasks.result(run_id)
    assert reply["botLogsCloudProject"] == "logs"
    assert "resultdbInfo" not in reply


@pytest.mark.spec("prpc:4.4.22", "prpc:10.p4")
def test_name_is_in_every_result_of_every_method(tasks, swarming):
    made = swarming.json("NewTask", new_task(name="n")).reply
    task_id = made["taskId"]
    (listed,) = swarming("ListTasks").reply["items"]
    (each,) = swarming("BatchGetResult", {"taskIds": [task_id]}).reply["results"]
    for result in (made["taskResult"], listed, each["result"], tasks.result(task_id)):
        assert result["name"] == "n"


@pytest.mark.spec("prpc:4.4.30")
def test_missing_input_has_a_digest_even_where_none_was_said(tasks):
    task_id = tasks.failed()
    tasks.change(task_id, missing_cas=(CasReference(),), missing_cipd=(CipdPackage(),))
    reply = tasks.result(task_id)
    assert (reply["missingCas"], reply["missingCipd"]) == ([{"digest": {}}], [{}])


@pytest.mark.spec("prpc:4.5.6", "prpc:4.4.20")
def test_canceled_task_has_no_run(tasks):
    reply = tasks.result(tasks.canceled())
    check_presence(reply, *ENDS)
    assert reply["state"] == "CANCELED"
    assert reply["abandonedTs"] == reply["completedTs"]


@pytest.mark.spec("prpc:4.5.6", "prpc:4.4.20")
def test_expired_task_has_no_run(tasks):
    reply = tasks.result(tasks.expired())
    check_presence(reply, *ENDS)
    assert (reply["state"], reply["abandonedTs"]) == ("EXPIRED", reply["completedTs"])


@pytest.mark.spec("prpc:4.5.5", "prpc:4.5.6")
@pytest.mark.parametrize("state", [TaskState.NO_RESOURCE, TaskState.BOT_DIED])
def test_task_that_no_bot_took_has_no_run(tasks, state):
    task_id = tasks.canceled()
    tasks.change(task_id, state=state, bot_id="vm1" if state is TaskState.BOT_DIED else "")
    reply = tasks.result(task_id)
    blamed = ["botId"] if state is TaskState.BOT_DIED else []
    check_presence(reply, *ENDS, *blamed)
    assert reply["state"] == state


@pytest.mark.spec("prpc:4.4.28")
def test_current_slice_is_told_by_its_index(tasks, clock, parts):
    task_id = tasks.made(one_slice(expiration=30, wait=True), one_slice(expiration=60, wait=True))
    assert "currentTaskSlice" not in tasks.result(task_id)
    clock.advance(31)
    parts.sweeps.round()
    reply = tasks.result(task_id)
    assert (reply["currentTaskSlice"], reply["state"]) == (1, "PENDING")


@pytest.mark.spec("prpc:6.2.p1", "prpc:2.1.p1")
def test_result_is_the_same_for_task_id_run_id_and_any_last_digit(tasks):
    task_id = tasks.finished()
    assert tasks.result(task_id[:-1] + "1") == tasks.result(task_id)
    assert tasks.result(task_id[:-1] + "f") == tasks.result(task_id)


def packed(*sizes):
    """Sorted sizes as upstream bots send them."""
    out, last = bytearray(), 0
    for size in sizes:
        value, last = size - last, size
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return base64.b64encode(zlib.compress(bytes(out))).decode()


STATS = {
    "bot_overhead": 2.5,
    "cipd_stats": {"duration": 0.25},
    "cache_trim_stats": {"duration": 0.125},
    "named_caches_stats": {"install": {"duration": 1.5}, "uninstall": {"duration": 3.0}},
    "cleanup_stats": {"duration": 0.5},
    "isolated_stats": {
        "download": {
            "duration": 4.0,
            "initial_number_items": 7,
            "initial_size": 2**40,
            "items_cold": packed(3, 3, 300, 70_000),
            "items_hot": packed(5),
        },
    },
}


@pytest.mark.spec("prpc:4.1.1", "prpc:4.1.2", "prpc:4.1.3", "prpc:4.1.4", "prpc:4.1.5")
@pytest.mark.spec("prpc:4.1.6", "prpc:4.4.25", "prpc:6.2.p1", "prpc:4.4.16", "prpc:4.4.26")
def test_statistics_come_when_they_are_asked_for(tasks):
    end = STATS | {
        "cas_output_root": {"cas_instance": "projects/p/instances/i", "digest": DIGEST},
        "cipd_pins": {"packages": [{"package_name": "p", "version": "v", "path": "x"}]},
        "cost_usd": 0.5,
    }
    run_id, bot = tasks.claimed()
    bot.task_update(run_id, exit_code=0, duration=1.0, **end)
    assert bot.status == 200, bot.text
    plain = tasks.result(run_id)
    assert "performanceStats" not in plain
    assert plain["casOutputRoot"] == {
        "casInstance": "projects/p/instances/i",
        "digest": {"hash": "a" * 64, "sizeBytes": "12"},
    }
    assert plain["cipdPins"] == {"packages": [{"packageName": "p", "version": "v", "path": "x"}]}
    assert plain["costsUsd"] == [0.5]
    stats = tasks.result(run_id, includePerformanceStats=True)["performanceStats"]
    assert stats == {
        "botOverhead": 2.5,
        "packageInstallation": {"duration": 0.25},
        "cacheTrim": {"duration": 0.125},
        "namedCachesInstall": {"duration": 1.5},
        "namedCachesUninstall": {"duration": 3.0},
        "cleanup": {"duration": 0.5},
        "isolatedDownload": {
            "duration": 4.0,
            "initialNumberItems": 7,
            "initialSize": str(2**40),
            "itemsCold": packed(3, 3, 300, 70_000),
            "itemsHot": packed(5),
            "numItemsCold": "4",
            "totalBytesItemsCold": "70306",
            "numItemsHot": "1",
            "totalBytesItemsHot": "5",
        },
    }


@pytest.mark.spec("prpc:6.2.p1", "prpc:4.4.25", "prpc:4.4.21", "prpc:9.1.14")
def test_missing_statistics_are_no_error_and_no_cost_is_no_entry(tasks):
    reply = tasks.result(tasks.finished(), includePerformanceStats=True)
    assert present(reply, "performanceStats", "costsUsd", "costSavedUsd", "dedupedFrom") == set()


@pytest.fixture
def deduped(tasks, clock):
    """A task that took over the result of another."""
    run_id, bot = tasks.claimed(one_slice(idempotent=True))
    clock.advance(1)
    bot.task_update(run_id, b"once", exit_code=0, duration=1.0, bot_overhead=1.5, cost_usd=0.25)
    clock.advance(1)
    return tasks.made(one_slice(idempotent=True)), run_id


@pytest.mark.spec("prpc:4.5.7", "prpc:4.4.8", "prpc:4.4.10", "prpc:4.4.27", "prpc:2.1.p1")
def test_deduplicated_task_tells_of_the_originals_run(tasks, deduped):
    task_id, run_id = deduped
    reply = tasks.result(task_id, includePerformanceStats=True)
    original = tasks.result(run_id)
    check_presence(reply, *RUN, "completedTs", "duration")
    assert (reply["runId"], reply["dedupedFrom"]) == (run_id, run_id)
    for name in ("botId", "startedTs", "completedTs", "duration", "botDimensions"):
        assert reply[name] == original[name]
    assert (reply["costSavedUsd"], "costsUsd" in reply) == (0.25, False)
    assert reply["performanceStats"] == {"botOverhead": 1.5}
    assert reply["state"] == "COMPLETED"
    assert reply["createdTs"] > reply["completedTs"]


@pytest.mark.spec("prpc:6.1.p1", "prpc:9.1.11")
def test_new_task_that_is_deduplicated_tells_the_result_at_once(tasks, swarming, deduped):
    body = new_task(one_slice(idempotent=True))
    made = swarming.json("NewTask", body).reply
    assert made["taskResult"] == tasks.result(made["taskId"])
    assert made["taskResult"]["dedupedFrom"] == deduped[1]


@pytest.mark.spec("prpc:4.p1")
def test_statistics_are_of_tasks_whose_end_a_bot_reported(tasks):
    run_id, bot = tasks.claimed()
    bot.task_update(run_id, canceled=True, bot_overhead=1.0, duration=1.0, exit_code=0)
    reply = tasks.result(run_id, includePerformanceStats=True)
    assert (reply["state"], "performanceStats" in reply) == ("CANCELED", False)


BAD_IDS = ["0", "76D00EBA71BEEF10", "xyz", "1" * 18, "fffffffffffffff10", "76d00eba71beef1 "]


@pytest.mark.spec("prpc:2.1.1.1", "prpc:2.1.1.2", "prpc:2.1.1.3", "prpc:6.4.p1", "prpc:6.5.p1")
@pytest.mark.parametrize("method", ["GetResult", "GetRequest", "CancelTask", "GetStdout"])
def test_id_that_names_no_task_is_refused(swarming, method):
    assert swarming(method).code == 3
    for task_id in BAD_IDS:
        assert swarming(method, {"taskId": task_id}).code == 3, task_id
    assert swarming(method, {"taskId": "76d00eba71beef10"}).refused == (5, "no such task")


@pytest.mark.spec("prpc:2.1.p1", "prpc:6.2.p1", "prpc:6.4.p1", "prpc:8.1.2.9", "prpc:6.p1")
@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("GetResult", Role.BOOTSTRAP),
        ("GetRequest", Role.BOOTSTRAP),
        ("GetStdout", None),
        ("CancelTask", Role.VIEWER),
    ],
)
def test_unknown_task_is_told_before_the_permission_is_asked(tasks, parts, method, wrong):
    task_id = tasks.made()
    for stranger in (caller(wrong), caller(Role.ADMIN, "other")):
        with pytest.raises(Refusal) as unknown:
            direct(parts, stranger, method, {"taskId": "76d00eba71beef10"})
        assert unknown.value.code is Code.NOT_FOUND
        with pytest.raises(Refusal) as denied:
            direct(parts, stranger, method, {"taskId": task_id})
        assert denied.value.code is Code.PERMISSION_DENIED
        assert task_id in denied.value.message
        assert "default" not in denied.value.message
    assert direct(parts, caller(Role.OPERATOR, "default"), method, {"taskId": task_id})


@pytest.mark.spec("prpc:6.3.p1", "prpc:2.6.1.5", "prpc:9.1.12", "11.4.1.3")
def test_batch_answers_in_order_and_echoes_ids_as_asked(tasks, swarming):
    done, waiting = tasks.finished(), tasks.made()
    unknown = "76d00eba71beef1a"
    asked = [waiting[:-1] + "7", unknown, done]
    results = swarming("BatchGetResult", {"taskIds": asked}).reply["results"]
    assert [each["taskId"] for each in results] == asked
    assert results[1] == {"taskId": unknown, "error": {"code": 5, "message": "no such task"}}
    assert results[0]["result"] == tasks.result(waiting)
    assert results[2]["result"]["state"] == "COMPLETED"


@pytest.mark.spec("prpc:6.3.p1")
def test_batch_gives_statistics_when_asked(tasks, swarming):
    task_id = tasks.finished(end={"bot_overhead": 2.0})
    body = {"taskIds": [task_id], "includePerformanceStats": True}
    (found,) = swarming("BatchGetResult", body).reply["results"]
    assert found["result"]["performanceStats"] == {"botOverhead": 2.0}


@pytest.mark.spec("prpc:6.3.p1", "prpc:6.10.p1", "prpc:9.1.12", "11.4.1.3", "11.4.1.10")
@pytest.mark.parametrize(
    ("method", "field"), [("BatchGetResult", "taskIds"), ("ListTaskStates", "taskId")]
)
def test_bad_list_of_ids_fails_the_whole_call(swarming, method, field):
    good = "76d00eba71beef10"
    for ids in (
        [],
        [""],
        [good, "nonsense"],
        [good, good],
        [good, good[:-1] + "1"],
        [f"76d00eba{number:07x}10" for number in range(1001)],
    ):
        assert swarming(method, {field: ids}).code == 3, ids[:3]


@pytest.mark.slow
@pytest.mark.spec("prpc:6.3.p1", "11.4.1.3")
def test_batch_takes_a_thousand(swarming):
    ids = [f"76d00eba{number:07x}10" for number in range(1000)]
    results = swarming("BatchGetResult", {"taskIds": ids}).reply["results"]
    assert [each["taskId"] for each in results] == ids


@pytest.mark.spec("prpc:6.3.p1")
def test_batch_tells_of_forbidden_tasks_and_of_a_failing_store_one_by_one(
    tasks, parts, monkeypatch
):
    task_id = tasks.made()
    body = {"taskIds": [task_id, "76d00eba71beef10"]}
    found = direct(parts, caller(), "BatchGetResult", body).results
    assert [each.error.code for each in found] == [7, 5]

    def fail(*_):
        raise Outage("the disk is gone")

    monkeypatch.setattr(parts.store, "get", fail)
    found = direct(parts, ADMIN, "BatchGetResult", body).results
    assert [(each.task_id, each.error.code) for each in found] == [
        (task_id, 13),
        ("76d00eba71beef10", 13),
    ]
    assert "disk" not in found[0].error.message


@pytest.mark.spec("prpc:6.10.p1", "prpc:2.6.1.5", "11.4.1.10")
def test_states_come_in_the_order_asked(tasks, swarming):
    ids = [tasks.finished(), tasks.made(), tasks.canceled()]
    reply = swarming("ListTaskStates", {"taskId": ids[::-1]}).reply
    assert reply == {"states": ["CANCELED", "PENDING", "COMPLETED"]}


@pytest.mark.spec("prpc:6.10.p1", "11.4.1.10")
def test_first_state_that_fails_fails_the_call(tasks, swarming, parts):
    task_id = tasks.made()
    unknown = "76d00eba71beef11"
    body = {"taskId": [task_id, unknown]}
    assert swarming("ListTaskStates", body).refused == (5, f"{unknown}: no such task")
    with pytest.raises(Refusal) as denied:
        direct(parts, caller(), "ListTaskStates", body)
    assert denied.value.code is Code.PERMISSION_DENIED
    assert denied.value.message.startswith(f"{task_id}: ")


@pytest.mark.spec("prpc:6.5.p1", "11.4.1.5")
def test_cancel_tells_what_it_did_and_may_be_repeated(tasks, swarming):
    pending = tasks.made()
    assert swarming.json("CancelTask", {"taskId": pending}).reply == {"canceled": True}
    assert swarming("CancelTask", {"taskId": pending}).reply == {}
    run_id, _ = tasks.claimed()
    assert swarming("CancelTask", {"taskId": run_id}).reply == {"wasRunning": True}
    kill = {"taskId": run_id, "killRunning": True}
    assert swarming.json("CancelTask", kill).reply == {"canceled": True, "wasRunning": True}
    assert swarming("CancelTask", kill).reply == {"wasRunning": True}
    assert tasks.stored(run_id).killing
