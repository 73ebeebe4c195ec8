"""What values that people write look like: each function says what is wrong with one."""

import ipaddress
import re
from urllib.parse import urlsplit

_EMAIL = re.compile(r"[0-9a-zA-Z_\-.+%]+@[0-9a-zA-Z_\-.]+")
_REALM = re.compile(r"(@internal|[a-z0-9_\-]{1,100}):(@root|@legacy|@project|[a-z0-9_.\-/]{1,400})")


def is_email(text: str) -> bool:
    """Does it look like an e-mail address?"""
    return _EMAIL.fullmatch(text) is not None


def realm_problem(text: str) -> str:
    """What is wrong with the global name of a realm; empty when nothing is."""
    return "" if _REALM.fullmatch(text) else 'not "project:name"'


def url_problem(text: str, *, may_be_loopback_http: bool = False) -> str:
    """What is wrong with an https URL (or one of http to this host); empty when nothing is."""
    if not text:
        return "empty"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "not a URL"
    try:
        url = urlsplit(text)
        host = url.hostname
        _ = url.port  # raises when it is none
    except ValueError:
        return "not a URL"
    if url.scheme == "http" and may_be_loopback_http and is_loopback(host or ""):
        return ""
    if url.scheme != "https" or not host:
        return (
            "not an https URL (http only to loopback)"
            if may_be_loopback_http
            else "not an https URL"
        )
    return "it must not carry a user or password" if "@" in url.netloc else ""


def is_loopback(host: str) -> bool:
    """Is this a name or an address of this machine?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
