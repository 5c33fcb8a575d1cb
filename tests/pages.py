"""README and the pages of docs, and the commands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path, language: str, prompt: str = "") -> list[str]:
    """The lines of the page's fenced blocks of a language that begin with ``prompt``, without their comments."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(prompt) and line.strip()]
    return [re.sub(r"\s{2,}#.*$", "", line.removeprefix(prompt)) for line in lines]
