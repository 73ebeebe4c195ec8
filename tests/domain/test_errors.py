import pytest

from botapi.domain.errors import MAX_MESSAGE_CHARS, Code, Refusal, one_line


def test_code_is_the_grpc_name_in_both_spellings():
    assert Code.INVALID_ARGUMENT == "INVALID_ARGUMENT"
    assert Code.INVALID_ARGUMENT.wire_name == "InvalidArgument"
    assert {code.wire_name for code in Code} >= {"NotFound", "Unauthenticated", "Internal"}


def test_refusal_holds_code_and_message():
    refusal = Refusal(Code.NOT_FOUND, "no such bot")
    assert (refusal.code, refusal.message) == (Code.NOT_FOUND, "no such bot")
    assert str(refusal) == "NOT_FOUND: no such bot"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\r\nb", "a  b"), ("a\x1b[31m\u2028b\0", "a [31m b "), ("ü 日本", "ü 日本")],
)
def test_one_line_replaces_what_would_break_a_line_or_a_terminal(text, shown):
    assert one_line(text) == shown
    assert Refusal(Code.INTERNAL, text).message == shown


def test_one_line_cuts_what_is_too_long():
    assert one_line("x" * MAX_MESSAGE_CHARS) == "x" * MAX_MESSAGE_CHARS
    assert one_line("x" * (MAX_MESSAGE_CHARS + 1)) == "x" * MAX_MESSAGE_CHARS + "..."
