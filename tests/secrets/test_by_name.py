"""The server's own secrets by their names in Secret Manager: a fake of it over real HTTP."""

import pytest

from botapi.secrets.by_name import METADATA, SecretError, SecretManager, resolved
from tests.fakes.secret_manager import serving

NAME = "projects/fleet-1/secrets/skep-store/versions/latest"
VALUE = b"postgresql://skep:geheim@db/skep"


@pytest.fixture
def google():
    with serving() as google:
        google.secrets[NAME] = VALUE
        yield google


def test_secret_is_read_as_the_service_account_of_the_machine(google):
    assert SecretManager(google.environ).read(NAME) == VALUE
    assert google.asked == [f"/v1/{NAME}:access"]


def test_environment_gets_the_value_in_place_of_the_name(google, tmp_path):
    google.secrets[NAME] = VALUE + b"\n"
    given = {**google.environ, "SKEP_STORE_FILE": f"sm://{NAME}", "PATH": "sm://left-alone"}
    found = resolved(given, tmp_path)
    assert found["SKEP_STORE"] == VALUE.decode()
    assert "SKEP_STORE_FILE" not in found
    assert found["PATH"] == "sm://left-alone"


def test_key_file_becomes_a_private_file(google, tmp_path):
    data = tmp_path / "data"
    for value in (b"k1:AAAA\n", b"k2:BBBB\n"):
        google.secrets[NAME] = value
        found = resolved({**google.environ, "SKEP_SECRETS_KEYS": f"sm://{NAME}"}, data)
        assert found["SKEP_SECRETS_KEYS"] == str(data / "secrets.keys")
        assert (data / "secrets.keys").read_bytes() == value
        assert (data / "secrets.keys").stat().st_mode & 0o777 == 0o400
    assert [path.name for path in data.iterdir()] == ["secrets.keys"]


def test_nothing_is_asked_when_nothing_is_named(tmp_path):
    def read(name):
        raise AssertionError(name)

    given = {"SKEP_STORE": "sqlite", "SKEP_TOKEN_FILE": "/etc/skep/token"}
    assert resolved(given, tmp_path, read) == given


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda google: google.secrets.clear(), "HTTP 404"),
        (lambda google: google.secrets.update({NAME: None}), "no JSON"),
        (lambda google: google.secrets.update({NAME: b"\xff"}), "not UTF-8 text"),
        (lambda google: google.secrets.update({NAME: b"x" * 70_000}), "70000 bytes"),
        (lambda google: setattr(google, "status", 403), "roles/secretmanager.secretAccessor"),
        (lambda google: google.token.clear(), "no service account"),
        (lambda google: google.token.update(access_token="other"), "HTTP 401"),
    ],
)
def test_what_cannot_be_had_is_one_line_without_the_value(google, tmp_path, spoil, text):
    spoil(google)
    with pytest.raises(SecretError) as caught:
        resolved({**google.environ, "SKEP_STORE_FILE": f"sm://{NAME}"}, tmp_path)
    line = str(caught.value)
    assert text in line
    assert "\n" not in line
    assert "geheim" not in line
    assert 'token"' not in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SKEP_STORE_FILE", "sm://projects/p/secrets/s"),
        ("SKEP_STORE_FILE", "sm://projects/p/secrets/../versions/1"),
        ("SKEP_STORE", f"sm://{NAME}"),
    ],
)
def test_bad_names_and_places_are_refused_before_anything_is_asked(
    google, tmp_path, variable, value
):
    with pytest.raises(SecretError):
        resolved({**google.environ, variable: value}, tmp_path)
    assert [path for path in google.asked if "secrets" not in path] == []


def test_machine_without_a_metadata_server_is_told_so(tmp_path):
    environ = {METADATA: "127.0.0.1:1", "SKEP_STORE_FILE": f"sm://{NAME}"}
    with pytest.raises(SecretError, match="no service account"):
        resolved(environ, tmp_path)
