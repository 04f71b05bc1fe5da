"""A browser's page that must not complain."""

from __future__ import annotations

from playwright.async_api import BrowserContext, Locator, Page, expect

WAIT_MS = 8_000


class Watched:
    """A page of the dashboard, and everything that went wrong on it: errors of scripts, of the console (among them
    violations of the content security policy), and requests outside the server."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("request", lambda request: self._asked(request.url))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:")):
            self.faults.append(f"asked elsewhere: {url}")

    async def go(self, place: str = "/") -> None:
        """Open a place of the page, such as `/jobs?status=dead`, and wait until it has been read."""
        await self.page.goto(f"{self.url}#{place}")
        await expect(self.page.locator("main h1, main .state")).not_to_have_count(0, timeout=WAIT_MS)
        await expect(self.page.locator(".skeleton")).to_have_count(0, timeout=WAIT_MS)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def confirm(self, name: str) -> None:
        """Press the button of the dialog in front."""
        await self.page.locator("dialog[open]").get_by_role("button", name=name, exact=True).click()

    def assert_quiet(self) -> None:
        loud = [fault for fault in self.faults if not any(word in fault for word in self.expected)]
        assert not loud, loud


async def open_page(context: BrowserContext, url: str) -> Watched:
    return Watched(await context.new_page(), url)
