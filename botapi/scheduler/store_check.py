"""Reads a whole store and says what is wrong in it: `skep store check` (docs/deploy/moving.md).

Every document is read as its kind is, lies under its own key, and has what it refers to. What
looks wrong is read once more, together with what it refers to, in one transaction: so servers
may work on the store meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from botapi.auth import access, directory, keys
from botapi.cfg import provider, releases
from botapi.domain.names import parse_task_id, run_id
from botapi.domain.task import TaskState
from botapi.secrets import vault
from botapi.store import codec
from botapi.store.copying import MARK_KEY, PAGE
from botapi.store.documents import SCHEMA_KEY, SCHEMA_KIND
from botapi.store.protocol import (
    SCHEMA_NUMBER,
    Doc,
    Key,
    ReadTxn,
    Store,
    join_key,
    split_key,
)
from botapi.store.walk import key_pages
from botapi.transactions.create_task import EXPIRE
from botapi.transactions.enrol_bot import KIND as ENROLLED
from botapi.transactions.server_presence import KIND as SERVERS

MAX_FINDINGS = 1_000
"""Most that are told of; the rest is counted."""

Ref = tuple[str, Key]
Found = Mapping[Ref, Doc | None]

_BAD = (ValueError, LookupError, TypeError, AttributeError)
"""What a reader raises for a body that is not of its kind."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: where, and what."""

    kind: str
    key: Key
    text: str


@dataclass(slots=True)
class Report:
    """What was read, and what was found; `unsaid` findings are counted only."""

    documents: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unsaid: int = 0

    def add(self, kind: str, key: Key, text: str) -> None:
        """One more finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, key, text))
        else:
            self.unsaid += 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for each document of a kind.

    `read` raises one of `_BAD` for a bad body; `key` is where such a value belongs, `state` what
    sweeps find it by; `refs` is what `problem` wants to see beside it. `problem` is empty when
    all is well.
    """

    read: Callable[[Doc], Any]
    key: Callable[[Any], Key] | None = None
    state: Callable[[Any], str] | None = None
    refs: Callable[[Any], Sequence[Ref]] = lambda _value: ()
    problem: Callable[[Any, Found], str] = lambda _value, _found: ""


def check_store(store: Store) -> Report:
    """Read everything. The errors of the store rise, but for documents that cannot be decoded."""
    report = Report()
    for kind in store.kinds():
        number, follow = 0, _Output(store, report) if kind == codec.OUT else None
        for page in key_pages(store, kind, limit=PAGE):
            docs = _readable(store, kind, page, report)
            _check_page(store, kind, docs, report)
            if follow is not None:
                follow.go_on(docs)
            number += len(page)
        if follow is not None:
            follow.end()
        if number:
            report.documents[kind] = number
            if kind not in RULES:
                report.add(kind, "", "is no kind that this Skep knows")
    return report


def _readable(store: Store, kind: str, page: Sequence[Key], report: Report) -> list[Doc]:
    try:
        return [doc for doc in store.get(kind, *page) if doc is not None]
    except _BAD:
        return [doc for key in page for doc in _one(store, kind, key, report)]


def _one(store: Store, kind: str, key: Key, report: Report) -> Iterator[Doc]:
    try:
        (doc,) = store.get(kind, key)
    except _BAD as error:
        report.add(kind, key, f"cannot be decoded: {_line(error)}")
    else:
        if doc is not None:
            yield doc


def _check_page(store: Store, kind: str, docs: Sequence[Doc], report: Report) -> None:
    rule = RULES.get(kind)
    if rule is None:
        return
    refs = {ref for doc in docs for ref in _refs(rule, doc)}
    found = _fetch(store, refs)
    for doc in docs:
        if _problem(rule, doc, found):
            text = store.transact(_again(rule, kind, doc.key), label="store_check")
            if text:
                report.add(kind, doc.key, text)


def _again(rule: Rule, kind: str, key: Key) -> Callable[[ReadTxn], str]:
    """Judge one document by what is in the store at one moment."""

    def work(txn: ReadTxn) -> str:
        doc = _get_one(txn, kind, key)
        return "" if doc is None else _problem(rule, doc, _fetch(txn, _refs(rule, doc)))

    return work


def _refs(rule: Rule, doc: Doc) -> set[Ref]:
    try:
        return set(rule.refs(rule.read(doc)))
    except _BAD:
        return set()


