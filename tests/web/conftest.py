"""A browser without JavaScript, and somebody who has signed in with it."""

import re

import pytest

from tests.api.conftest import admin, admin_key, ready_bot  # noqa: F401

TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


class Browser:
    """Keeps cookies and follows nothing by itself."""

    def __init__(self, client):
        self.client = client

    def get(self, path, **more):
        return self.client.get(path, **more)

    def send(self, path, form, headers=None):
        return self.client.post(path, data=form, headers=headers or {})

    def token(self, path):
        """The token in the form on that page."""
        found = TOKEN.findall(self.get(path).text)
        assert found, f"no form on {path}"
        return found[-1]

    def sign_in(self, api_key, following="/"):
        form = {"api_key": api_key, "next": following, "form_token": self.token("/signin")}
        return self.send("/signin", form)


@pytest.fixture
def stranger(parts):
    from botapi.app import create_app

    return Browser(create_app(parts).test_client())


@pytest.fixture
def browser(parts, admin_key):  # noqa: F811
    from botapi.app import create_app

    browser = Browser(create_app(parts).test_client())
    assert browser.sign_in(admin_key).status_code == 303
    return browser
