"""The web app: runs, charts and interactive models in a browser, on the public API and with the report's style."""

from pixelscope.serve.app import create_app, serve_runs

__all__ = ["create_app", "serve_runs"]