def _fetch(reads: ReadTxn | Store, refs: set[Ref]) -> dict[Ref, Doc | None]:
    """What is there under these keys; what cannot be decoded, which is told apart, is not."""
    found: dict[Ref, Doc | None] = {}
    for kind in {kind for kind, _key in refs}:
        keys_of_kind = sorted(key for of, key in refs if of == kind)
        for at in range(0, len(keys_of_kind), PAGE):
            some = keys_of_kind[at : at + PAGE]
            found |= zip(((kind, key) for key in some), _get(reads, kind, some), strict=True)
    return found


def _get(reads: ReadTxn | Store, kind: str, some: Sequence[Key]) -> list[Doc | None]:
    try:
        return reads.get(kind, *some)
    except _BAD:
        return [_get_one(reads, kind, key) for key in some]


def _get_one(reads: ReadTxn | Store, kind: str, key: Key) -> Doc | None:
    try:
        return reads.get(kind, key)[0]
    except _BAD:
        return None


def _problem(rule: Rule, doc: Doc, found: Found) -> str:
    try:
        value = rule.read(doc)
        if rule.key is not None and rule.key(value) != doc.key:
            return f"belongs under the key {rule.key(value)}"
        tags = {tag for tag in doc.tags if tag.startswith("st:")}
        if rule.state is not None and tags != {f"st:{rule.state(value)}"}:
            return f"is {rule.state(value)}, and is found by {sorted(tags)}"
        return rule.problem(value, found)
    except _BAD as error:
        return f"cannot be read: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass(slots=True)
class _Output:
    """Follows the pieces of output in key order: within a run each begins where one ends."""

    store: Store
    report: Report
    run: Key = ""
    at: int = 0

    def go_on(self, docs: Sequence[Doc]) -> None:
        """The next pieces; those that cannot be read are told of elsewhere."""
        for doc in docs:
            with suppress(*_BAD):
                task_id, run, _offset = split_key(doc.key)
                if run == codec.RUN:
                    self._piece(join_key(task_id, run), *codec.read_output(doc))

    def _piece(self, run: Key, offset: int, data: bytes) -> None:
        if run != self.run:
            self.end()
            self.run, self.at = run, 0
        if offset != self.at and self._value(codec.OUTPOS, run):
            key = join_key(*split_key(run), f"{offset:015d}")
            self.report.add(codec.OUT, key, f"the bytes from {self.at} on are not there")
        self.at = offset + len(data)

    def end(self) -> None:
        """The run that was followed has no more pieces: is its position the end of the last?

        What was written after our look is no finding, nor is what is just being deleted.
        """
        said = self._value(codec.OUTPOS, self.run) if self.run else None
        if said is None:
            return
        task_id, position = said
        task = self._value(codec.TASK, codec.task_key(task_id))
        has_ended = task is not None and task.is_final
        if position.committed < self.at or (position.committed > self.at and has_ended):
            text = f"says {position.committed} bytes of output, {self.at} are stored"
            self.report.add(codec.OUTPOS, self.run, text)

    def _value(self, kind: str, key: Key) -> Any:  # noqa: ANN401 - a value of the kind
        doc = _get_one(self.store, kind, key)
        with suppress(*_BAD):
            return None if doc is None else RULES[kind].read(doc)
        return None


# What holds for each kind.


def _body(doc: Doc) -> Mapping[str, Any]:
    return doc.body


def _keyed(read: Callable[[Key, Any], Any]) -> Callable[[Doc], Any]:
    return lambda doc: read(doc.key, doc.body)


def _task_ref(task_id: str) -> Ref:
    return codec.TASK, codec.task_key(parse_task_id(task_id))


def _of_task(task_id: Callable[[Any], str]) -> dict[str, Any]:
    """`refs` and `problem` for what may not be there without its task."""
    return {
        "refs": lambda value: [_task_ref(task_id(value))],
        "problem": lambda value, found: _absent(found, _task_ref(task_id(value))),
    }


def _absent(found: Found, *refs: Ref) -> str:
    for kind, key in refs:
        if found[kind, key] is None:
            return f"there is no {kind} {key}"
    return ""


def _ran(task: Any) -> bool:  # noqa: ANN401 - a value of the kind
    """Has a run of its own ended?"""
    return task.is_final and task.started_ms > 0 and not task.deduped_from


def _task_refs(task: Any) -> list[Ref]:  # noqa: ANN401 - a value of the kind
    key = codec.task_key(task.task_id)
    refs = [(codec.REQ, key)]
    if task.state is TaskState.PENDING:
        refs += [(codec.PEND, task.pend_key), (codec.OFFER, key)]
    if task.state is TaskState.RUNNING:
        refs.append((codec.BOT, join_key(task.bot_id)))
    if _ran(task):
        refs.append((codec.OUTPOS, codec.output_position_key(task.task_id)))
    return refs


