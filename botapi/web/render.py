"""Templates to HTML: everything is escaped, and a name that is not there is an error."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from botapi.web import words
from botapi.web.static_files import StaticFiles


class Templates:
    """The templates of this package."""

    def __init__(self, files: StaticFiles) -> None:
        self._environment = Environment(
            loader=PackageLoader("botapi.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            ago=words.ago,
            badge=words.badge,
            bot_sentence=words.bot_sentence,
            icon=words.icon,
            pretty=words.pretty,
            query_string=words.query_string,
            seconds=words.seconds,
            segment=words.segment,
            task_badge=words.task_badge,
            task_sentence=words.task_sentence,
            task_word=words.task_word,
        )
        self._environment.globals.update(static=files.url, between=words.between)

    def html(self, name: str, **values: Any) -> str:
        """The page of this template."""
        return self._environment.get_template(name).render(**values)
