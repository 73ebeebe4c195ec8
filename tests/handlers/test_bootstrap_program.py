"""The bootstrap program against a real server on loopback that misbehaves first."""

import io
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from botapi.cfg.bot_archive import pack
from botapi.handlers import bootstrap

TOKEN = "t0ken"
ARCHIVE = pack({"__main__.py": b"import sys; print('the bot runs', *sys.argv[1:])\n"})
GOOD = (200, {"X-Skep-Archive-Version": ARCHIVE.version}, ARCHIVE.content)
DROP = (0, {}, b"")
CUT = (200, {**GOOD[1], "Content-Length": str(len(ARCHIVE.content))}, ARCHIVE.content[:50])
BUSY = (503, {"Retry-After": "0"}, b"the store is away\n")
SLOWER = (429, {}, b"too many calls\n")
DAMAGED = (200, {"X-Skep-Archive-Version": "0" * 64}, ARCHIVE.content)
NO_ZIP = (200, GOOD[1], b"<html>sign in</html>")


@pytest.fixture
def serve(tmp_path):
    """Answers the calls with these, the last one for ever; the program's code and lines."""
    servers = []

    def run(*answers, first_pause_s=0.001):
        left = list(answers)
        calls = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                calls.append(self.path)
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                if status:
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        url = f"http://127.0.0.1:{server.server_address[1]}"
        done = subprocess.run(
            [sys.executable, "-", "one"],
            input=bootstrap.program(url, TOKEN, first_pause_s),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert set(calls) == {f"/bot_code?tok={TOKEN}"}
        assert TOKEN not in done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr.splitlines(), len(calls)

    yield run
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.spec("8.5.p2")
def test_program_starts_the_bot_after_every_trouble_that_passes(serve, tmp_path):
    troubles = (DROP, CUT, BUSY, SLOWER, DAMAGED, NO_ZIP)
    code, out, lines, calls = serve(*troubles, GOOD)
    assert (code, out, calls) == (0, "the bot runs one\n", 7)
    said = ("without response", "IncompleteRead", "503 the store is away", "429 too many calls")
    for line, text in zip(lines, (*said, "its digest is", "not a zip"), strict=True):
        assert text in line
        assert "try " in line
    assert (tmp_path / "swarming_bot.zip").stat().st_mode & 0o777 == 0o600
    assert zipfile.ZipFile(io.BytesIO((tmp_path / "swarming_bot.zip").read_bytes())).namelist()


def test_program_gives_up_with_a_clear_line(serve, tmp_path):
    code, out, lines, calls = serve(BUSY)
    assert (code, out, calls) == (1, "", bootstrap.TRIES)
    assert lines[-1] == "bootstrap: gave up after 8 tries: 503 the store is away"
    assert list(tmp_path.iterdir()) == []


def test_program_ends_at_once_when_it_is_refused(serve, tmp_path):
    code, out, lines, calls = serve((403, {}, b"bootstrap token: used up\nmore\n"), GOOD)
    assert (code, out, calls) == (1, "", 1)
    assert lines == ["bootstrap: 403 bootstrap token: used up"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_program_waits_as_long_as_the_server_asked(serve):
    code, _, lines, calls = serve((503, {"Retry-After": "1"}, b"soon\n"), GOOD)
    assert (code, calls) == (0, 2)
    assert lines[0].endswith(("in 1 s", "in 2 s"))


def test_program_says_so_when_nobody_listens(tmp_path):
    done = subprocess.run(
        [sys.executable, "-"],
        input=bootstrap.program("http://127.0.0.1:9", TOKEN, 0.001),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    *_, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.startswith("bootstrap: gave up after 8 tries: ")
    assert "refused" in last
