"""Archives and configuration: what bots are told when they change, and who may download."""

import socket
import threading
import zipfile
from dataclasses import replace
from io import BytesIO

import pytest
from werkzeug.serving import make_server

from botapi import app as composition
from botapi.domain.errors import Code, Refusal
from botapi.domain.rollout import with_canary
from botapi.store import codec
from botapi.transactions.change_deployment import Author, change_deployment
from botapi.transactions.push_config import push_config
from tests.factories import bots_cfg
from tests.fakes.issuer import MachineSigner
from tests.fakes.person import new_key
from tests.fakes.sim_bot import BOT_PATH
from tests.handlers.conftest import write_bot
from tests.handlers.test_life_of_a_bot import events_of, stored_bot
from tests.handlers.test_refusals import bootstrap_token, nothing_changes

KNOWN = "f" * 64


@pytest.fixture
def version(parts):
    return parts.archives.archive("http://localhost").version


def push(parts, text, **scripts):
    head = parts.config.latest()
    source = bots_cfg(text, **scripts)
    push_config(parts.store, source, parent=head.digest, author="t", now_ms=parts.clock.now_ms())


def cfg(more="", dims='dimensions: "pool:default"', auth='auth { ip_whitelist: "loopback" }'):
    return f'trusted_dimensions: "pool"\nbot_group {{ {auth} {dims} {more} }}\n'


def last_event(parts):
    (doc,) = parts.store.scan(codec.EVENT, "", "\U0010ffff", limit=1)
    return codec.read_event(doc)


def test_changed_dimensions_of_the_group_restart_the_bot(parts, bot):
    push(parts, cfg(dims='dimensions: "pool:default" dimensions: "zone:eu"'))
    reply = bot.poll()
    assert (reply["cmd"], reply["message"]) == ("bot_restart", "new bots.cfg config")
    assert reply["session"]
    assert events_of(parts)[-1] == "request_restart"
    bot.session_id = "next/2"
    assert bot.handshake()["bot_group_cfg"] == {"dimensions": {"pool": ["default"], "zone": ["eu"]}}
    assert bot.poll()["cmd"] == "rbe"
    assert "zone:eu" in stored_bot(parts).dimensions


def test_changed_credentials_take_effect_at_the_next_poll_without_a_restart(parts, bot):
    push(parts, cfg(auth='auth { ip_whitelist: "nobody" }'))
    bot.call("/event", event="bot_log")
    assert bot.status == 200, "the session carries the rules it was made with"
    with nothing_changes(parts.store):
        bot.poll()
    assert bot.status == 401
    assert 'there is no address list "nobody"' in bot.text


def test_bot_is_never_believed_about_what_its_group_sets_or_trusts(parts, bot):
    push(
        parts, 'trusted_dimensions: "pool"\ntrusted_dimensions: "rack"\n' + cfg().split("\n", 1)[1]
    )
    bot.dims |= {"pool": ["secret"], "rack": ["r1"], "free": ["x"]}
    bot.poll()
    assert stored_bot(parts).dimensions == ("free:x", "id:vm1", "os:Linux", "pool:default")


@pytest.mark.spec("3.2.1.1", "8.6.1.1")
def test_new_archive_is_an_update_even_for_a_bot_without_a_session(parts, clock, bot, bot_archive):
    write_bot(bot_archive, **{"__main__.py": "print(2)\n"})
    clock.advance(2)
    parts.sweeps.look()
    bot.session = None
    reply = bot.poll()
    new = parts.archives.archive("http://localhost").version
    assert reply == {"cmd": "update", "version": new, "skep": reply["skep"]}
    assert new != bot.version
    assert events_of(parts)[-1] == "request_update"


def test_new_archive_is_told_to_a_quarantined_bot_too(parts, clock, bot, bot_archive):
    write_bot(bot_archive, **{"__main__.py": "print(2)\n"})
    clock.advance(2)
    parts.sweeps.look()
    assert bot.poll(state={"quarantined": "no disk"})["cmd"] == "update"


