"""The pages: server-rendered, working without scripts."""

from botapi.web.site import install

__all__ = ["install"]
