"""The first program a machine runs: it fetches the archive and starts it (bot-api 8.5)."""

from botapi.bot_call import BotServer, Call, Script

TRIES = 8
FIRST_PAUSE_S = 1
MAX_PAUSE_S = 30
MAX_RETRY_AFTER_S = 120
TIMEOUT_S = 60

_PROGRAM = '''\
"""Fetch the bot archive into this folder, check it, start it. Python 3, nothing else."""
import hashlib, http.client, io, os, random, sys, time, urllib.error, urllib.request
import zipfile, zlib

KNOWN = {"swarming_bot.zip", "swarming_bot.1.zip", "swarming_bot.2.zip", "swarming.lck",
         "enrolled.json", "logs", "c", "tmp", "w", "README", "README.md"}


def fail(text):
    sys.exit("bootstrap: " + text)


def digest(packed):
    sha = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            for part in (str(len(name)).encode(), name.encode(), str(len(content)).encode()):
                sha.update(part)
            sha.update(content)
    return sha.hexdigest()


class Trouble(Exception):
    """What may be over at the next try; `after` are the seconds that the server asked for."""

    def __init__(self, text, after=0):
        Exception.__init__(self, text)
        self.after = after


def fetch():
    try:
        address = host_url + "/bot_code?tok=" + bootstrap_token
        with urllib.request.urlopen(address, timeout=timeout_s) as reply:
            return checked(reply.read(), reply.headers.get("X-Skep-Archive-Version", ""))
    except urllib.error.HTTPError as error:
        text = "%d %s" % (error.code, said(error) or error.reason)
        if error.code < 500 and error.code not in (408, 429):
            fail(text)
        after = error.headers.get("Retry-After") or ""
        raise Trouble(text, min(int(after), max_retry_after_s) if after.isdigit() else 0)
    except (OSError, http.client.HTTPException) as error:
        raise Trouble(str(getattr(error, "reason", error)) or type(error).__name__)


def checked(packed, version):
    try:
        found = digest(packed)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise Trouble("the archive is damaged: %s" % error)
    if found != version:
        raise Trouble("the archive is damaged: its digest is %s, not %s" % (found, version))
    return packed


def said(error):
    """The first line of an answer that is no success."""
    try:
        with error:
            return error.read(500).decode("utf-8", "replace").strip().partition("\\n")[0]
    except (OSError, http.client.HTTPException):
        return ""


def fetch_patiently():
    pause = first_pause_s
    for number in range(1, tries + 1):
        try:
            return fetch()
        except Trouble as trouble:
            if number == tries:
                fail("gave up after %d tries: %s" % (tries, trouble))
            wait = max(pause, trouble.after) * random.uniform(1, 1.5)
            pause = min(2 * pause, max_pause_s)
            text = "bootstrap: %s; try %d of %d in %.0f s"
            print(text % (trouble, number + 1, tries, wait), file=sys.stderr)
        time.sleep(wait)


def main():
    here = os.path.realpath(os.getcwd())
    if here == os.path.realpath(os.path.expanduser("~")):
        fail("will not run in the home directory: make an empty folder and go there")
    strange = [n for n in os.listdir(here) if n not in KNOWN and not n.startswith(".skep")]
    if strange and not os.path.exists("swarming_bot.zip"):
        fail("this folder is not empty (%s): make an empty one and go there" % strange[0])
    part = "swarming_bot.zip.part"
    content = fetch_patiently()
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    os.replace(part, "swarming_bot.zip")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.execv(sys.executable, [sys.executable, "swarming_bot.zip"] + sys.argv[1:])


main()
'''


def bootstrap(server: BotServer, call: Call, token: str) -> Script:
    """The program for this server and token. The token is checked here already."""
    server.check_bootstrap(token, call)
    return Script(program(call.base_url, token))


def program(url: str, token: str, first_pause_s: float = FIRST_PAUSE_S) -> str:
    """Two assignments, the patience of the program, and what it does.

    Trouble that may pass (no connection, a cut download, 408, 429, 5xx) is tried again with
    growing pauses that no two machines share; what the server refuses ends it at once.
    """
    values = {
        "host_url": url,
        "bootstrap_token": token,
        "tries": TRIES,
        "first_pause_s": first_pause_s,
        "max_pause_s": MAX_PAUSE_S,
        "max_retry_after_s": MAX_RETRY_AFTER_S,
        "timeout_s": TIMEOUT_S,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in values.items()) + _PROGRAM