def test_bot_of_a_keep_group_is_never_updated(parts, make_bot):
    push(parts, cfg(more='bot_archive: "keep"'))
    bot = make_bot(version=KNOWN)
    bot.handshake()
    for _ in range(2):
        assert bot.poll()["cmd"] == "rbe"
    note = 'keeps an archive of its own: its group says bot_archive: "keep"'
    assert stored_bot(parts).note == note
    event = last_event(parts)
    assert (event.kind, event.message) == ("bot_polling", note)
    assert len(events_of(parts)) == 2


def test_foreign_bot_is_never_updated_and_says_so_once(parts, make_bot):
    bot = make_bot(ours=False, version=KNOWN)
    bot.handshake()
    for _ in range(3):
        assert bot.poll()["cmd"] == "rbe"
    assert "runs an archive this server never made" in stored_bot(parts).note
    assert last_event(parts).message == stored_bot(parts).note
    assert events_of(parts) == ["bot_connected", "bot_polling"]


@pytest.mark.spec("8.3.p1")
def test_handshake_names_the_version_of_the_bots_channel_and_bot_code_always_stable(
    parts, client, make_bot, bot_archive, version
):
    """The channel of vm2-m1 is 5, that of vm1-m1 is 95 (Appendix B)."""
    stable = parts.archives.channels().stable
    write_bot(bot_archive, **{"__main__.py": "print(2)\n"})
    parts.clock.advance(2)
    parts.archives.look()
    new = parts.archives.channels().stable
    change_deployment(
        parts.store,
        lambda d: with_canary(replace(d, stable=stable), new, 10),
        Author("t", "", "", "", 0, "canary"),
    )
    canary = parts.archives.version(new, "http://localhost")
    assert make_bot("vm2-m1").handshake()["bot_version"] == canary != version
    assert make_bot("vm1-m1").handshake()["bot_version"] == version
    response = client.get("/bot_code?bot_id=vm2-m1")
    assert response.headers["Location"].endswith(version)
    for known in (canary, version):
        assert client.get(f"{BOT_PATH}/bot_code/{known}").status_code == 200


def test_version_that_no_bot_is_to_run_any_more_is_not_given_out(
    parts, client, bot_archive, clock, version
):
    for number in range(2):
        write_bot(bot_archive, **{"__main__.py": f"print({number + 5})\n"})
        clock.advance(2)
        parts.archives.look()
    response = client.get(f"{BOT_PATH}/bot_code/{version}?bot_id=vm1")
    assert response.status_code == 302
    assert not response.headers["Location"].endswith(version)


def test_foreign_bot_with_a_pin_is_given_the_archive_that_it_names(parts, make_bot, version):
    release = parts.archives.channels().stable
    push(parts, cfg(more=f'bot_archive_pin: "{release}"'))
    bot = make_bot(ours=False, version=KNOWN)
    bot.handshake()
    assert (bot.poll()["cmd"], bot.poll()["version"]) == ("update", version)


def test_bot_of_ours_with_an_old_version_is_updated(parts, make_bot, version):
    bot = make_bot(version=KNOWN)
    bot.handshake()
    reply = bot.poll()
    assert (reply["cmd"], reply["version"]) == ("update", version)


@pytest.mark.spec("8.4.1.1")
def test_known_version_is_for_anybody_who_knows_it(client, version):
    response = client.get(f"{BOT_PATH}/bot_code/{version}")
    assert response.status_code == 200
    assert {
        name: response.headers[name]
        for name in (
            "Cache-Control",
            "Content-Type",
            "Content-Disposition",
            "X-Skep-Archive-Version",
        )
    } == {
        "Cache-Control": "public, max-age=3600, immutable",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": 'attachment; filename="swarming_bot.zip"',
        "X-Skep-Archive-Version": version,
    }
    assert zipfile.ZipFile(BytesIO(response.data)).read("__main__.py") == b"print(1)\n"


@pytest.mark.spec("8.4.1.1")
def test_known_version_is_not_sent_again_to_who_has_it(client, version):
    path = f"{BOT_PATH}/bot_code/{version}"
    response = client.get(path)
    assert response.headers["ETag"] == f'"{version}"'
    for shown in (f'"{version}"', f'W/"{version}"', f'"x", "{version}"', "*"):
        again = client.get(path, headers={"If-None-Match": shown})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == f'"{version}"'
        assert "immutable" in again.headers["Cache-Control"]
    other = client.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.data) == (200, response.data)