def _task_problem(task: Any, found: Found) -> str:  # noqa: ANN401
    key = codec.task_key(task.task_id)
    missing = _absent(found, (codec.REQ, key))
    if missing:
        return missing
    if task.state is TaskState.PENDING:
        waits = [found[codec.PEND, task.pend_key], found[codec.OFFER, key]]
        if waits == [None, None]:
            return "is PENDING, and neither in a queue nor offered"
    if task.state is TaskState.RUNNING:
        doc = found[codec.BOT, join_key(task.bot_id)]
        if doc is None or codec.read_bot(doc).task_id != run_id(task.task_id):
            return f"is RUNNING, and {task.bot_id} does not run it"
    if _ran(task):
        doc = found[codec.OUTPOS, codec.output_position_key(task.task_id)]
        if not codec.read_output_position(doc).sealed:
            return "has ended, and its output is not sealed"
    return ""


def _bot_problem(bot: Any, found: Found) -> str:  # noqa: ANN401
    """A run may have ended without its bot: the bot's record says so when it calls next."""
    if not bot.task_id:
        return ""
    doc = found[_task_ref(bot.task_id)]
    task = None if doc is None else codec.read_task(doc)
    if task is None or task.bot_id != bot.bot_id:
        return f"runs {bot.task_id}, which is {f'of {task.bot_id}' if task else 'not there'}"
    return ""


def _pend_refs(pending: Any) -> list[Ref]:  # noqa: ANN401
    key = codec.task_key(pending.task_id)
    return [(codec.TASK, key), (codec.OFFER, key), (codec.QUEUE, pending.queue_key)]


def _pend_problem(pending: Any, found: Found) -> str:  # noqa: ANN401
    key = codec.task_key(pending.task_id)
    missing = _absent(found, (codec.TASK, key), (codec.QUEUE, pending.queue_key))
    if missing:
        return missing
    doc = found[codec.TASK, key]
    task = codec.read_task(doc) if doc is not None else None
    if task is None or task.state is not TaskState.PENDING or task.pend_key != pending.key:
        return f"is claimable, and its task is {task.state if task else 'not there'}"
    if found[codec.OFFER, key] is not None:
        return "is claimable, and offered to a bot"
    return ""


def _offer_problem(offer: Any, found: Found) -> str:  # noqa: ANN401
    doc = found[_task_ref(offer.pending.task_id)]
    state = codec.read_task(doc).state if doc is not None else "not there"
    return "" if state == TaskState.PENDING else f"is an offer of a task that is {state}"


def _due_task(doc: Doc) -> str:
    """The task of the timer of a slice; empty for timers that outlive their task."""
    _bucket, when, what, task_id = split_key(doc.key)
    int(when)
    return task_id if what == EXPIRE else ""


def _due_problem(task_id: str, found: Found) -> str:
    return _absent(found, _task_ref(task_id)) if task_id else ""


def _read_cfg(doc: Doc) -> tuple[str, Any]:
    """What is in a document of the configuration; "head" before what is in force."""
    if doc.key == provider.FILE_KEY:
        return "", provider.read_file(doc)
    if doc.key == provider.REJECTED_KEY:
        return "", provider.read_rejected(doc)
    head = provider.head_of(doc.body)
    if doc.key == provider.HEAD_KEY:
        return "head", head
    if provider.revision_key(head.rev) != doc.key:
        raise ValueError(f"revision {head.rev} lies under another key")
    provider.read_source(doc.body)
    return "", head


def _cfg_refs(value: tuple[str, Any]) -> list[Ref]:
    what, head = value
    return [(provider.KIND, provider.revision_key(head.rev))] if what == "head" else []


def _cfg_problem(value: tuple[str, Any], found: Found) -> str:
    for ref in _cfg_refs(value):
        doc = found[ref]
        if doc is None:
            return f"revision {value[1].rev} is in force and not there"
        if provider.head_of(doc.body).digest != value[1].digest:
            return f"revision {value[1].rev} has another digest"
    return ""


def _archive_refs(doc: Doc) -> list[Ref]:
    if doc.key != releases.DEPLOYMENT_KEY:
        return []
    return [
        (releases.KIND, join_key("chunk", release.release_id, f"{number:04d}"))
        for release in releases.read_deployment(doc).releases
        for number in range(release.chunks)
    ]


def _archive_problem(doc: Doc, found: Found) -> str:
    return _absent(found, *_archive_refs(doc))


