"""The dashboard as compiled files. Its sources are in `ui/` of the repository; it speaks to the HTTP API only."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).with_name("static")
"""Where the compiled page is: `index.html` and what it names. Missing if the package was built without it."""