@pytest.mark.spec("8.4.1.2")
def test_known_version_with_a_query_is_sent_to_the_address_without_it(client, version):
    response = client.get(f"{BOT_PATH}/bot_code/{version}?x=1")
    assert (response.status_code, response.headers["Location"]) == (
        302,
        f"{BOT_PATH}/bot_code/{version}",
    )


@pytest.mark.parametrize(
    "path", ["/bot_code", f"{BOT_PATH}/bot_code", f"{BOT_PATH}/bot_code/{KNOWN}"]
)
@pytest.mark.spec("8.4.1.4", "8.4.2.2")
def test_bot_that_may_is_sent_to_the_version_in_force(client, version, path):
    for url, headers in [
        (path + "?bot_id=vm1", {}),
        (path, {"X-Luci-Swarming-Bot-ID": "vm1"}),
    ]:
        response = client.get(url, headers=headers)
        assert (response.status_code, response.headers["Location"]) == (
            302,
            f"{BOT_PATH}/bot_code/{version}",
        )
        assert "Content-Type" not in response.headers
        assert response.data == b""


@pytest.mark.spec("8.4.2.3", "8.4.2.5")
def test_who_may_create_bots_is_sent_to_the_version_in_force(parts, client, clock, rng, version):
    push(parts, cfg(auth="auth { require_enrolled_secret: true }"))
    key = new_key(parts.store, clock, rng)
    for query in ("", "?bot_id=vm1"):
        headers = {"Authorization": f"Bearer {key}"}
        response = client.get(f"/bot_code{query}", headers=headers)
        location = f"{BOT_PATH}/bot_code/{version}"
        assert (response.status_code, response.headers["Location"]) == (302, location)
        response = client.get(f"/bot_code{query}", headers={"Authorization": f"Bearer {key}x"})
        assert response.status_code == 403


@pytest.mark.spec("8.4.2.2")
def test_machine_token_says_which_bot_asks(parts, client, version):
    auth = "auth { require_luci_machine_token: true }"
    head = parts.config.latest()
    signer = MachineSigner()
    pem = signer.pem.replace("\n", "\\n")
    keys = f'machine_token_signer {{ key_id: "ts" public_key: "{pem}" }}'
    source = replace(bots_cfg(cfg(auth=auth)), settings=keys)
    push_config(parts.store, source, parent=head.digest, author="t", now_ms=1)
    now_s = parts.clock.now_ms() // 1000
    headers = {"X-Luci-Machine-Token": signer.token("vm1.example.com", issued_at=now_s)}
    response = client.get("/bot_code", headers=headers)
    location = f"{BOT_PATH}/bot_code/{version}"
    assert (response.status_code, response.headers.get("Location")) == (302, location)
    bad = {"X-Luci-Machine-Token": "bad"}
    assert client.get("/bot_code", headers=bad).status_code == 403


@pytest.mark.spec("8.4.1.3")
def test_access_that_cannot_be_checked_now_is_no_refusal(parts, client, monkeypatch):
    def fail(*_args):
        raise Refusal(Code.INTERNAL, "the keys of the issuer are away")

    monkeypatch.setattr(type(parts.bots), "authorize", fail)
    response = client.get("/bot_code?bot_id=vm1")
    assert (response.status_code, "keys of the issuer" in response.text) == (500, True)


def test_server_without_any_archive_says_so_and_is_asked_again(parts, client, bot_archive):
    bot_archive.unlink()
    response = client.get("/bot_code?bot_id=vm1")
    assert (response.status_code, "there is no such folder" in response.text) == (503, True)


