"""`skep user` and `skep apikey` against a real server."""

import json

import pytest

from tests.ctl.test_real_server import skep, url  # noqa: F401


def done(result):
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.control("people.roles")
def test_life_of_a_user_and_a_key(skep):  # noqa: F811
    done(skep("user", "add", "ci"))
    key = done(skep("apikey", "new", "--name", "build", "--owner", "ci", "--quiet"))

    def ask(*arguments):
        return skep(*arguments, SKEP_TOKEN=key)

    assert ask("tasks").exit_code == 4
    done(skep("user", "grant", "ci", "viewer", "--pool", "default", "--reason", "builds"))
    done(ask("bots", "--quiet"))
    found = json.loads(done(ask("whoami", "-o", "json")))
    assert found["identity"] == "user:ci"
    assert found["grants"] == [{"role": "viewer", "pool": "default"}]
    assert ask("user", "grant", "ci", "admin").exit_code != 0
    done(skep("user", "revoke", "ci", "viewer", "--pool", "default"))
    assert ask("bots").exit_code == 4
    done(skep("user", "disable", "ci", "--yes"))
    assert ask("whoami").exit_code == 4
    done(skep("user", "enable", "ci"))
    done(ask("whoami"))
    listed = json.loads(done(skep("apikey", "list", "--owner", "ci", "-o", "json")))["items"]
    assert [one["owner"] for one in listed] == ["user:ci"]
    done(skep("apikey", "revoke", listed[0]["key_id"], "--yes"))
    assert ask("whoami").exit_code == 4
    assert json.loads(done(skep("apikey", "list", "--owner", "ci", "-o", "json")))["items"] == []
    verbs = [one["verb"] for one in json.loads(done(skep("audit", "-o", "json")))["items"]]
    assert [verbs.count(v) for v in ("user.create", "user.change", "apikey.create")] == [1, 4, 1]


@pytest.mark.control("people.roles")
def test_key_with_a_scope_does_no_more_and_makes_no_keys(skep):  # noqa: F811
    key = done(skep("apikey", "new", "--name", "x", "--role", "viewer", "--quiet"))
    done(skep("bots", SKEP_TOKEN=key))
    assert skep("audit", SKEP_TOKEN=key).exit_code == 4
    assert skep("apikey", "new", "--name", "y", SKEP_TOKEN=key).exit_code == 4


@pytest.mark.control("people.roles")
def test_key_that_expires_makes_none_that_lives_longer(skep):  # noqa: F811
    key = done(skep("apikey", "new", "--name", "x", "--expires", "1h", "--quiet"))
    made = [
        json.loads(
            done(skep(*["apikey", "new", "--name", "y", "-o", "json"], *more, SKEP_TOKEN=key))
        )
        for more in ((), ("--expires", "2h"), ("--expires", "1s"))
    ]
    first = json.loads(done(skep("whoami", "-o", "json", SKEP_TOKEN=key)))["expires_at"]
    assert [one["expires_at"] == first for one in made] == [True, True, False]


def test_nobody_disables_themselves(skep):  # noqa: F811
    done(skep("user", "add", "admin"))
    assert skep("user", "disable", "admin", "--yes").exit_code == 2
