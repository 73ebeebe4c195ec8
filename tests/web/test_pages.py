"""The pages with JavaScript off: what they show, and that they show it harmlessly."""

import html
import re
from dataclasses import replace

import pytest

from botapi import app as composition
from botapi.concurrency import Threads
from botapi.store.protocol import Outage
from botapi.web import pages

XSS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{7*7}}",
    "</pre><script>alert(1)</script>",
    "javascript:alert(1)",
    "<!--",
    "&lt;b&gt;",
]


def text_of(reply):
    """The page as a reader sees it."""
    assert reply.status_code == 200, reply.text
    main = reply.text.partition("<main")[2]
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", main)))


@pytest.fixture
def running(admin, ready_bot):
    task_id = admin.submit("make", "test", name="unit tests")["task_id"]
    run_id = ready_bot.claim(ready_bot.update()["lease"])["task_id"]
    return task_id, run_id, ready_bot


def test_home_leads_to_the_fleet(browser):
    reply = browser.get("/")
    assert (reply.status_code, reply.headers["Location"]) == (303, "/bots")


def test_empty_pages_say_what_to_do(browser):
    assert "skep bootstrap new" in text_of(browser.get("/bots"))
    assert "skep run -- echo hello" in text_of(browser.get("/tasks"))
    assert "Nobody has changed anything yet." in text_of(browser.get("/audit"))
    assert "No task matches." in text_of(browser.get("/tasks?state=final"))
    assert "No bot matches." in text_of(browser.get("/bots?dimension=os:BeOS"))


def test_bots_page_shows_status_with_its_reason_and_counts(browser, make_bot, clock):
    make_bot("vm1").start()
    sick = make_bot("vm2", version="f" * 64)
    sick.state["quarantined"] = "no disk"
    sick.handshake()
    sick.poll()
    clock.advance(125)
    text = text_of(browser.get("/bots"))
    assert "2 all 0 ▶ busy 1 ○ idle" in text
    assert "1 ⚠ quarantined" in text
    assert re.search(r"vm2 ⚠ quarantined no disk . Linux default \w+ ↻ not current 2 min 5 s", text)
    assert "vm1" not in text_of(browser.get("/bots?status=quarantined"))
    assert "vm1" in text_of(browser.get("/bots?dimension=os:Linux&dimension=&status="))


@pytest.mark.parametrize("query", ["q=ip:*", "at=2026-03-04T06:06:07.089Z"])
def test_bots_page_leaves_out_counts_that_nobody_knows(browser, make_bot, query):
    make_bot("vm1").start()
    text = text_of(browser.get(f"/bots?{query}"))
    assert "vm1" in text
    assert " all 0" not in text
    assert "No bot matches." in text_of(browser.get(f"/bots?{query}&dimension=os:BeOS"))


def test_bots_page_has_the_next_page(browser, make_bot):
    for n in range(3):
        make_bot(f"vm{n}").start()
    first = browser.get("/bots?limit=2&dimension=os:Linux")
    (link,) = re.findall(r'href="([^"]*)" rel="next"', first.text)
    second = browser.get(html.unescape(link))
    assert "vm2" in text_of(second)
    assert "first page" in text_of(second)
    assert "vm0" not in text_of(second)


def test_bot_page(browser, make_bot, admin, clock):
    bot = make_bot("vm1", dims={"gpu": ["a", "b"]})
    bot.state["disk"] = {"free": 3}
    bot.start()
    clock.advance(1)
    bot.call("/event", event="bot_error", message="two\nlines", request_uuid="u1")
    text = text_of(browser.get("/bots/vm1"))
    assert "○ Idle." in text
    assert "gpu a , b bot" in text
    assert "pool default config" in text
    assert '"free": 3' in text
    assert text.index("bot_error") < text.index("bot_connected")
    (link,) = re.findall(r'href="([^"]*)" rel="next"', browser.get("/bots/vm1?limit=1").text)
    text = text_of(browser.get(html.unescape(link)))
    assert "first page" in text
    assert "bot_error" not in text


