"""Waiting, in two forms: operating-system threads, and gevent's greenlets.

Nothing else in Skep imports gevent. `app.py` chooses a form once and hands it down.
Under gevent the loop runs in one thread: whatever may take longer than a point read goes
through `native` (four reader threads), what waits for somebody else through `outside`, or
through a thread made with `start_native`. One interpreter lock serves all of these: a reader
that makes a page of a thousand gives way to the loop and the writer (`giving_way`).
"""

import _thread
import logging
import select
import socket
import sys
import threading
import types
from _queue import SimpleQueue  # the C type itself: gevent never replaces it
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import gevent
import gevent.event
import gevent.hub
import gevent.monkey
import gevent.threadpool
import greenlet

T = TypeVar("T")
U = TypeVar("U")

READER_THREADS = 4
OUTSIDE_THREADS = 8
IDLE_GREENLETS = 64
"""Kept for those that come next: as many as may start in one moment."""
NAP_S = 0.01
"""Longer than a task's start takes: who looks in between takes the interpreter lock."""
NAPS = 50
"""Naps of a reader for one piece of work, half a second: under a herd pages still come."""

log = logging.getLogger(__name__)

_start_new_thread = gevent.monkey.get_original("_thread", "start_new_thread")
_allocate_lock = gevent.monkey.get_original("_thread", "allocate_lock")
_socket = gevent.monkey.get_original("socket", "socket")
_get_ident = gevent.monkey.get_original("_thread", "get_ident")
_poll = gevent.monkey.get_original("select", "poll")
_getaddrinfo = gevent.monkey.get_original("socket", "getaddrinfo")
_sleep = gevent.monkey.get_original("time", "sleep")


