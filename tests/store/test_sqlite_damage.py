"""A damaged database is not served: one line says what, where, and what to do."""

import pytest

from botapi import engines, first_start
from botapi.clock import SystemClock
from botapi.concurrency import Threads
from botapi.settings import Settings
from botapi.store.sqlite import SqliteStore
from botapi.store.sqlite_copy import quick_damage
from tests.store.conformance.support import doc

PAGE = 4096


@pytest.fixture
def settings(tmp_path):
    """A database of some hundred pages, closed."""
    settings = Settings(data_dir=tmp_path / "data")
    store = SqliteStore(settings.data_dir, Threads(), SystemClock())
    store.write_many(("thing", doc(f"k{n:04}", data=bytes(2_000))) for n in range(600))
    store.close()
    return settings


def hurt(settings):
    """Overwrite a page in the middle, as a broken disk does."""
    path = settings.data_dir / "skep.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(b"\xff" * PAGE)
    return path


def test_sound_database_is_served(settings):
    assert engines.damage_at_start(settings, SystemClock()) == ""
    assert engines.daily_damage(settings) == ""
    assert not (settings.data_dir / engines.DAMAGED).exists()


def test_server_refuses_a_damaged_database_with_one_line(settings, capsys):
    path = hurt(settings)
    with pytest.raises(SystemExit) as ended:
        first_start.prepare(settings)
    assert ended.value.code == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {path} is damaged: ")
    assert "restore a backup" in said[0]


def test_short_check_ends_at_its_time(settings):
    path = hurt(settings)
    clock = SystemClock()
    assert quick_damage(path, clock.monotonic() + 30, clock) != []
    assert quick_damage(path, clock.monotonic() - 1, clock) == []


def test_what_the_daily_check_found_holds_after_a_restart(settings):
    (settings.data_dir / engines.DAMAGED).write_text("Tree 3 page 9: btreeInitPage() returns 11\n")
    said = engines.damage_at_start(settings, SystemClock())
    assert "Tree 3 page 9" in said
    assert str(settings.data_dir / engines.DAMAGED) in said


def test_daily_check_notes_what_it_finds(settings):
    hurt(settings)
    said = engines.daily_damage(settings)
    assert "is damaged" in said
    noted = (settings.data_dir / engines.DAMAGED).read_text().splitlines()
    assert noted[0] in said