def test_tasks_page(browser, admin, running, clock):
    clock.advance(1)
    admin.submit("waiting", tags=["build:7"])
    text = text_of(browser.get("/tasks"))
    assert re.search(r"waiting … pending .* unit tests ▶ running vm1 1 s ago 0 s", text)
    assert "unit tests" not in text_of(browser.get("/tasks?state=pending&tag=build:7"))
    assert "waiting" not in text_of(browser.get("/tasks?bot=vm1"))


def test_task_page_tells_why_it_is_pending(browser, admin, ready_bot, clock):
    task_id = admin.submit("x", env={"A": "b"}, relative_cwd="sub")["task_id"]
    clock.advance(61)
    text = text_of(browser.get(f"/tasks/{task_id}"))
    assert "… Pending for 1 min 1 s." in text
    assert "Why pending: 1 bot matches: 1 idle" in text
    assert "A=b" in text
    assert "Cancel the task" in text


def test_task_page_through_its_life(browser, admin, running, clock):
    task_id, run_id, bot = running
    clock.advance(5)
    bot.task_update(run_id, b"line 1\n")
    page = browser.get(f"/tasks/{task_id}")
    text = text_of(page)
    assert "▶ Running on vm1 for 5 s." in text
    assert "Kill the running task" in text
    assert "line 1" in text
    assert re.search(r'<script src="/static/live\.[0-9a-f]+\.js" defer></script>', page.text)
    assert f'data-url="/tasks/{task_id}/output" data-offset="7" data-state="RUNNING"' in page.text
    bot.finish(run_id, offset=7, exit_code=2)
    page = browser.get(f"/tasks/{task_id}")
    assert "✗ Completed with exit code 2 on vm1 after 0.1 s." in text_of(page)
    assert "Cause user" in text_of(page)
    assert "<script" not in page.text
    assert "/cancel" not in page.text


def test_killing_from_the_page(browser, admin, running):
    task_id, _, _ = running
    token = browser.token(f"/tasks/{task_id}")
    form = {"reason": "hangs", "kill_running": "1", "form_token": token}
    reply = browser.send(f"/tasks/{task_id}/cancel", form)
    assert reply.headers["Location"] == f"/tasks/{task_id}?done=killing"
    text = text_of(browser.get(reply.headers["Location"]))
    assert "The bot has been told to stop the task." in text
    assert "Being stopped on vm1" in text
    assert "/cancel" not in browser.get(f"/tasks/{task_id}").text
    again = browser.send(f"/tasks/{task_id}/cancel", form)
    assert again.headers["Location"].endswith("?done=unchanged")
    audit = text_of(browser.get("/audit"))
    assert f"alice task.kill task {task_id} hangs RUNNING RUNNING" in audit


def test_output_is_shown_by_windows(browser, admin, running, monkeypatch):
    monkeypatch.setattr(pages, "WINDOW_BYTES", 10)
    task_id, run_id, bot = running
    bot.finish(run_id, b"0123456789abcdefghijKLMNO")
    page = browser.get(f"/tasks/{task_id}")
    assert re.search(r'id="output"[^>]*>\nfghijKLMNO</pre>', page.text)
    assert f'href="/tasks/{task_id}?from=5">« load earlier' in page.text
    page = browser.get(f"/tasks/{task_id}?from=5")
    assert re.search(r'id="output"[^>]*>\n56789abcde</pre>', page.text)
    assert f'href="/tasks/{task_id}?from=0">« load earlier' in page.text
    assert f'href="/tasks/{task_id}?from=15">load later' in page.text
    page = browser.get(f"/tasks/{task_id}?from=0")
    assert "load earlier" not in page.text


def test_output_for_the_script(browser, running):
    task_id, run_id, bot = running
    bot.task_update(run_id, "a\x1b[31mred\x1b[0m é".encode()[:-1])
    reply = browser.get(f"/tasks/{task_id}/output?offset=0&wait=20")
    assert reply.content_type == "text/plain; charset=utf-8"
    assert reply.text == "ared "
    assert (reply.headers["X-Skep-Next-Offset"], reply.headers["X-Skep-Final"]) == ("14", "0")
    bot.finish(run_id, "é\0".encode()[1:], 15)
    reply = browser.get(f"/tasks/{task_id}/output?offset=14")
    assert reply.text == "é␀"
    assert (reply.headers["X-Skep-Next-Offset"], reply.headers["X-Skep-Final"]) == ("17", "1")
    assert reply.headers["X-Skep-Task-State"] == "COMPLETED"


