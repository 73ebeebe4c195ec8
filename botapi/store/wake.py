"""Wake-ups between the processes that share a data directory, over Unix datagram sockets.

Each process binds one socket in a folder of the data directory and sends its topics to
all the others'.  A hint only: what gets lost is made good by looking at the file.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from botapi.concurrency import Concurrency, native_datagram_socket, start_native
from botapi.store.topics import ANY_TOPIC

LARGEST_DATAGRAM = 32 * 1024
"""Bytes of one message; more topics than fit are replaced by the one that stands for all."""

LOOKS_AFTER_CHANGE = 64
"""Messages for which a folder that has changed is read again."""

CLOSE_S = 10.0
"""How long closing waits for the listening thread."""

log = logging.getLogger(__name__)


class WakeSockets:
    """This process's socket and the way to everybody else's."""

    def __init__(
        self, folder: Path, concurrency: Concurrency, hear: Callable[[Iterable[str]], None]
    ) -> None:
        """Bind and listen; `hear(topics)` is called on the listening thread."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._hear = hear
        self._behind: set[str] = set()
        self._known: list[str] = []
        self._listed_at = 0
        self._looks_left = 0
        self._closing = False
        self._ended = concurrency.event()
        self._socket = native_datagram_socket()
        self._socket.bind(self._path(self._name))
        self._sender = native_datagram_socket()
        self._sender.settimeout(0)
        start_native(self._listen)

    def send(self, topics: Iterable[str]) -> None:
        """Send to every other socket; a full one is told later that it missed something."""
        message = "\n".join(topics).encode(errors="replace")
        if len(message) > LARGEST_DATAGRAM:
            message = ANY_TOPIC.encode()
        for name in self._others():
            self._send_to(name, message)

    def catch_up(self) -> None:
        """Tell those whose socket was full that they missed something."""
        for name in list(self._behind):
            self._send_to(name, ANY_TOPIC.encode())

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._sender.sendto(b"", self._path(self._name))
        if not self._ended.wait(CLOSE_S):
            log.error("the listener for wake-ups did not end")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        self._sender.close()
        self._socket.close()
        os.close(self._folder)

    def _others(self) -> list[str]:
        """The sockets of the other processes; the folder is read again when it has changed.

        And some times after that: its time of change is too coarse to tell two changes apart.
        """
        changed_at = os.fstat(self._folder).st_mtime_ns
        if changed_at != self._listed_at:
            self._listed_at, self._looks_left = changed_at, LOOKS_AFTER_CHANGE
        if self._looks_left:
            self._looks_left -= 1
            self._known = [name for name in os.listdir(self._folder) if name != self._name]
        return self._known

    def _send_to(self, name: str, message: bytes) -> None:
        self._behind.discard(name)
        try:
            self._sender.sendto(message, self._path(name))
        except BlockingIOError:
            self._behind.add(name)
        except ConnectionRefusedError:  # its owner is gone
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        except OSError:
            log.exception("a wake-up could not be sent")

    def _path(self, name: str) -> str:
        """A short name for the socket: a socket's path may have 107 bytes, a folder's more."""
        return f"/proc/self/fd/{self._folder}/{name}"

    def _listen(self) -> None:
        while True:
            message = self._socket.recv(2 * LARGEST_DATAGRAM)
            if self._closing:
                break
            if message:
                self._hear(message.decode(errors="replace").split("\n"))
        self._ended.set()
