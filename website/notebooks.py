"""Notebooks as pages: their text, and their code in blocks."""

import json


def as_page(notebook: str) -> str:
    """Markdown with the cells of a notebook, which is JSON; what cells have printed is not in it."""
    cells = json.loads(notebook)["cells"]
    parts = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in parts) + "\n"
