"""The filter language of lists (docs/filter.md): texts to expressions, and what they say.

    pool:ci os:linux|mac -status:dead       all of them
    (state:failed) OR (created:<1h user:*)  one of them
    exit>=3 duration:>2h "free text"

A `Vocabulary` names the keys of one kind of thing; every other key is a tag or dimension.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import ge, gt, le, lt
from typing import Protocol

MAX_CHARS = 4_096
MAX_TERMS = 100
MAX_DEPTH = 10
SHOWN_CHARS = 80

PRESENT = "*"
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}
_KEY = re.compile(r"[^\s:<>=!()\"|]+")
_OPERATOR = re.compile(r":?(?:>=|<=|>|<)|!=|:|=")
_VALUE = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s()|"]+))')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
_SPAN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,7})h)?(?:(\d{1,9})m)?(?:(\d{1,12}(?:\.\d{1,6})?)s)?")


class FilterError(ValueError):
    """What is wrong with a filter: `part` is the offending text, `at` counts from 0."""

    def __init__(self, at: int, part: str, problem: str) -> None:
        self.at = at
        self.part = part
        self.problem = problem
        super().__init__(f'"{part[:SHOWN_CHARS]}" at character {at + 1}: {problem}')


class Kind(StrEnum):
    """What a key holds: texts, or numbers, or seconds, or how long ago something was."""

    TEXT = "text"
    NUMBER = "number"
    SECONDS = "duration"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The keys of one kind of thing.

    `words` are the only values that a key takes. `other` is what a key that is not
    here means: `tag` or `dimension`, written in full as `tag.KEY`. Below `paths` there
    is a tree: `state.disk.free`. `others_compare`: may the others hold numbers?
    """

    keys: Mapping[str, Kind]
    words: Mapping[str, frozenset[str]]
    other: str
    paths: tuple[str, ...] = ()
    others_compare: bool = False

    def offered(self) -> str:
        """All keys, for somebody who mistyped one."""
        paths = [f"{path}.PATH" for path in self.paths]
        return ", ".join([*sorted(self.keys), *paths, f"{self.other}.KEY"])


class Facts(Protocol):
    """One thing as filters see it. Keys are those of its vocabulary; `tag.KEY` for others."""

    def values(self, key: str) -> Sequence[str | float]:
        """What it has under this key; nothing when it has none. Ages are seconds."""
        ...

    def texts(self) -> Sequence[str]:
        """What free text is looked for in."""
        ...


@dataclass(frozen=True, slots=True)
class Has:
    """One of these values is there; no values: any is."""

    key: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compares:
    """A number is there that compares so."""

    key: str
    operator: str
    number: float


