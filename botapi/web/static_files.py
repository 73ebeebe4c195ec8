"""The style sheet and the script, under names that change with their content."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is served."""

    content: bytes
    content_type: str


class StaticFiles:
    """All files of the folder, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._urls: dict[str, str] = {}
        self._files: dict[str, StaticFile] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix not in TYPES:
                continue
            content = path.read_bytes()
            name = f"{path.stem}.{sha256(content).hexdigest()[:16]}{path.suffix}"
            self._urls[path.name] = f"/static/{name}"
            self._files[name] = StaticFile(content, TYPES[path.suffix])

    def url(self, name: str) -> str:
        """Where a file of this plain name is."""
        return self._urls[name]

    def get(self, name: str) -> StaticFile | None:
        """The file behind the last part of a URL."""
        return self._files.get(name)
