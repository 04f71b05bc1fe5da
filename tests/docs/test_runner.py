"""The runner of pages notices when a page is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from .page import anchors, blocks, links, tables
from .runner import Wrong, run_page

PYTHON = "```python\nprint('one')\nprint('two')\n```\n\n"
FENCED = "```{}\n{}\n```\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


RIGHT = [
    PYTHON + "<!-- output -->\n```text\none\ntwo\n```\n",
    PYTHON + "<!-- output -->\n```text\n…\ntwo\n```\n",
    "```python\nimport asyncio\nx = 1\n```\n```python\nawait asyncio.sleep(0)\nassert x == 1\n```\n",
    "<!-- file: a.txt -->\n```text\nhello\n```\n" + FENCED.format("console", "$ cat a.txt\nhel…"),
    "<!-- exits: 3 -->\n" + FENCED.format("console", "$ echo a\na\n$ exit 3"),
    "<!-- not run: it needs the moon -->\n" + FENCED.format("python", "import moon"),
    FENCED.format("console", "$ true"),
    FENCED.format("console", "$ python -c 'import time\n> print(1, flush=True)\n> try: time.sleep(30)\n"
                  "> except KeyboardInterrupt: pass'\n1\n^C"),
]  # fmt: skip
WRONG = [
    (PYTHON + "<!-- output -->\n```text\none\nthree\n```\n", "three"),
    (PYTHON + "<!-- output -->\n```text\ntwo\none\n```\n", "the page says"),
    (PYTHON + "<!-- output -->\n```text\non\n```\n", "the page says"),
    ("```python\nraise ValueError('odd')\n```\n", "odd"),
    ("```python\n1 +\n```\n", "SyntaxError"),
    (FENCED.format("console", "$ false"), "ended with 1, not 0"),
    ("<!-- exits: 2 -->\n" + FENCED.format("console", "$ true"), "ended with 0, not 2"),
    (FENCED.format("console", "$ echo hello\ngoodbye"), "goodbye"),
    (FENCED.format("console", "$ false\n$ true"), "ended with 1"),
    (FENCED.format("console", "$ echo hello\nnever\n^C"), "did not print"),
]


@pytest.mark.parametrize("text", RIGHT)
def test_a_page_that_is_right_runs(folder: Path, text: str) -> None:
    run_page(page(folder, text))


@pytest.mark.parametrize(("text", "named"), WRONG)
def test_a_page_that_is_wrong_is_refused_by_place(folder: Path, text: str, named: str) -> None:
    with pytest.raises(Wrong, match=r"page\.md:\d+: ") as refusal:
        run_page(page(folder, text))
    assert named in str(refusal.value)


def test_what_is_in_a_fence_is_no_link_heading_or_table(folder: Path) -> None:
    text = "# A b-c!\n\n[x](y.md) and `[no](z.md)`\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n\n"
    path = page(folder, text + FENCED.format("text", "# no\n[no](no.md)\n| no |"))
    assert links(path) == ["y.md"]
    assert anchors(path) == {"a-b-c"}
    assert tables(path) == [[["a", "b"], ["1", "x|y"]]]
    assert [block.language for block in blocks(path)] == ["text"]
