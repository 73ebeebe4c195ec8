"""Getting the archive: the bootstrap script, the redirects, the digest (bot-api 8.2, 8.4, 8.5)."""

import ast
import hashlib
import io
import json
import zipfile

from tests.strict_bot.wire import API, NoAnswer, Violation


def version_of(content):
    """The version of an archive that a bot can run (bot-api 8.1, 8.2)."""
    version = digest(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        try:
            server = json.loads(archive.read("config/config.json")).get("server", "")
        except (KeyError, ValueError) as error:
            raise Violation("8.1.1.2", f"archive: config.json: {error}") from None
    if not server.startswith("http") or server.endswith("/"):
        raise Violation("8.1.1.2", f"archive: config.json: server is {server!r}")
    return version


def digest(content):
    """SHA-256 over the members, by name (bot-api 8.2)."""
    sha = hashlib.sha256()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "__main__.py" not in names:
                raise Violation("8.1.p1", "archive: no __main__.py at its top")
            if len(set(names)) != len(names) or any(name.endswith("/") for name in names):
                raise Violation("8.2.p1", "archive: folder entries or duplicates")
            for name in sorted(names, key=str.encode):
                member = archive.read(name)
                for part in (str(len(name)).encode(), name.encode(), str(len(member)).encode()):
                    sha.update(part)
                sha.update(member)
    except zipfile.BadZipFile as error:
        raise Violation("8.1.p1", f"archive: {error}") from None
    return sha.hexdigest()


def bootstrap(wire, token):
    """What the pasted line does; the version that it installs."""
    reply = wire.get(f"/bootstrap?tok={token}", name="bootstrap", with_bot=False)
    if not reply.content_type.startswith("text/x-python"):
        raise Violation("8.5.p2", f"bootstrap: Content-Type {reply.content_type!r}")
    values = _assignments(reply.body)
    if values != {"host_url": wire.url, "bootstrap_token": token}:
        raise Violation("8.5.p2", f"bootstrap: it begins with other assignments: {values}")
    path = f"/bot_code?tok={values['bootstrap_token']}"
    return version_of(_archive(wire.get(path, name="bot_code", with_bot=False)))


def _assignments(script):
    """The two assignments that the script begins with."""
    try:
        first = ast.parse(script).body[:2]
        return {node.targets[0].id: ast.literal_eval(node.value) for node in first}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise Violation("8.5.p2", f"bootstrap: {error}") from None


def _archive(response):
    if response.content_type != "application/octet-stream":
        raise Violation("8.4.p1", f"bot_code: Content-Type {response.content_type!r}")
    return response.body


def download(wire, version):
    """Fetch that version for a self-update (bot-api 8.6). Raises NoAnswer."""
    content = _archive(wire.get(f"{API}/bot_code/{version}", name="bot_code"))
    found = version_of(content)
    if found != version:
        raise Violation("8.2.p1", f"bot_code: asked for {version}, its digest is {found}")
    is_fine(wire)


def is_fine(wire):
    """The self-check of a new archive: the server answers the ping. Raises NoAnswer."""
    reply = wire.get(f"{API}/server_ping", name="server_ping", with_bot=False)
    if reply.body != b"Server up" or reply.content_type != "text/plain; charset=utf-8":
        raise Violation("1.2.p1", f"server_ping: {reply.content_type!r} {reply.body[:60]!r}")


def ping(wire):
    """At the start the answer is only logged."""
    try:
        is_fine(wire)
    except NoAnswer as error:
        wire.transcript.add(note="server_ping", text=str(error))