class Event(Protocol):
    """As `threading.Event`; `set` may be called from any thread."""

    def set(self) -> None:
        """Wake everybody who waits, now and later."""
        ...

    def clear(self) -> None:
        """Forget that it was set."""
        ...

    def is_set(self) -> bool:
        """Was it set and not cleared since?"""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, at most `timeout` seconds; False after the timeout."""
        ...


class Concurrency(Protocol):
    """One form of waiting."""

    def event(self) -> Event:
        """A new event."""
        ...

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        """Run fn in the background, beside the requests; its exceptions are logged."""
        ...

    def native(self, fn: Callable[[], T]) -> T:
        """Run fn on a native reader thread and wait for it without holding the loop."""
        ...

    def outside(self, fn: Callable[[], T]) -> T:
        """As `native`, on other threads: for what waits for networks, or for the disk of blobs.

        However many of these hang, the store is still read.
        """
        ...

    def sleep(self, seconds: float) -> None:
        """Let others run for that long."""
        ...

    def soon(self, fn: Callable[[], object]) -> None:
        """Run fn, which waits for nothing, once all who can go on now have had their turn.

        Called on a native thread it runs at once.
        """
        ...

    def after(self, event: Event, timeout_s: float, fn: Callable[[], object]) -> None:
        """Run fn in the background once `event` is set, at the latest `timeout_s` from now."""
        ...

    def on_loop(self, fn: Callable[[], T]) -> T:
        """Run fn, which ends by itself in time, where the loop is; it must wait in this form.

        From a native thread too: what waits in greenlets never comes back there.
        """
        ...

    def prepare_grpc(self) -> None:
        """To be called before a gRPC client is made, so that its calls wait in this form."""
        ...


class Box(Generic[T]):
    """A result that one thread leaves and one waiter takes, once."""

    __slots__ = ("_error", "_ready", "_value")

    def __init__(self, ready: Event) -> None:
        self._ready = ready
        self._value: T | None = None
        self._error: BaseException | None = None

    def put(self, value: T) -> None:
        """Leave the result; callable from any thread."""
        self._value = value
        self._ready.set()

    def fail(self, error: BaseException) -> None:
        """Leave an exception instead; it rises in `get`."""
        self._error = error
        self._ready.set()

    def get(self) -> T:
        """Wait for the result."""
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # set together with the event


class Held(Generic[T]):
    """What is there once `done` is set or `timeout_s` seconds are over: then `make` makes it."""

    __slots__ = ("done", "make", "timeout_s")

    def __init__(self, done: Event, timeout_s: float, make: Callable[[], T]) -> None:
        self.done = done
        self.timeout_s = timeout_s
        self.make = make

    def then(self, fn: Callable[[T], U]) -> "Held[U]":
        """The same wait, for what `fn` makes of it."""
        return Held(self.done, self.timeout_s, partial(_then, self.make, fn))

    def get(self) -> T:
        """Wait for it here."""
        self.done.wait(self.timeout_s)
        return self.make()


def _then(make: Callable[[], T], fn: Callable[[T], U]) -> U:
    return fn(make())


def start_native(fn: Callable[[], object]) -> None:
    """Start an operating-system thread, also under gevent; it must not outlive its owner."""
    _start_new_thread(_logged, (fn, ()))


def native_queue() -> "SimpleQueue[Any]":
    """A queue whose `get` blocks the calling native thread; `put` never blocks."""
    return SimpleQueue()


def native_lock() -> _thread.LockType:
    """A lock for native threads; hold it for microseconds only."""
    lock: _thread.LockType = _allocate_lock()
    return lock


def native_datagram_socket() -> socket.socket:
    """A Unix datagram socket for native threads: it blocks the thread, never the loop."""
    made: socket.socket = _socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    return made


def native_poll() -> "select.poll":
    """A poll object for native threads: waiting with it blocks the thread, never the loop."""
    made: select.poll = _poll()
    return made


def native_addresses(host: str) -> list[str]:
    """The numeric addresses of a host, for native threads. Raises OSError."""
    found = _getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def keep_native_locks() -> None:
    """To be called after gevent's patches: imports and logging lock as without them.

    Native threads import and log as the loop does, and a lock of gevent's that two
    operating-system threads want at once may never wake one of them. None of these is held
    by a greenlet that waits for another.
    """
    original = {name: gevent.monkey.get_original("_thread", name) for name in dir(_thread)}
    vars(sys.modules["_frozen_importlib"])["_thread"] = types.SimpleNamespace(**original)
    vars(logging)["_lock"] = original["RLock"]()
    for handler in filter(None, (known() for known in vars(logging)["_handlerList"])):
        handler.lock = original["RLock"]()


class _AtWork:
    """Who is at work that readers give way to; each writes its own field."""

    loop = False
    writer = False


at_work = _AtWork()


class _Here(gevent.monkey.get_original("_thread", "_local")):  # type: ignore[misc] # no types
    """What a native thread knows of itself."""

    is_reader = False
    naps = 0
    """How many its present work may still take."""


_here = _Here()


def giving_way(items: Iterable[T]) -> Iterator[T]:
    """The items; on a reader thread they come slowly while the loop or the writer is at work.

    Either of them lets go of the interpreter lock at each statement and each read of a socket,
    and would wait for it half a millisecond each time while a reader computes.
    """
    return _slowly(items) if _here.naps > 0 else iter(items)


def _slowly(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        if (at_work.loop or at_work.writer) and _here.naps > 0:
            _here.naps -= 1
            _sleep(NAP_S)
        yield item


def _read(fn: Callable[[], T]) -> T:
    _here.is_reader = True
    _here.naps = NAPS
    return fn()


class Threads:
    """The thread form: unit tests, the memory store, and tools without a web server."""

    def event(self) -> Event:
        """A `threading.Event`."""
        return threading.Event()

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        """Run fn on a daemon thread."""
        threading.Thread(target=_logged, args=(fn, args), daemon=True).start()

    def native(self, fn: Callable[[], T]) -> T:
        """Run fn here: every thread is a native one."""
        return fn()

    def outside(self, fn: Callable[[], T]) -> T:
        """Run fn here."""
        return fn()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        threading.Event().wait(seconds)

    def soon(self, fn: Callable[[], object]) -> None:
        """Run fn here: nobody tells who can go on."""
        fn()

    def after(self, event: Event, timeout_s: float, fn: Callable[[], object]) -> None:
        """Wait for it on a daemon thread."""
        self.spawn(lambda: (event.wait(timeout_s), fn()))

    def on_loop(self, fn: Callable[[], T]) -> T:
        """Run fn here: there is no loop."""
        return fn()

    def prepare_grpc(self) -> None:
        """Nothing: gRPC blocks the calling thread by itself."""


class Greenlets:
    """The gevent form; make it in the process (after the fork) whose loop it is to serve."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._home = _get_ident()
        self._crew = _Crew(self._hub)
        self._readers = gevent.threadpool.ThreadPool(READER_THREADS, hub=self._hub)
        self._outside = gevent.threadpool.ThreadPool(OUTSIDE_THREADS, hub=self._hub)
        loop = self._hub.loop  # what follows is the first after a wait, the last before the next
        self._watchers = loop.check(ref=False, priority=2), loop.prepare(ref=False, priority=-2)
        for watcher, is_at_work in zip(self._watchers, (True, False), strict=True):
            watcher.start(setattr, at_work, "loop", is_at_work)

    def event(self) -> Event:
        """An event that greenlets wait for and any native thread may set."""
        return _LoopEvent(self._hub, _home=self._home)

    def spawn(self, fn: Callable[..., object], *args: Any) -> None:
        """Run fn in a greenlet."""
        gevent.spawn(_logged, fn, args)

    def native(self, fn: Callable[[], T]) -> T:
        """Run fn on one of the native reader threads, here if this is one."""
        return fn() if _here.is_reader else _result(self._readers, partial(_read, fn))

    def outside(self, fn: Callable[[], T]) -> T:
        """Run fn on one of the threads that may wait long; the loop goes on meanwhile."""
        return _result(self._outside, fn)

    def sleep(self, seconds: float) -> None:
        """Sleep; the loop goes on meanwhile."""
        gevent.sleep(seconds)

    def soon(self, fn: Callable[[], object]) -> None:
        """Run fn behind what the loop has found to do by now."""
        if _get_ident() == self._home:
            self._hub.loop.run_callback(fn)
        else:
            fn()

    def after(self, event: Event, timeout_s: float, fn: Callable[[], object]) -> None:
        """Nobody waits meanwhile: the loop starts a greenlet when it is time. To be called there.

        `event` is one that `event` made.
        """
        if not isinstance(event, _LoopEvent):
            raise TypeError(event)
        _Alarm(self._hub, event.inner, timeout_s, partial(self._crew.run, fn))

    def on_loop(self, fn: Callable[[], T]) -> T:
        """Run fn here if this is the loop's thread, else in a greenlet of the loop."""
        if _get_ident() == self._home:
            return fn()
        done = native_queue()
        self._hub.loop.run_callback_threadsafe(gevent.spawn, lambda: done.put(_outcome(fn)))
        result: T = _risen(done.get())
        return result

    def prepare_grpc(self) -> None:
        """Have gRPC's calls wait in greenlets: by itself it would stop the loop."""
        from grpc.experimental.gevent import init_gevent  # noqa: PLC0415 - an extra

        init_gevent()