def _read_archive(doc: Doc) -> Doc:
    if doc.key == releases.DEPLOYMENT_KEY:
        releases.read_deployment(doc)
    elif doc.key == releases.VERSIONS_KEY:
        releases.read_versions(doc)
    elif split_key(doc.key)[0] == "chunk":
        len(doc.body["data"])
    else:
        len(doc.body["manifest"]) + len(doc.body["signature"])
    return doc


def _read_schema(doc: Doc) -> Doc:
    if doc.key == SCHEMA_KEY:
        number = int(doc.body["number"])
        if not SCHEMA_NUMBER - 1 <= number <= SCHEMA_NUMBER:
            raise ValueError(f"schema {number}; this Skep knows {SCHEMA_NUMBER} and the one before")
    return doc


def _schema_problem(doc: Doc, _found: Found) -> str:
    if doc.key == MARK_KEY:
        return "the copy into this store is not finished: skep store copy --resume goes on"
    return ""


def _has(*names: str) -> Callable[[Doc], Doc]:
    """A body that has these fields, for kinds without a reader of their own."""

    def read(doc: Doc) -> Doc:
        for name in names:
            doc.body[name]
        return doc

    return read


RULES: Mapping[str, Rule] = {
    codec.BOT: Rule(
        codec.read_bot,
        key=lambda bot: join_key(bot.bot_id),
        state=lambda bot: bot.status,
        refs=lambda bot: [_task_ref(bot.task_id)] if bot.task_id else [],
        problem=_bot_problem,
    ),
    codec.LIVE: Rule(codec.read_live, key=lambda live: codec.live_key(live.bot_id)),
    codec.EVENT: Rule(codec.read_event, key=lambda event: codec.event_doc(event, 0).key),
    codec.REQ: Rule(
        codec.read_request,
        key=lambda request: codec.task_key(request.task_id),
        **_of_task(lambda request: request.task_id),
    ),
    codec.TASK: Rule(
        codec.read_task,
        key=lambda task: codec.task_key(task.task_id),
        state=lambda task: task.state,
        refs=_task_refs,
        problem=_task_problem,
    ),
    codec.PEND: Rule(
        codec.read_pending,
        key=lambda pending: pending.key,
        refs=_pend_refs,
        problem=_pend_problem,
    ),
    codec.OFFER: Rule(
        codec.read_offer,
        key=lambda offer: codec.task_key(offer.pending.task_id),
        refs=lambda offer: [_task_ref(offer.pending.task_id)],
        problem=_offer_problem,
    ),
    codec.QUEUE: Rule(codec.read_queue, key=codec.queue_key),
    codec.LSESSION: Rule(codec.read_lease_session, key=lambda session: join_key(session.bot_id)),
    codec.DUE: Rule(
        _due_task,
        refs=lambda task_id: [_task_ref(task_id)] if task_id else [],
        problem=_due_problem,
    ),
    codec.OUT: Rule(
        lambda doc: (split_key(doc.key)[0], len(codec.read_output(doc)[1])),
        **_of_task(lambda piece: piece[0]),
    ),
    codec.OUTPOS: Rule(
        lambda doc: (split_key(doc.key)[0], codec.read_output_position(doc)),
        **_of_task(lambda position: position[0]),
    ),
    codec.RUN_TIME: Rule(
        lambda doc: codec.task_key_of_run_time(doc.key),
        refs=lambda key: [(codec.TASK, key)],
        problem=lambda key, found: _absent(found, (codec.TASK, key)),
    ),
    codec.DEDUP: Rule(_body),
    codec.AUDIT: Rule(_has("at_ms", "actor", "verb", "target", "reason", "before", "after")),
    codec.DUTY: Rule(_has("holder", "until_ms", "fence")),
    SERVERS: Rule(_has("server_id", "knows", "seen_ms")),
    provider.KIND: Rule(_read_cfg, refs=_cfg_refs, problem=_cfg_problem),
    releases.KIND: Rule(_read_archive, refs=_archive_refs, problem=_archive_problem),
    keys.KIND: Rule(lambda doc: keys.read_keys(doc.body)),
    access.KIND: Rule(_keyed(access.read_api_key)),
    directory.KIND: Rule(directory.read_user, key=lambda user: directory.user_key(user.identity)),
    directory.SESSIONS: Rule(_has("identity", "key_id", "created_ms")),
    ENROLLED: Rule(_has("v")),
    vault.NAMED: Rule(lambda doc: vault.read_secret(doc.key, doc)),
    vault.OF_TASKS: Rule(vault.read_task_secret),
    SCHEMA_KIND: Rule(_read_schema, problem=_schema_problem),
}
"""Every kind. What a sweep makes good by itself is no finding: a timer of a task that has ended,
an offer whose bot has gone, an expired document."""
