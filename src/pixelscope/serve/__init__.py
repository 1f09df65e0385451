"""The web app: runs, drawn digits and frames, in a browser on this machine; on the public API, with the report's look."""

from pixelscope.serve.app import create_app, serve_runs

__all__ = ["create_app", "serve_runs"]
