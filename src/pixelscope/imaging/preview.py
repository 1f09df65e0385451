"""Images as HTML for notebooks."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT = 48
"""Minimum height of images in CSS pixels."""
GAP = 2
"""White pixels between neighbouring images."""


def sheet_html(heading: str, rows: Sequence[tuple[str, NDArray[np.uint8]]]) -> str:
    """Return a contact sheet: a heading, then one row per name with its uint8 images (N, H, W, 3); empty rows are omitted."""
    lines = [f"<tr><th>{escape(name)}</th><td>{_strip(images)}</td></tr>" for name, images in rows if len(images)]
    return f"<p>{escape(heading)}</p><table>{''.join(lines)}</table>"


def text_html(text: str) -> str:
    """Return aligned text, such as a table for a terminal, as HTML."""
    return f"<pre>{escape(text)}</pre>"


def _strip(images: NDArray[np.uint8]) -> str:
    """Return images next to each other as one <img> with embedded content."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(padded), axis=1)).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    height = max(HEIGHT, images.shape[1])
    return f'<img height="{height}" style="image-rendering: pixelated" src="data:image/png;base64,{content}">'
