"""Servers by name: `skep login|logout|context`, and what a context never does."""

import stat

import pytest
from click.testing import CliRunner

from botapi.cli import main

ME = {"actor": "user:ann@example.com", "grants": [], "key": None}


@pytest.fixture
def homes(tmp_path):
    return {"XDG_CONFIG_HOME": str(tmp_path / "c"), "XDG_STATE_HOME": str(tmp_path / "s")}


@pytest.fixture
def skep(homes):
    """Run a command that knows nothing but its options, its files, and what is given here."""

    def run(*arguments, stdin="", **environ):
        unset = dict.fromkeys(("SKEP_SERVER", "SWARMING_SERVER", "SKEP_TOKEN", "SKEP_FORMAT"))
        return CliRunner().invoke(main, arguments, input=stdin, env=unset | homes | environ)

    return run


@pytest.fixture
def lab(script, skep):
    """The context `lab` of the scripted server is in use."""
    script.reply(200, ME)
    done = skep("login", "--server", script.url, "--name", "lab", stdin="skep_lab\n")
    assert done.exit_code == 0, done.stderr
    return script


def config(tmp_path):
    return tmp_path / "c" / "skep" / "config.toml"


def test_login_keeps_server_and_key_and_both_are_used_from_then_on(lab, skep, tmp_path):
    lab.reply(200, ME)
    found = skep("whoami")
    assert found.exit_code == 0
    assert [one.headers["Authorization"] for one in lab.asked] == ["Bearer skep_lab"] * 2
    key_file = tmp_path / "s" / "skep" / "keys" / "lab"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert "skep_lab" not in config(tmp_path).read_text()


def test_login_keeps_nothing_of_a_key_that_the_server_refuses(script, skep, tmp_path):
    script.refuse(401, "no such key")
    done = skep("login", "--server", script.url, stdin="skep_wrong\n")
    assert done.exit_code == 4
    assert not list(tmp_path.rglob("*"))


def test_login_takes_another_key_for_the_context_in_use(lab, skep):
    lab.reply(200, ME)
    done = skep("login", "--name", "lab", stdin="skep_newer\n")
    assert done.exit_code == 0, done.stderr
    assert lab.asked[-1].headers["Authorization"] == "Bearer skep_newer"
    assert f"user:ann@example.com at {lab.url}" in done.stderr


@pytest.mark.parametrize("stdin", ["", "a\nb", "x" * 5000])
def test_login_without_a_key_is_refused_before_the_server_is_asked(script, skep, stdin):
    done = skep("login", "--server", script.url, stdin=stdin)
    assert (done.exit_code, script.asked) == (2, [])
    assert "no API key was given" in done.stderr


def test_login_names_the_context_after_the_host(script, skep):
    script.reply(200, ME)
    skep("login", "--server", script.url, stdin="skep_lab")
    port = script.url.rpartition(":")[2]
    assert f"127.0.0.1-{port}" in skep("-o", "id", "context", "list").stdout


@pytest.mark.parametrize("name", ["../lab", "a/b", "-x", "a" * 64])
def test_login_refuses_a_name_that_is_no_file_name(script, skep, name):
    done = skep("login", "--server", script.url, f"--name={name}", stdin="skep_lab")
    assert (done.exit_code, script.asked) == (2, [])


@pytest.mark.parametrize("how", ["option", "variable", "alias"])
def test_other_server_never_gets_the_key_of_the_context(lab, skep, how):
    other = lab.url.replace("127.0.0.1", "localhost")
    lab.reply(200, ME)
    options = ("--server", other) if how == "option" else ()
    name = {"variable": "SKEP_SERVER", "alias": "SWARMING_SERVER"}.get(how)
    found = skep(*options, "whoami", **({name: other} if name else {}))
    assert found.exit_code == 0
    assert "Authorization" not in lab.asked[-1].headers
    assert lab.asked[-1].headers["Host"] == other.removeprefix("http://")


def test_same_server_named_again_is_asked_with_the_key_of_the_context(lab, skep):
    lab.reply(200, ME)
    assert skep("whoami", SKEP_SERVER=lab.url).exit_code == 0
    assert lab.asked[-1].headers["Authorization"] == "Bearer skep_lab"