@dataclass(frozen=True, slots=True)
class Text:
    """This text is somewhere, in whatever case."""

    text: str


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Expression"


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; without parts anything passes."""

    parts: tuple["Expression", ...] = ()


@dataclass(frozen=True, slots=True)
class Either:
    """One of the parts holds."""

    parts: tuple["Expression", ...]


Expression = Has | Compares | Text | Not | All | Either


def parse(text: str, vocabulary: Vocabulary) -> All:
    """The terms that must all hold. Raises FilterError, which names the offending part."""
    if len(text) > MAX_CHARS:
        raise FilterError(MAX_CHARS, text[MAX_CHARS:], f"over {MAX_CHARS} characters; ask for less")
    parser = _Parser(text, vocabulary)
    found = parser.alternatives()
    if parser.at < len(text):
        raise FilterError(parser.at, text[parser.at], "closes nothing; leave it out")
    return found if isinstance(found, All) else All((found,))


def terms(expression: Expression) -> Iterator[Has | Compares | Text]:
    """What the filter asks for, term by term, whatever joins or denies them."""
    match expression:
        case All(parts) | Either(parts):
            for part in parts:
                yield from terms(part)
        case Not(part):
            yield from terms(part)
        case _:
            yield expression


def passes(expression: Expression, facts: Facts) -> bool:
    """Does it hold of this thing?"""
    match expression:
        case All(parts):
            return all(passes(part, facts) for part in parts)
        case Either(parts):
            return any(passes(part, facts) for part in parts)
        case Not(part):
            return not passes(part, facts)
        case Text(text):
            wanted = text.casefold()
            return any(wanted in found.casefold() for found in facts.texts())
        case Has(key, values):
            found = [as_text(value) for value in facts.values(key)]
            return any(value in values for value in found) if values else bool(found)
        case Compares(key, operator, number):
            compare = _OPERATORS[operator]
            numbers = (as_number(value) for value in facts.values(key))
            return any(value is not None and compare(value, number) for value in numbers)


def as_text(value: str | float) -> str:
    """A value as it is written in a filter: whole numbers without a point."""
    return value if isinstance(value, str) else f"{value:.15g}"


def as_number(value: str | float) -> float | None:
    """The number in a value; None where there is none."""
    if not isinstance(value, str):
        return float(value)
    return float(value) if _NUMBER.fullmatch(value) else None


def seconds(text: str) -> float | None:
    """Seconds in `90`, `90s`, `2h30m` or `1d`; None for anything else."""
    if _NUMBER.fullmatch(text):
        return float(text)
    found = _SPAN.fullmatch(text)
    if not text or found is None:
        return None
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


@dataclass(slots=True)
class _Parser:
    """Recursive descent; `at` is where it stands."""

    text: str
    vocabulary: Vocabulary
    at: int = 0
    depth: int = 0
    terms: int = field(default=0)

    def alternatives(self) -> Expression:
        """Conjunctions with OR between them."""
        parts = [self._conjunction()]
        while self._takes_or():
            parts.append(self._conjunction(is_needed=True))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _conjunction(self, *, is_needed: bool = False) -> All:
        start = self.at
        parts: list[Expression] = []
        while self._is_at_term():
            parts.append(self._term())
        if not parts and (is_needed or self._is_at_or()):
            raise FilterError(start, self._rest(), "OR needs a term on either side")
        return All(tuple(parts))

    def _skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _is_at_or(self) -> bool:
        self._skip_blanks()
        after = self.text[self.at + 2 : self.at + 3]
        return self.text.startswith("OR", self.at) and (not after or after in "( " or after == ")")

    def _takes_or(self) -> bool:
        if not self._is_at_or():
            return False
        self.at += 2
        return True

    def _is_at_term(self) -> bool:
        self._skip_blanks()
        is_over = self.at >= len(self.text) or self.text[self.at] == ")"
        return not is_over and not self._is_at_or()

    def _term(self) -> Expression:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise FilterError(self.at, self._rest(), f"more than {MAX_TERMS} terms; ask for less")
        if self.text[self.at] == "-":
            self.at += 1
            return Not(self._positive())
        return self._positive()

    def _positive(self) -> Expression:
        first = self.text[self.at : self.at + 1]
        if first == "(":
            return self._group()
        if first == '"':
            return self._quoted()
        return self._pair()

    def _group(self) -> Expression:
        start = self.at
        self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise FilterError(start, self._rest(), f"more than {MAX_DEPTH} brackets in each other")
        found = self.alternatives()
        if self.text[self.at : self.at + 1] != ")":
            raise FilterError(start, self.text[start:], "is not closed; add )")
        if found == All():
            raise FilterError(start, self.text[start : self.at + 1], "holds no term")
        self.at += 1
        self.depth -= 1
        return found

    def _quoted(self) -> Text:
        found = _QUOTED.match(self.text, self.at)
        if found is None:
            raise FilterError(self.at, self._rest(), 'is not closed; add "')
        self.at = found.end()
        return Text(_unescaped(found[1]))

    def _pair(self) -> Expression:
        start = self.at
        key = _KEY.match(self.text, start)
        if key is None:
            problem = "a term is key:value, key:a|b, key:*, key>3 or text"
            raise FilterError(start, self._rest(), problem)
        operator = _OPERATOR.match(self.text, key.end())
        if operator is None:
            self.at = key.end()
            return Text(key[0])
        name = self._key(start, key[0])
        self.at = operator.end()
        match operator[0].removeprefix(":"):
            case "":
                return self._has(start, name)
            case "!=":
                return Not(self._has(start, name))
            case "=":
                raise FilterError(start, self._rest(start), f"write {key[0]}:value")
            case sign:
                return self._comparison(start, name, sign)

    def _key(self, start: int, key: str) -> str:
        """The key in full."""
        words = self.vocabulary
        if key in words.keys or key.startswith(tuple(f"{path}." for path in words.paths)):
            return key
        if key.startswith(f"{words.other}."):
            return key
        meant = [known for known in words.keys if is_typo(key, known)]
        if meant:
            problem = (
                f"is no key; do you mean {' or '.join(meant)}? There are: {words.offered()}. "
                f"For a {words.other} of this name write {words.other}.{key}"
            )
            raise FilterError(start, key, problem)
        return f"{words.other}.{key}"

    def _has(self, start: int, key: str) -> Expression:
        if self.text.startswith(PRESENT, self.at):
            after = self.text[self.at + 1 : self.at + 2]
            if not after or after.isspace() or after == ")":
                self.at += 1
                return Has(key)
        values = [self._value(start, key)]
        while self.text[self.at : self.at + 1] == "|":
            self.at += 1
            values.append(self._value(start, key))
        return Has(key, tuple(dict.fromkeys(values)))

    def _value(self, start: int, key: str) -> str:
        found = _VALUE.match(self.text, self.at)
        if found is None:
            problem = f"has no value; write {key}:value, or {key}:* for any"
            raise FilterError(start, self._rest(start), problem)
        self.at = found.end()
        value = found[2] if found[1] is None else _unescaped(found[1])
        known = self.vocabulary.words.get(key)
        if known is not None:
            value = value.lower()
            if value not in known:
                problem = f"there is no such {key}; use one of {', '.join(sorted(known))}"
                raise FilterError(found.start(), found[0], problem)
        elif self.vocabulary.keys.get(key, Kind.TEXT) is not Kind.TEXT:
            return as_text(self._number(start, key, value))
        return value

    def _comparison(self, start: int, key: str, sign: str) -> Compares:
        kind = self._kind(key)
        if kind is Kind.TEXT:
            able = [name for name, kind in self.vocabulary.keys.items() if kind is not Kind.TEXT]
            problem = f"is a text; {sign} goes with {', '.join(sorted(able))}"
            raise FilterError(start, self._rest(start), problem)
        found = _VALUE.match(self.text, self.at)
        if found is None:
            raise FilterError(start, self._rest(start), f"has no number after {sign}")
        self.at = found.end()
        return Compares(key, sign, self._number(start, key, found[2] or found[1] or ""))

    def _kind(self, key: str) -> Kind:
        known = self.vocabulary.keys.get(key)
        if known is not None:
            return known
        is_tree = key.startswith(tuple(f"{path}." for path in self.vocabulary.paths))
        return Kind.NUMBER if is_tree or self.vocabulary.others_compare else Kind.TEXT

    def _number(self, start: int, key: str, value: str) -> float:
        kind = self._kind(key)
        found = as_number(value) if kind is Kind.NUMBER else seconds(value)
        if found is None:
            what = "a number" if kind is Kind.NUMBER else f"a {kind} such as 90s, 2h30m or 1d"
            raise FilterError(start, self._rest(start), f'"{value[:SHOWN_CHARS]}" is not {what}')
        return found

    def _rest(self, start: int | None = None) -> str:
        """The word that stands here, for the message."""
        begin = self.at if start is None else start
        word = re.match(r"\S+", self.text[begin:])
        return word[0] if word else "(end)"


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def is_typo(given: str, known: str) -> bool:
    """Are these one slip apart: a letter too many, too few, another, or two swapped?"""
    if given == known or min(len(given), len(known)) < 4:
        return False
    if len(given) == len(known):
        wrong = [
            index for index, pair in enumerate(zip(given, known, strict=True)) if len({*pair}) > 1
        ]
        if len(wrong) == 2 and wrong[1] == wrong[0] + 1:
            first = wrong[0]
            return given[first] == known[first + 1] and given[first + 1] == known[first]
        return len(wrong) == 1
    longer, shorter = sorted((given, known), key=len, reverse=True)
    cuts = (longer[:index] + longer[index + 1 :] for index in range(len(longer)))
    return shorter in cuts
