"""What people and scripts ask: `/api/v1`, and the public API `/prpc`."""

from flask import Flask

from botapi.api.prpc import legacy_bots
from botapi.api.prpc.transport import PrpcRoutes
from botapi.api.routes import ApiRoutes
from botapi.api.server import ApiServer
from botapi.door import Door


def install(app: Flask, api_server: ApiServer, door: Door) -> None:
    """Add `/api/v1`, `/prpc` and the two lists of older tools to the application."""
    app.register_blueprint(ApiRoutes(api_server, door).blueprint())
    PrpcRoutes(api_server, door).install(app)
    app.register_blueprint(legacy_bots.blueprint(api_server, door))


__all__ = ["ApiServer", "install"]