class _LoopEvent:
    """`gevent.event.Event`, except that `set` from a foreign thread goes through the loop."""

    __slots__ = ("_home", "_hub", "inner")

    def __init__(self, hub: gevent.hub.Hub, _home: int) -> None:
        self._hub = hub
        self._home = _home
        self.inner = gevent.event.Event()

    def set(self) -> None:
        if _get_ident() == self._home:
            self.inner.set()
        else:
            self._hub.loop.run_callback_threadsafe(self.inner.set)

    def clear(self) -> None:
        self.inner.clear()

    def is_set(self) -> bool:
        return bool(self.inner.is_set())

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self.inner.wait(timeout))


class _Alarm:
    """Calls `fn` where the loop is: once, when the event is set or the time is over."""

    __slots__ = ("_event", "_fn", "_timer")

    def __init__(
        self,
        hub: gevent.hub.Hub,
        event: gevent.event.Event,
        timeout_s: float,
        fn: Callable[[], object],
    ) -> None:
        self._event = event
        self._fn = fn
        self._timer: Any = hub.loop.timer(timeout_s)
        self._timer.start(self._ring)
        event.rawlink(self._ring)

    def _ring(self, _event: object = None) -> None:
        if self._timer is None:
            return
        self._timer.close()
        self._timer = None
        self._event.unlink(self._ring)
        self._fn()


class _Crew:
    """Greenlets that do one thing after the other.

    Python maps 16 KB of memory for each new one, and gives them back at its end.
    """

    def __init__(self, hub: gevent.hub.Hub) -> None:
        self._hub = hub
        self._idle: list[greenlet.greenlet] = []

    def run(self, fn: Callable[[], object]) -> None:
        """Run fn in a greenlet, in the next turn of the loop."""
        if self._idle:
            self._hub.loop.run_callback(self._idle.pop().switch, fn)
        else:
            gevent.spawn(self._work, fn)

    def _work(self, fn: Callable[[], object]) -> None:
        _logged(fn, ())
        while len(self._idle) < IDLE_GREENLETS:
            self._idle.append(greenlet.getcurrent())
            _logged(self._hub.switch(), ())


def _result(pool: gevent.threadpool.ThreadPool, fn: Callable[[], T]) -> T:
    """What fn gives on a thread of the pool.

    An error is carried over as a value: of one that rises there gevent prints a
    trace, and whoever asked has yet to say whether it is one at all.
    """
    result: T = _risen(pool.apply(_outcome, (fn,)))
    return result


def _risen(outcome: tuple[T, BaseException | None]) -> T:
    value, error = outcome
    if error is not None:
        raise error
    return value


def _outcome(fn: Callable[[], object]) -> tuple[Any, BaseException | None]:
    try:
        return fn(), None
    except BaseException as error:  # noqa: BLE001 - it rises again where it was asked for
        return None, error


def _logged(fn: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        fn(*args)
    except Exception:
        log.exception("a background activity ended with an error")
