"""Where each field of a protobuf text stands, so that a mistake in it can be pointed at.

The text has been parsed before by `google.protobuf.text_format`, which names the place of
a syntax error but keeps no places of what it understood. So this reader knows the shape
of the format and nothing of any schema; in a text that does not parse it finds something
or other, but it always ends.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Path = tuple[tuple[str, int], ...]
"""The way from the file to a value: field names, each with its number from 0."""

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<mark>[{}<>\[\]:,;])
      | (?P<word>[^\s\#"'{}<>\[\]:,;]+)
      | (?P<stray>.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"{": "}", "<": ">"}
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, both from 1; columns count characters."""

    line: int
    column: int


def places(text: str) -> Mapping[Path, Place]:
    """The place of every field of the text: of its name, or of its element in a `[...]`.

    The empty path is the file itself.
    """
    found: dict[Path, Place] = {(): Place(1, 1)}
    _Reader(_tokens(text), found).message((), "")
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: Place


def _tokens(text: str) -> Iterator[_Token]:
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup or "stray", match.group()
        if kind != "skip":
            yield _Token(kind, token, Place(line, match.start() - line_start + 1))
        breaks = token.count("\n")
        if breaks:
            line += breaks
            line_start = match.start() + token.rindex("\n") + 1


class _Reader:
    """Walks the tokens once, noting where fields begin."""

    def __init__(self, tokens: Iterator[_Token], found: dict[Path, Place]) -> None:
        self._tokens = tokens
        self._found = found
        self._next = next(tokens, None)

    def message(self, path: Path, closing: str) -> None:
        """Read fields until the closing mark (or the end), and consume the mark."""
        counts: dict[str, int] = {}
        while (token := self._take()) is not None and token.text != closing:
            if token.kind == "word":
                self._field(path, token, counts)

    def _field(self, path: Path, name: _Token, counts: dict[str, int]) -> None:
        self._skip(":")
        if not self._skip("["):
            self._value(self._number(path, name, counts), name.place)
            return
        while self._next is not None and not self._skip("]"):
            self._value(self._number(path, name, counts), self._next.place)
            self._skip(",")

    def _number(self, path: Path, name: _Token, counts: dict[str, int]) -> Path:
        number = counts.get(name.text, 0)
        counts[name.text] = number + 1
        return (*path, (name.text, number))

    def _value(self, path: Path, place: Place) -> None:
        self._found[path] = place
        token = self._take()
        if token is None:
            return
        if token.text in _CLOSING and len(path) < _MAX_DEPTH:
            self.message(path, _CLOSING[token.text])
        elif token.kind == "string":
            while self._next is not None and self._next.kind == "string":
                self._take()

    def _take(self) -> _Token | None:
        token, self._next = self._next, next(self._tokens, None)
        return token

    def _skip(self, mark: str) -> bool:
        if self._next is None or self._next.text != mark:
            return False
        self._take()
        return True
