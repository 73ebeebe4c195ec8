"""The table of settings: what is read, what is refused, what is shown."""

import dataclasses
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botapi import settings
from botapi.settings import Settings, SettingsError, duration_s, load, size_bytes

README = Path(__file__).parents[1] / "config" / "README.md"


def test_settings_have_the_documented_defaults_without_an_environment():
    assert load({}) == Settings(
        data_dir=Path("skep-data"),
        config_dir=Path("skep-data/config"),
        host="127.0.0.1",
        port=8080,
        poll_s=120,
        contact_s=300,
        hold_min_s=40,
        hold_max_s=45,
        bot_death_s=600,
        output_limit_bytes=2 * 2**30,
        server="http://127.0.0.1:8080",
        format="table",
        timeout_s=30,
    )


def test_settings_are_read_from_the_environment():
    environ = {
        "SKEP_DATA_DIR": "/d",
        "SKEP_PORT": "0",
        "SKEP_BEHIND_PROXY": "10.0.0.0/8, ::1/128",
        "SKEP_BOT_ARCHIVE": "bot.zip",
        "SKEP_ANONYMOUS_READ": "Yes",
        "SKEP_CONTACT_S": "2m30s",
        "SKEP_OUTPUT_LIMIT_BYTES": "3 MiB",
        "SKEP_PUBLIC_URL": "https://skep.example/",
    }
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert load(environ) == Settings(
        data_dir=Path("/d"),
        config_dir=Path("/d/config"),
        port=0,
        behind_proxy=networks,
        bot_archive=Path("bot.zip"),
        anonymous_read=True,
        contact_s=150,
        output_limit_bytes=3 * 2**20,
        public_url="https://skep.example",
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"SKEP_PORT": "abc"},
            "SKEP_PORT='abc' is refused: give a whole number from 0 to 65535",
        ),
        ({"SKEP_PORT": "65536"}, "SKEP_PORT='65536' is refused"),
        ({"SKEP_CONTACT_S": "soon"}, "SKEP_CONTACT_S='soon' is refused: give a duration"),
        ({"SKEP_ANONYMOUS_READ": "perhaps"}, "give 1, true, yes, on, 0, false, no or off"),
        ({"SKEP_BEHIND_PROXY": "10.0.0"}, "give networks such as 10.0.0.0/8"),
        ({"SKEP_SERVER": "skep.example"}, "give a URL that starts with http:// or https://"),
        ({"SKEP_LOG_FORMAT": "xml"}, "give one of json, logfmt, console"),
        ({"SKEP_HOLD_MIN_S": "50"}, "give at most SKEP_HOLD_MAX_S, which is 45"),
        ({"SKEP_TLS_KEY": "k.pem"}, "give SKEP_TLS_CERT and SKEP_TLS_KEY together"),
        ({"SKEP_TOKEN_FILE": "/absent"}, "SKEP_TOKEN_FILE=/absent: No such file"),
        ({"SKEP_TOKEN": "a", "SKEP_TOKEN_FILE": "b"}, "are both set: keep one of them"),
    ],
)
def test_settings_refuse_in_one_line_what_they_cannot_read(environ, message):
    with pytest.raises(SettingsError) as refused:
        load(environ)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_take_any_value_from_a_file(tmp_path):
    (tmp_path / "token").write_text("skep_secret\n")
    (tmp_path / "port").write_text("9000")
    environ = {
        "SKEP_TOKEN_FILE": str(tmp_path / "token"),
        "SKEP_PORT_FILE": str(tmp_path / "port"),
    }
    assert load(environ) == Settings(token="skep_secret", port=9000)


def test_settings_never_show_a_secret():
    loaded = load({"SKEP_TOKEN": "skep_secret"})
    assert "skep_secret" not in repr(loaded)
    assert "skep_secret" not in str(settings.shown(loaded))


def test_options_go_before_the_environment_and_derived_values_follow_them():
    environ = {"SKEP_DATA_DIR": "/from-environment", "SKEP_PORT": "1"}
    loaded = load(environ, {"data_dir": "/from-option", "port": None})
    assert (loaded.data_dir, loaded.config_dir, loaded.port) == (
        Path("/from-option"),
        Path("/from-option/config"),
        1,
    )


def test_config_dir_may_be_any_folder_also_the_present_one():
    assert load({"SKEP_CONFIG_DIR": "."}).config_dir == Path()


def test_aliases_of_the_original_count_when_our_variable_is_not_set():
    both = {"SWARMING_SERVER": "http://a", "SKEP_SERVER": "http://b"}
    assert load({"SWARMING_SERVER": "http://a"}).server == "http://a"
    assert load(both).server == "http://b"


def test_origins_name_the_variable_a_value_comes_from(tmp_path):
    (tmp_path / "token").write_text("x")
    environ = {"SWARMING_SERVER": "http://a", "SKEP_TOKEN_FILE": str(tmp_path / "token")}
    found = settings.origins(environ, {"port": "1"})
    asked = {name: found[name] for name in ("server", "token", "port", "host")}
    assert asked == {
        "server": "SWARMING_SERVER",
        "token": "SKEP_TOKEN_FILE",
        "port": "option",
        "host": "default",
    }


def test_unknown_variables_are_reported_and_those_of_the_tests_are_not():
    environ = {"SKEP_PROT": "1", "SKEP_PORT": "1", "SKEP_PORT_FILE": "x", "SKEP_TEST_PG_DSN": "y"}
    assert settings.unknown(environ) == ["SKEP_PROT"]


def test_every_setting_has_a_row_and_a_default_that_its_kind_accepts():
    derived = {"config_dir", "log_format"}
    for name, knob in settings.knobs():
        assert knob.help
        if name not in derived:
            assert knob.kind.parse(knob.default) == getattr(Settings(), name)
    assert [name for name, _ in settings.knobs()] == [f.name for f in dataclasses.fields(Settings)]


def test_config_readme_contains_exactly_the_generated_table():
    text = README.read_text(encoding="utf-8")
    assert text[text.index("| variable |") :] == settings.render_table()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5s", 1.5), ("2h30m", 9000), ("1d", 86400), ("0", 0)],
)
def test_duration_reads_numbers_and_units(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "-5", "30m2h", "1 h", "inf", "nan", "1e3"])
def test_duration_refuses_what_it_does_not_know(text):
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(text)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
def test_duration_adds_its_units(hours, minutes, seconds):
    assert duration_s(f"{hours}h{minutes}m{seconds}s") == (hours * 60 + minutes) * 60 + seconds


def test_sizes_have_binary_units():
    assert [size_bytes(text) for text in ("7", "1KiB", "2 MiB")] == [7, 1024, 2 * 2**20]
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes("2 MB")
