"""The pages of docs/deploy and what they have people copy: every name in them exists."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from botapi import cli, settings
from botapi.settings import Settings
from tests.e2e.fleet import REPOSITORY

PAGES = sorted((REPOSITORY / "docs" / "deploy").glob("*.md"))
UNITS = sorted((REPOSITORY / "config" / "systemd").iterdir())
COPIED = [
    *PAGES,
    *UNITS,
    *sorted((REPOSITORY / "config" / "nginx").iterdir()),
    *(REPOSITORY / name for name in ("Dockerfile", "compose.yaml", "app.yaml")),
]
FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s/])skep (?=[a-z])((?!skep ).*)$")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)")
OURS = re.compile(r"(?<![\w/.])((?:config|docs)/[\w./-]+\.\w+)")


def commands():
    """Every `skep …` in the fences and in the unit files, as words."""
    for path in (*PAGES, *UNITS):
        text = path.read_text()
        lines = "\n".join(FENCE.findall(text)) if path.suffix == ".md" else text
        for line in lines.replace("\\\n", " ").splitlines():
            for part in re.split(r"&& |; |\| ", line.split("   #")[0]):
                for found in COMMAND.findall(part):
                    words = found.replace("'", "").split()
                    if words[0] in cli.COMMANDS:
                        yield path.name, words


def test_pages_name_commands_and_options_that_exist():
    seen = 0
    for page, words in commands():
        seen += 1
        command, text = cli.main, " ".join(words)
        for word in words:
            if isinstance(command, click.Group):
                inner = command.get_command(click.Context(command), word)
                assert inner is not None, f"{page}: skep {text}"
                command = inner
            elif word == "--":
                break
            elif word.startswith("--"):
                known = {opt for param in command.params for opt in param.opts}
                assert word.partition("=")[0] in known, f"{page}: skep {text}: {word}"
    assert seen >= 18


@pytest.mark.parametrize("path", COPIED, ids=lambda path: path.name)
def test_settings_named_are_settings(path):
    named = set(re.findall(r"\bSKEP_[A-Z_]*[A-Z]\b", path.read_text())) - {"SKEP_X", "SKEP_X_FILE"}
    assert settings.unknown(dict.fromkeys(named, "x")) == []


def test_an_unknown_setting_would_be_found():
    assert settings.unknown({"SKEP_PROT": "x", "SKEP_STORE_FILE": "x"}) == ["SKEP_PROT"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_values_of_settings_are_accepted(path):
    given = dict(re.findall(r"^(SKEP_[A-Z_]+)=(\S+)$", path.read_text(), re.MULTILINE))
    settings.load({name: value for name, value in given.items() if not name.endswith("_FILE")})


@pytest.mark.parametrize("path", COPIED, ids=lambda path: path.name)
def test_files_named_are_there(path):
    text = path.read_text()
    missing = [name for name in OURS.findall(text) if not (REPOSITORY / name).exists()]
    assert missing == []
    if path.suffix == ".md":
        for target, anchor in LINK.findall(text):
            there = path.parent / target
            assert there.resolve().exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
                assert anchor in {title.lower().replace(" ", "-") for title in titles}, target


def test_ports_and_folders_are_those_of_the_files():
    unit = (REPOSITORY / "config/systemd/skep.service").read_text()
    page = (REPOSITORY / "docs/deploy/one-machine.md").read_text()
    assert "EnvironmentFile=/etc/skep/skep.env" in unit
    assert "StateDirectory=skep\n" in unit
    assert "SKEP_DATA_DIR=/var/lib/skep\n" in page
    assert f"SKEP_PORT={Settings().port}\n" in page
    nginx = (REPOSITORY / "config/nginx/skep.conf").read_text()
    assert f"server 127.0.0.1:{Settings().port}" in nginx


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
def test_units_are_what_systemd_takes(tmp_path):
    for unit in UNITS:
        text = unit.read_text().replace("/opt/skep/.venv/bin/skep", shutil.which("true"))
        (tmp_path / unit.name).write_text(text)
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", paths[-1]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# Containers: nothing is built here, the files are read.


def compose():
    return yaml.safe_load((REPOSITORY / "compose.yaml").read_text())


def test_compose_names_what_is_there():
    said = compose()
    for service in said["services"].values():
        for volume in service.get("volumes", ()):
            source, _, _target = volume.partition(":")
            is_there = (
                (REPOSITORY / source).exists() if source[0] == "." else source in said["volumes"]
            )
            assert is_there, volume
        assert set(service.get("secrets", ())) <= set(said["secrets"])
        assert set(service.get("depends_on", ())) <= set(said["services"])
        environ = service.get("environment", {})
        ours = {name: value for name, value in environ.items() if name.startswith("SKEP_")}
        assert settings.unknown(ours) == []
        settings.load({name: v for name, v in ours.items() if not name.endswith("_FILE")})


def test_fronts_are_locked_down_and_nginx_finds_them():
    services = compose()["services"]
    conf = (REPOSITORY / "config/nginx/compose.conf").read_text()
    fronts = re.findall(r"server (\w+):8080", conf)
    assert fronts == ["front1", "front2"]
    for name in (*fronts, "init"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["secrets"] == ["store"]


def test_image_is_built_of_files_that_are_let_in():
    text = (REPOSITORY / "Dockerfile").read_text()
    let_in = re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(let_in)
    assert all((REPOSITORY / name).exists() for name in copied)
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    environ = dict(re.findall(r"\b(SKEP_\w+)=(\S+)", text))
    assert settings.load(environ).port == 8080
    assert '"http://127.0.0.1:8080/readyz"' in text.replace("'", '"')


def test_image_has_every_package_of_the_project():
    """`pip install --no-deps .` of what is copied finds all that pyproject.toml names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for name in project["tool"]["setuptools"]["packages"]:
        folder = Path("proto" if name.endswith("pb") else "") / name.replace(".", "/")
        assert (REPOSITORY / folder / "__init__.py").exists(), name
