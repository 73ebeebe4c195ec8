"""The places of fields, against a writer of random texts that knows where it put them."""

from botpb import bots_pb2
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from botapi.cfg.places import Place, places

GAPS = st.text(" \t\n\r", max_size=2) | st.sampled_from(
    [" # note\n", '\n# "quote { [ <\n', "\n\n", " #'\n", "#\n"]
)
QUOTED = st.sampled_from(
    ['"a"', "'b'", '"{"', "'#no'", r'"\"x"', r"'\\'", '""', "\"]\" '>'", "'a'\n\"b\"", '"ü"']
)
STRINGS = ("bot_id", "bot_id_prefix", "owners", "dimensions")


class Writer:
    """Text, and where each field went."""

    def __init__(self, draw):
        self.draw = draw
        self.text = ""
        self.found = {(): Place(1, 1)}

    def gap(self, needed=False):
        self.text += self.draw(GAPS) or (" " if needed else "")

    def here(self):
        before = self.text.rsplit("\n", 1)[-1]
        return Place(self.text.count("\n") + 1, len(before) + 1)

    def strings(self, path, name, counts):
        """One string field, alone or as a list."""
        start = self.here()
        self.text += name
        self.gap()
        self.text += ":"
        self.gap()
        if self.draw(st.booleans()):
            self.element(path, name, counts, start)
            return
        self.text += "["
        for i in range(self.draw(st.integers(0, 3))):
            self.text += "," if i else ""
            self.gap()
            self.element(path, name, counts, self.here())
            self.gap()
        self.gap()
        self.text += "]"

    def element(self, path, name, counts, place):
        number = counts[name] = counts.get(name, -1) + 1
        self.found[*path, (name, number)] = place
        self.text += self.draw(QUOTED)

    def message(self, path, name, counts, fill):
        """One message field, with either pair of marks."""
        number = counts[name] = counts.get(name, -1) + 1
        path = (*path, (name, number))
        self.found[path] = self.here()
        self.text += name
        self.gap()
        self.text += self.draw(st.sampled_from(["", ":"]))
        self.gap()
        marks = self.draw(st.sampled_from(["{}", "<>"]))
        self.text += marks[0]
        self.gap()
        fill(path)
        self.text += marks[1]

    def separator(self):
        self.text += self.draw(st.sampled_from(["", ",", ";"]))
        self.gap(needed=True)

    def auth(self, path):
        counts = {}
        if self.draw(st.booleans()):
            self.found[*path, ("log_if_failed", 0)] = self.here()
            self.text += "log_if_failed: true"
            self.separator()
        for _ in range(self.draw(st.integers(0, 1))):
            self.strings(path, "require_service_account", counts)
            self.separator()

    def group(self, path):
        counts = {}
        for _ in range(self.draw(st.integers(0, 3))):
            if self.draw(st.integers(0, 2)):
                self.strings(path, self.draw(st.sampled_from(STRINGS)), counts)
            else:
                self.message(path, "auth", counts, self.auth)
            self.separator()

    def file(self):
        counts = {}
        self.gap()
        for _ in range(self.draw(st.integers(0, 3))):
            if self.draw(st.booleans()):
                self.strings((), "trusted_dimensions", counts)
            else:
                self.message((), "bot_group", counts, self.group)
            self.separator()


@st.composite
def files(draw):
    writer = Writer(draw)
    writer.file()
    return writer


@settings(deadline=None, max_examples=15)
@given(writer=files())
def test_places_are_where_the_fields_were_written(writer):
    text_format.Parse(writer.text, bots_pb2.BotsCfg())  # the writer writes what parses
    assert dict(places(writer.text)) == writer.found


@settings(deadline=None, max_examples=60)
@given(text=st.text("ab{}<>[]:,;#\"'\\\n 1-", max_size=40))
def test_places_end_with_some_answer_when_the_text_is_garbled(text):
    assert places(text)[()] == Place(1, 1)


def test_places_end_when_the_text_is_nested_without_end():
    assert places("a{" * 2_000)[()] == Place(1, 1)


def test_places_count_elements_of_repeated_messages_in_a_list():
    text = "bot_group: [{bot_id: 'x'},\n  <owners: ['a', 'b']>]\nbot_group {}"
    assert places(text) == {
        (): Place(1, 1),
        (("bot_group", 0),): Place(1, 13),
        (("bot_group", 0), ("bot_id", 0)): Place(1, 14),
        (("bot_group", 1),): Place(2, 3),
        (("bot_group", 1), ("owners", 0)): Place(2, 13),
        (("bot_group", 1), ("owners", 1)): Place(2, 18),
        (("bot_group", 2),): Place(3, 1),
    }
