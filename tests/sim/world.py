"""Virtual time, and activities that take turns: one seed decides everything that happens.

The hub is the greenlet that calls `run`; every other activity is a greenlet that gives its
turn back by `sleep` or by waiting for an event. Nothing sleeps for real and nothing runs at
the same time, so a seed gives the same history on every machine.
"""

import heapq
from random import Random

import greenlet

EPOCH_MS = 1_772_604_367_089


class World:
    """The clock, the chance and the activities of one run. Times are virtual seconds."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.now = 0.0
        self.turns = 0
        self._hub = greenlet.getcurrent()
        self._due = []
        self._count = 0

    def later(self, delay_s, act, *args):
        """Call `act` in the hub after that long."""
        self._count += 1
        heapq.heappush(self._due, (self.now + delay_s, self._count, act, args))

    def run(self, until, is_over):
        """Let time pass up to `until`, or until `is_over()`, asked after every act."""
        while self._due and self._due[0][0] <= until:
            self.now, _, act, args = heapq.heappop(self._due)
            self.turns += 1
            act(*args)
            if is_over():
                return True
        return False

    def start(self, fn, *args):
        """A new activity, which begins when the hub has its turn; the greenlet."""
        made = Activity(fn, self._hub)
        self.later(0.0, made.begin, args)
        return made

    def is_hub(self):
        return greenlet.getcurrent() is self._hub

    def pause(self):
        """A ticket for the present activity to be woken with, once."""
        return Pause(greenlet.getcurrent())

    def wait(self, pause):
        """Give the turn away until somebody wakes this pause; what it was woken with."""
        return self._hub.switch(pause)

    def wake(self, pause, value):
        """Soon go on with a paused activity; the first one to wake it decides the value."""
        self.later(0.0, pause.go_on, value)

    def wake_later(self, delay_s, pause, value):
        self.later(delay_s, pause.go_on, value)

    def sleep(self, seconds):
        if self.is_hub():
            self.now += seconds  # only while a process is built
            return
        pause = self.pause()
        self.wake_later(seconds, pause, None)
        self.wait(pause)


class Activity(greenlet.greenlet):
    """One greenlet. `by` says for whom it works: a call of a client, or nobody."""

    def __init__(self, fn, hub, by=None):
        super().__init__(fn, hub)
        self.by = by

    def begin(self, args):
        if not self.dead:
            self.switch(*args)

    def kill(self):
        """End it where it stands; only its `finally`s run."""
        if not self.dead:
            self.throw(greenlet.GreenletExit)


class Pause:
    """One wait of one activity."""

    __slots__ = ("is_over", "who")

    def __init__(self, who):
        self.who = who
        self.is_over = False

    def go_on(self, value):
        if not self.is_over and not self.who.dead:
            self.is_over = True
            self.who.switch(value)


class Event:
    """As `botapi.concurrency.Event`."""

    def __init__(self, world):
        self._world = world
        self._is_set = False
        self._waiting = []

    def set(self):
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for pause in waiting:
            self._world.wake(pause, True)

    def clear(self):
        self._is_set = False

    def is_set(self):
        return self._is_set

    def wait(self, timeout=None):
        if self._is_set:
            return True
        pause = self._world.pause()
        self._waiting.append(pause)
        if timeout is not None:
            self._world.wake_later(timeout, pause, False)
        return self._world.wait(pause)


class SlowEvent(Event):
    """One whose timeouts take longer: a machine never promises to wake anybody in time."""

    def __init__(self, world, stretch):
        super().__init__(world)
        self._stretch = stretch

    def wait(self, timeout=None):
        return super().wait(None if timeout is None else self._stretch(timeout))


class Turns:
    """As `botapi.concurrency.Concurrency`, for one server process."""

    def __init__(self, world, spawn):
        self._world = world
        self._spawn = spawn

    def event(self):
        return Event(self._world)

    def spawn(self, fn, *args):
        self._spawn(fn, *args)

    def native(self, fn):
        return fn()

    outside = native

    def sleep(self, seconds):
        self._world.sleep(seconds)


class Clock:
    """The clocks of one server process; `step` moves the wall clock only."""

    def __init__(self, world):
        self._world = world
        self.offset_ms = 0

    def now_ms(self):
        return EPOCH_MS + self.offset_ms + int(self._world.now * 1000)

    def monotonic(self):
        return 1_000.0 + self._world.now


class Chance:
    """As `botapi.clock.Rng`."""

    def __init__(self, random):
        self._random = random

    def uniform(self, low, high):
        return self._random.uniform(low, high)

    def randbits(self, count):
        return self._random.getrandbits(count)

    def token(self, byte_count):
        return self._random.randbytes(byte_count).hex()
