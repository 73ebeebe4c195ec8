"""The pages in a real browser: sign in, watch output grow, stop the task with a reason."""

import os
import re
import threading
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from botapi import app as composition
from botapi.clock import SystemClock, SystemRng

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PICTURES = os.environ.get("SKEP_TEST_PICTURES", "")
"""A folder to keep screenshots in."""


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
def rng():
    return SystemRng()


@pytest.fixture
def url(parts):
    """The application behind a real socket."""
    server = make_server("127.0.0.1", 0, composition.create_app(parts), threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    parts.release()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(url):
    if not CHROMIUM.exists():
        line = "no browser: apt-get install chromium"
        pytest.fail(line) if os.environ.get("CI") == "true" else pytest.skip(line)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=ARGUMENTS, headless=True
        )
        page = browser.new_page(base_url=url, viewport={"width": 1200, "height": 900})
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def picture(page, name):
    for scheme in ("light", "dark") if PICTURES else ():
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=f"{PICTURES}/{name}-{scheme}.png")


@pytest.mark.e2e
@pytest.mark.slow
def test_a_person_watches_a_task_and_stops_it(page, admin, make_bot):
    complaints = []
    page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    bot = make_bot("vm1", dims={"gpu": ["none"], "cpu": ["x86-64"]}).start()
    sick = make_bot("vm2")
    sick.state["quarantined"] = "no disk: 1.1 GB free, needs 2 GB"
    sick.handshake()
    sick.poll()
    make_bot("vm3", version="f" * 64).handshake()
    admin.submit("/bin/true", name="waiting", dimensions={"id": ["vm2"]}, tags=["build:7"])
    task_id = admin.submit("make", "-j4", "test", name="unit tests", tags=["build:7"])["task_id"]
    run_id = bot.claim(bot.update()["lease"])["task_id"]
    bot.task_update(run_id, b"\x1b[32mstep 1\x1b[0m of <b>many</b>\n")

    page.goto(f"/tasks/{task_id}")
    page.wait_for_url(re.compile(r"/signin\?next="))
    picture(page, "signin")
    page.get_by_label("API key").fill(admin.key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**/tasks/{task_id}")

    output = page.locator("#output")
    assert output.text_content() == "step 1 of <b>many</b>\n"
    offset = len(b"\x1b[32mstep 1\x1b[0m of <b>many</b>\n")
    for step in range(2, 5):
        line = f"step {step} <img src=x onerror=alert(1)>\n".encode()
        bot.task_update(run_id, line, offset)
        offset += len(line)
        output.filter(has_text=f"step {step} <img").wait_for()
    assert page.locator("#output img").count() == 0
    picture(page, "task")

    page.get_by_label("Reason").fill("takes too long")
    page.get_by_role("button", name="Kill the running task").click()
    page.get_by_text("The bot has been told to stop the task.").wait_for()
    assert bot.task_update(run_id, b"bye\n", offset)["must_stop"] is True
    bot.finish(run_id, offset=offset + 4, exit_code=-15)
    page.get_by_text("KILLED: refresh to see how it ended").wait_for()
    assert "bye" in output.text_content()
    page.get_by_role("link", name="refresh").click()
    page.get_by_text("Killed with exit code -15 on vm1").wait_for()

    for path, name in (("/bots", "bots"), ("/bots/vm1", "bot"), ("/tasks", "tasks")):
        page.goto(path)
        picture(page, name)
    page.goto("/audit")
    row = page.get_by_role("row").filter(has_text="task.kill")
    assert "takes too long" in row.text_content()
    picture(page, "audit")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/signin")
    assert complaints == []