def test_context_and_another_server_together_are_refused(lab, skep):
    done = skep("--context", "lab", "--server", "http://localhost:1", "whoami")
    assert done.exit_code == 2
    assert lab.url in done.stderr


def test_key_of_the_environment_goes_before_that_of_the_context(lab, skep):
    lab.reply(200, ME)
    assert skep("whoami", SKEP_TOKEN="skep_other").exit_code == 0
    assert lab.asked[-1].headers["Authorization"] == "Bearer skep_other"


def test_context_is_chosen_by_use_by_variable_and_by_option(lab, skep):
    lab.reply(200, ME)
    skep("login", "--server", lab.url, "--name", "home", stdin="skep_home")
    assert skep("-o", "id", "context", "show").stdout == "home\n"
    assert skep("-o", "id", "context", "show", SKEP_CONTEXT="lab").stdout == "lab\n"
    assert skep("-o", "id", "--context", "lab", "context", "show").stdout == "lab\n"
    assert skep("context", "use", "lab").exit_code == 0
    assert skep("-o", "id", "context", "show").stdout == "lab\n"
    listed = skep("context", "list", "--cols", "name,current,key").stdout.splitlines()
    assert [line.split("\t") for line in listed] == [["home", "no", "yes"], ["lab", "yes", "yes"]]


def test_logout_forgets_the_key_and_keeps_the_server(lab, skep, tmp_path):
    assert "forgotten" in skep("logout").stderr
    assert not list((tmp_path / "s" / "skep" / "keys").iterdir())
    assert skep("context", "list", "--cols", "name,server,key").stdout == f"lab\t{lab.url}\tno\n"
    assert "no key" in skep("logout", "lab").stderr


def test_context_rm_forgets_both(lab, skep, tmp_path):
    assert skep("context", "rm", "lab").exit_code == 0
    assert skep("context", "list").stdout == ""
    assert not list((tmp_path / "s" / "skep" / "keys").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("context", "use", "x"), ("context", "rm", "x"), ("logout", "x"), ("--context", "x", "bots")],
)
def test_unknown_context_is_exit_5_and_names_those_there_are(lab, skep, arguments):
    done = skep(*arguments)
    assert done.exit_code == 5
    assert done.stderr.splitlines() == [
        "error: context x: there is no such context",
        "hint: there are: lab",
    ]


def test_nothing_in_use_is_exit_5(skep):
    assert skep("logout").exit_code == 5
    assert skep("context", "show").exit_code == 5


@pytest.mark.parametrize(
    "text",
    [
        "current = ",
        "current = 1",
        "contexts = 1",
        '[contexts."a/b"]\nserver = "http://x"',
        '[contexts.a]\nserver = "http://x"\ntoken = "skep_k"',
        "[contexts.a]\nserver = 1",
        '[contexts.a]\nuser = "ann"',
    ],
)
def test_file_that_is_not_understood_is_one_line_and_is_kept(skep, tmp_path, text):
    config(tmp_path).parent.mkdir(parents=True)
    config(tmp_path).write_text(text)
    done = skep("bots")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {config(tmp_path)}: ")
    assert config(tmp_path).read_text() == text


def test_settings_show_tells_what_comes_from_the_context(lab, skep):
    shown = skep("settings", "show", "--origin").stdout.splitlines()
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in shown}
    assert rows["SKEP_SERVER"] == [lab.url, "context"]
    assert rows["SKEP_TOKEN"] == ["(set)", "context"]
    assert rows["SKEP_CONTEXT"] == ["lab", "context"]


@pytest.mark.parametrize("home", ["", "/dev/null", "/nonexistent"])
def test_client_needs_no_home(script, skep, home):
    script.reply(200, ME)
    none = {"XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "HOME": home}
    assert skep("whoami", SKEP_SERVER=script.url, **none).exit_code == 0


def test_login_without_a_home_is_one_line(script, skep):
    script.reply(200, ME)
    none = {"XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "HOME": ""}
    done = skep("login", "--name", "lab", SKEP_SERVER=script.url, stdin="skep_k", **none)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: /dev/null/.local/state/skep/keys/lab: ")