def test_output_for_the_script_needs_a_session(stranger, running):
    assert stranger.get(f"/tasks/{running[0]}/output").status_code == 401


@pytest.mark.control("people.xss")
@pytest.mark.parametrize("evil", XSS)
def test_nothing_that_others_wrote_is_code(browser, admin, make_bot, evil):
    bot_id = evil.replace(":", ";")
    bot = make_bot(bot_id, dims={"x": [evil]})
    bot.session_id = "s/1"
    bot.state[evil] = evil
    bot.start()
    bot.call("/event", event="bot_error", message=evil, request_uuid="u1")
    made = admin.submit(
        evil, evil, name=evil, user=evil, tags=[f"k:{evil}"], env={"A": evil},
        dimensions={"x": [evil]},
    )  # fmt: skip
    lease = bot.update()["lease"]
    run_id = bot.claim(lease)["task_id"]
    bot.task_update(run_id, evil.encode())
    task_id = made["task_id"]
    reply = admin.post(f"/tasks/{task_id}/cancel", {"kill_running": True, "reason": evil})
    assert reply.json["canceled"]
    seen = ""
    (bot_path,) = set(re.findall(r'href="(/bots/[^"]+)">', browser.get("/bots").text))
    for path in ("/bots", bot_path, "/tasks", f"/tasks/{task_id}", "/audit"):
        page = browser.get(path)
        assert page.status_code == 200, (path, page.text)
        body = page.text.partition("<main")[2]
        seen += body
        assert not re.search(r"<script|<img|<!--|\bon\w+=[^&]*>", body.replace("&#", "")), path
        if evil not in html.escape(evil):
            assert evil not in body, path
    assert html.escape(evil) in seen.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    reply = browser.get(f"/tasks/{task_id}/output")
    assert reply.content_type == "text/plain; charset=utf-8"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/bots/nobody", 404),
        ("/tasks/zz", 404),
        ("/tasks/zz/output", 404),
        ("/bots?status=sick", 400),
        ("/bots?dimension=x", 400),
        ("/tasks?cursor=x", 400),
        ("/tasks?what=x", 400),
    ],
)
def test_errors_are_one_clear_line(browser, path, status):
    reply = browser.get(path)
    assert reply.status_code == status
    assert reply.text.count('class="notice bad"') == 1
    assert "Sign out" in reply.text
    assert "Traceback" not in reply.text


def test_store_that_is_away_is_a_page_of_its_own(browser, parts, monkeypatch):
    def away(*_args, **_more):
        raise Outage("disk full")

    monkeypatch.setattr(parts.store, "find", away)
    reply = browser.get("/tasks")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")


def test_mistake_of_ours_shows_the_request_id_only(browser, parts, monkeypatch, caplog):
    def broken(*_args, **_more):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(parts.store, "find", broken)
    reply = browser.get("/tasks")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.headers["X-Request-Id"] in reply.text
    assert "secret detail" in caplog.text


def test_anybody_sees_pages_without_forms_where_reading_is_free(
    settings, store, clock, rng, admin, running
):
    settings = replace(settings, anonymous_read=True)
    parts = composition.build(settings, store, Threads(), clock, rng)
    client = composition.create_app(parts).test_client()
    task_id = running[0]
    for path in ("/bots", "/bots/vm1", "/tasks", f"/tasks/{task_id}"):
        page = client.get(path)
        assert page.status_code == 200
        assert 'method="post"' not in page.text
        assert 'href="/signin"' in page.text
        assert 'href="/audit"' not in page.text
    assert client.get("/audit").headers["Location"] == "/signin?next=%2Faudit"
    reply = client.post(f"/tasks/{task_id}/cancel", data={"reason": "x"})
    assert reply.status_code == 403
    parts.release()
