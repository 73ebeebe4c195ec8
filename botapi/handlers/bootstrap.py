"""The first program a machine runs: it fetches the archive and starts it (bot-api 8.5)."""

from botapi.bot_call import BotServer, Call, Script

_PROGRAM = '''\
"""Fetch the bot archive into this folder, check it, start it. Python 3, nothing else."""
import hashlib, os, sys, urllib.request, zipfile

KNOWN = {"swarming_bot.zip", "swarming_bot.1.zip", "swarming_bot.2.zip", "swarming.lck",
         "enrolled.json", "logs", "c", "tmp", "w", "README", "README.md"}


def fail(text):
    sys.exit("bootstrap: " + text)


def digest(path):
    sha = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            for part in (str(len(name)).encode(), name.encode(), str(len(content)).encode()):
                sha.update(part)
            sha.update(content)
    return sha.hexdigest()


def main():
    here = os.path.realpath(os.getcwd())
    if here == os.path.realpath(os.path.expanduser("~")):
        fail("will not run in the home directory: make an empty folder and go there")
    strange = [n for n in os.listdir(here) if n not in KNOWN and not n.startswith(".skep")]
    if strange and not os.path.exists("swarming_bot.zip"):
        fail("this folder is not empty (%s): make an empty one and go there" % strange[0])
    part = "swarming_bot.zip.part"
    with urllib.request.urlopen(host_url + "/bot_code?tok=" + bootstrap_token, timeout=60) as reply:
        content = reply.read()
        version = reply.headers.get("X-Skep-Archive-Version", "")
        length = int(reply.headers.get("Content-Length", len(content)))
    if len(content) != length:
        fail("the download was cut: %d of %d bytes" % (len(content), length))
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    found = digest(part)
    if found != version:
        os.unlink(part)
        fail("the archive is damaged: its digest is %s, not %s" % (found, version))
    os.replace(part, "swarming_bot.zip")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.execv(sys.executable, [sys.executable, "swarming_bot.zip"] + sys.argv[1:])


main()
'''


def bootstrap(server: BotServer, call: Call, token: str) -> Script:
    """The program for this server and token. The token is checked here already."""
    server.check_bootstrap(token, call)
    head = f"host_url = {call.base_url!r}\nbootstrap_token = {token!r}\n"
    return Script(head + _PROGRAM)