@pytest.mark.parametrize("path", ["/bot_code", f"{BOT_PATH}/bot_code/{KNOWN}"])
@pytest.mark.spec("8.4.1.3", "8.4.2.1", "8.4.2.5")
def test_nobody_else_is_told_the_version(parts, client, version, path):
    push(parts, cfg(auth="auth { require_enrolled_secret: true }"))
    for url, text in [
        (path, "give a bootstrap token"),
        (path + "?bot_id=vm1", "X-Skep-Bot-Secret is missing"),
        (path + "?tok=", "the bootstrap token is not valid"),
        (path + "?tok=nonsense&bot_id=vm1", "the bootstrap token is not valid"),
    ]:
        response = client.get(url)
        assert response.status_code == 403
        assert text in response.text
        assert version not in response.text


@pytest.mark.spec("8.4.2.1")
def test_bootstrap_token_leads_to_an_archive_with_the_token_inside(parts, client, version):
    token, _ = bootstrap_token(parts)
    response = client.get(f"/bot_code?tok={token}")
    location = f"/skep/v1/bot_code/{version}?tok={token}"
    assert (response.status_code, response.headers["Location"]) == (302, location)
    assert response.headers["X-Skep-Archive-Version"] == version
    response = client.get(location)
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    assert response.headers["X-Skep-Archive-Version"] == version
    assert zipfile.ZipFile(BytesIO(response.data)).comment == token.encode()
    response = client.get(f"/skep/v1/bot_code/{KNOWN}?tok={token}")
    assert (response.status_code, response.headers["Location"]) == (302, location)


@pytest.mark.parametrize("path", ["/bot_code", "/bootstrap", f"/skep/v1/bot_code/{KNOWN}"])
@pytest.mark.spec("8.4.2.1", "8.5.1.4")
def test_bad_bootstrap_token_is_refused_everywhere(parts, client, clock, path):
    expired, _ = bootstrap_token(parts, ttl_s=1)
    clock.advance(2)
    for token, text in [("", "not valid"), ("x", "not valid"), (expired, "expired")]:
        response = client.get(f"{path}?tok={token}")
        assert (response.status_code, text in response.text) == (403, True)
    assert client.get("/bootstrap").status_code == 403


@pytest.mark.spec("1.1.1.2", "8.5.p2", "D.1.10")
def test_bootstrap_program_names_server_and_token(parts, client):
    token, _ = bootstrap_token(parts)
    response = client.get(f"/bootstrap?tok={token}")
    assert response.content_type == "text/x-python"
    head = f"host_url = 'http://localhost'\nbootstrap_token = '{token}'\n"
    assert response.text.startswith(head)
    compile(response.text, "bootstrap", "exec")
    disposition = response.headers["Content-Disposition"]
    assert disposition == 'attachment; filename="swarming_bot_bootstrap.py"'


def test_waiting_bot_of_ours_is_told_to_poll_when_there_is_news(parts, clock, bot, bot_archive):
    assert "skep" not in bot.update()
    write_bot(bot_archive, **{"__main__.py": "print(2)\n"})
    clock.advance(2)
    parts.sweeps.look()
    assert bot.update(nonblocking=False)["skep"] == {"poll": True}


@pytest.fixture
def address(parts):
    """A real socket in front of the application."""
    server = make_server("127.0.0.1", 0, composition.create_app(parts), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/poll", "/task_update"])
def test_huge_body_is_refused_before_it_is_read(address, path):
    """Of 100 MB announced only the head is ever sent, and the answer comes all the same."""
    with socket.create_connection(address, timeout=20) as link:
        head = (
            f"POST {BOT_PATH}{path} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
            "Content-Length: 100000000\r\n\r\n"
        )
        link.sendall(head.encode() + b"x" * 1000)
        reply = b""
        while True:
            part = link.recv(65536)
            if not part:
                break
            reply += part
    status, _, rest = reply.partition(b"\r\n")
    assert status.split()[1] == b"413"
    assert b"connection: close" in rest.lower()
    assert b"the body is larger than" in rest


def test_public_url_decides_which_archive_a_bot_gets(parts, settings):
    parts.door = replace(parts.door, settings=replace(settings, public_url="https://fleet.example"))
    client = composition.create_app(parts).test_client()
    response = client.get("/bot_code?bot_id=vm1")
    assert parts.archives.archive("https://fleet.example").version in response.headers["Location"]
