"""The text of the wheel's page: README.md without links into the checkout, which lead nowhere from a package index.

All else stands in pyproject.toml. With an address under project.urls.Repository such links lead there instead.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?!https?:)(?P<target>[^)\s]+)\)")


def page() -> str:
    """README.md with absolute links, or, without an address, with the words of links alone and no pictures."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository")

    def absolute(link: re.Match[str]) -> str:
        if address:
            kind = "raw" if link["picture"] else "blob"
            return f"{link['picture']}[{link['words']}]({address}/{kind}/HEAD/{link['target']})"
        return "" if link["picture"] else link["words"]

    return LINK.sub(absolute, (HERE / "README.md").read_text(encoding="utf-8"))


setup(long_description=page(), long_description_content_type="text/markdown")
