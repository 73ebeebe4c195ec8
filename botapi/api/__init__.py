"""The JSON API for people and scripts."""

from flask import Flask

from botapi.api.routes import ApiRoutes
from botapi.api.server import ApiServer
from botapi.door import Door


def install(app: Flask, api_server: ApiServer, door: Door) -> None:
    """Add `/api/v1` to the application."""
    app.register_blueprint(ApiRoutes(api_server, door).blueprint())


__all__ = ["ApiServer", "install"]
