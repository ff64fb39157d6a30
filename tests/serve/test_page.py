"""The page at / in a real Chromium. Tests that take `page` hold for any server; `stubbed` is the page on the stub.

After every test: no error in the console, no file of the page missing, no request to anywhere else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.browser import CONTRAST_AA, CONTRASTS, chromium, emulate
from tests.conftest import LiveApp
from tests.serve.page_stub import MODEL, PAGE, Answer, Stub, json_answer, score, serve_page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ANNOUNCED = Path(__file__).parents[1] / "data" / "announcement_examples.json"
CONTROL, ENTER = "\ue009", "\ue007"  # selenium's names for the keys
HOSTILE = [
    "<img src=x onerror='document.title=1'><b>bold</b>",
    'it\'s "quoted" $(touch ran) `id` $HOME \\ end',
    "JSON\nJSON",
    "مطعم هادئ",
    "x" * 300,
]


class Item(NamedTuple):
    """A document as the list shows it."""

    rank: str
    text: str
    score: str
    move: str
    bar: float
    """The filled part of the bar, 0 to 1."""
    language: str


class Page:
    """The page as a person meets it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        """Until the JavaScript expression holds."""
        deadline = time.monotonic() + 10
        while not self.js(f"return {condition}"):
            assert time.monotonic() < deadline, f"never came true: {condition}\n{self.text('main')}"
            time.sleep(0.01)

    def text(self, selector: str) -> str:
        """What can be seen of it."""
        element = "document.querySelector(arguments[0])"
        return str(self.js(f"return {element}?.checkVisibility() ? {element}.innerText : ''", selector))

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def type(self, selector: str, *keys: str) -> None:
        self.driver.find_element("css selector", selector).send_keys(*keys)

    def choose(self, example: str) -> None:
        self.click(f"label:has([value={example}]) span")

    def fill(self, query: str, documents: str) -> None:
        """A query and documents of one's own, pasted."""
        self.choose("own")
        for selector, text in (("#query", query), ("#documents", documents)):
            self.js(
                "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
                "field.dispatchEvent(new Event('input', {bubbles: true}))",
                selector,
                text,
            )

    def rerank(self) -> None:
        self.js("document.getElementById('status').textContent = ''")
        self.click("#rerank")
        self.wait_for_ranking()

    def wait_for_ranking(self) -> None:
        self.wait("document.getElementById('status').textContent.includes(' ranked in ')")

    def wait_for_error(self) -> str:
        self.wait("!document.getElementById('error').hidden")
        return self.text("#error")

    def items(self) -> list[Item]:
        found = self.js("""return [...document.querySelectorAll("#ranking > li")].map((item) => [
            item.querySelector(".rank").innerText, item.querySelector(".text p").textContent,
            item.querySelector(".score").innerText, item.querySelector(".move").textContent,
            item.querySelector(".bar div").getBoundingClientRect().width / item.querySelector(".bar").clientWidth,
            item.querySelector(".text p").lang])""")
        return [Item(*each) for each in found]

    def texts(self) -> list[str]:
        return [item.text for item in self.items()]

    def request_in_curl(self) -> Any:
        return json.loads(self.text("#snippet").partition("<<'JSON'\n")[2].removesuffix("\nJSON"))

    def emulate(self, width: int = 1000, color_scheme: str = "light", motion: str = "reduce") -> None:
        """Another screen or another reader's settings; motion is off unless a test is about it."""
        emulate(self.driver, width, color_scheme, motion)


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve_page() as stub:
        yield stub


@pytest.fixture
def base_url(stub: Stub) -> str:
    """The server under the page, with a slash at the end."""
    return stub.base_url


@pytest.fixture
def page(driver: Chrome, base_url: str) -> Iterator[Page]:
    with opened(driver, base_url) as page:
        yield page


@pytest.fixture
def stubbed(driver: Chrome, stub: Stub) -> Iterator[Page]:
    with opened(driver, stub.base_url) as page:
        yield page


@contextmanager
def opened(driver: Chrome, base_url: str, model: bool = True) -> Iterator[Page]:
    """The page, once it shows its first example, and the server's model unless that takes a key."""
    for log in ("browser", "performance"):
        driver.get_log(log)  # type: ignore[no-untyped-call]  # reading empties it
    page = Page(driver)
    page.emulate()
    driver.get(base_url)
    page.wait("document.querySelector('#ranking li')")
    if model:
        page.wait("document.getElementById('model').value")
    yield page
    driver.get("about:blank")
    # Statuses of the API are what tests are about; everything else must be silent.
    assert [entry for entry in driver.get_log("browser") if entry["source"] != "network"] == []  # type: ignore[no-untyped-call]
    for url, status in traffic(driver):
        assert url.startswith(base_url)
        assert status == 200 or url.startswith(f"{base_url}v1/"), url


def traffic(driver: Chrome) -> list[tuple[str, int]]:
    """(address, status) of what the browser asked for; status 200 where no answer came."""
    statuses: dict[str, tuple[str, int]] = {}
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            statuses[message["params"]["requestId"]] = (message["params"]["request"]["url"], 200)
        elif message["method"] == "Network.responseReceived":
            response = message["params"]["response"]
            statuses[message["params"]["requestId"]] = (response["url"], response["status"])
    return [pair for pair in statuses.values() if pair[0] != "about:blank"]


def by_score(documents: list[str]) -> list[str]:
    """The documents in the order of their scores, best first: how the stub ranks them for the query "q"."""
    return sorted(documents, key=lambda document: -score("q", document))


@pytest.mark.parametrize("name", ["functions", "sql_tables"])
def test_the_examples_are_the_announcements(page: Page, name: str) -> None:
    announced = json.loads(ANNOUNCED.read_text())[name]
    page.choose(name)
    assert page.texts() == announced["documents"]
    assert page.js("return document.getElementById('query').value") == announced["query"]


def test_an_example_waits_for_its_first_press(page: Page) -> None:
    assert [item.rank for item in page.items()] == ["1", "2", "3"]
    assert [item.score for item in page.items()] == ["", "", ""]
    assert page.text("#status") == "3 documents, not ranked yet"


@pytest.mark.parametrize("name", ["functions", "sql_tables", "skincare"])
def test_rerank_orders_the_documents_by_score(page: Page, name: str) -> None:
    page.choose(name)
    before = page.texts()
    page.rerank()
    items = page.items()
    scores = [float(item.score) for item in items]
    assert scores == sorted(scores, reverse=True)
    assert sorted(page.texts()) == sorted(before)
    for rank, item in enumerate(items, start=1):
        was = before.index(item.text) + 1
        change = f"↑{was - rank}" if was > rank else f"↓{rank - was}" if was < rank else "="
        assert item.rank == str(rank)
        assert item.move.startswith(f"was {was} {change}")


def test_bars_are_as_long_as_scores_are_high(page: Page) -> None:
    page.choose("skincare")
    page.rerank()
    for item in page.items():
        assert item.bar == pytest.approx(float(item.score), abs=0.006)  # three digits, and whole pixels


def test_the_summary_names_time_tokens_and_model(stubbed: Page) -> None:
    stubbed.fill("q", "one\ntwo")
    stubbed.rerank()
    words = stubbed.text("#status").split(" · ")
    assert float(words[0].removeprefix("2 documents ranked in ").removesuffix(" ms")) > 0
    assert words[1:] == ["6 tokens", MODEL]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            {"family": "BERT", "licence": "MIT", "calibrated": True},
            "BERT · 1,024 tokens · weights under MIT · scores are calibrated: 0.5 is an even chance",
        ),
        ({"family": "BERT", "licence": None}, "BERT · 1,024 tokens · scores are not calibrated"),
    ],
)
def test_it_says_what_the_model_is(stub: Stub, driver: Chrome, model: dict[str, Any], line: str) -> None:
    stub.model = model
    with opened(driver, stub.base_url) as page:
        assert page.text("#about") == line
        assert page.text("#instruction-field") == ""
        page.rerank()
    assert "instruction" not in stub.requests[0]


def test_a_model_that_takes_an_instruction_can_be_given_one(stub: Stub, driver: Chrome) -> None:
    stub.model = {"takes_instruction": True, "instruction": "Find the river"}
    with opened(driver, stub.base_url) as page:
        assert page.js("return document.getElementById('instruction').placeholder") == "Find the river"
        page.rerank()
        page.type("#instruction", "Find the alp ")
        assert page.request_in_curl()["instruction"] == "Find the alp"
        page.rerank()
    assert [request.get("instruction") for request in stub.requests] == [None, "Find the alp"]


def test_the_original_order_comes_back_on_request(page: Page) -> None:
    before = page.texts()
    page.rerank()
    ranked = page.texts()
    page.click("#order")
    assert page.texts() == before
    assert all(item.move.startswith("ranked ") for item in page.items())
    page.click("#order")
    assert page.texts() == ranked


def test_documents_glide_from_where_they_were(stubbed: Page) -> None:
    stubbed.emulate(motion="no-preference")
    documents = [f"document {number}" for number in range(4)]  # all of them on the screen
    stubbed.fill("q", "\n".join(documents))
    stubbed.click("#edit")
    stubbed.js("""window.glides = {};
        const animate = Element.prototype.animate;
        Element.prototype.animate = function (frames, timing) {
          const text = this.querySelector(".text p")?.textContent;
          if (text) window.glides[text] = new DOMMatrix(frames[0].transform).m42;
          return animate.call(this, frames, timing);
        }""")
    tops = "return [...document.querySelectorAll('#ranking li')].map((item) => item.getBoundingClientRect().top)"
    places = stubbed.js(tops)
    stubbed.rerank()
    expected = {
        document: places[old] - places[new]
        for new, document in enumerate(by_score(documents))
        if (old := documents.index(document)) != new
    }
    assert len(expected) >= 2
    assert stubbed.js("return window.glides") == pytest.approx(expected)


def test_nothing_glides_for_who_asked_for_less_motion(page: Page) -> None:
    page.js("Element.prototype.animate = () => { throw Error('moves') }")
    page.rerank()
    assert page.js("return document.getAnimations().length") == 0


@pytest.mark.parametrize(
    ("pasted", "documents"),
    [
        ("one\ntwo\r\nthree", ["one", "two", "three"]),
        ('{\n  "a": 1\n}\n\n\nSELECT 1\nFROM t;\n \nthree', ['{\n  "a": 1\n}', "SELECT 1\nFROM t;", "three"]),
        (json.dumps(["one\n\nstill one", " two "]), ["one\n\nstill one", " two "]),
        ("[1] one\n[2] two", ["[1] one", "[2] two"]),
    ],
    ids=["lines", "blank lines", "JSON", "brackets"],
)
def test_documents_of_ones_own(stubbed: Page, stub: Stub, pasted: str, documents: list[str]) -> None:
    stubbed.fill("q", pasted)
    stubbed.rerank()
    assert stub.requests == [{"model": MODEL, "query": "q", "documents": documents}]
    assert stubbed.texts() == by_score(documents)


def test_what_was_pasted_survives_a_look_at_an_example(page: Page) -> None:
    pasted = json.dumps(["one\n\nstill one", "two"])
    page.fill("mine", pasted)
    page.choose("skincare")
    page.choose("own")
    assert page.js("return document.getElementById('query').value") == "mine"
    assert json.loads(page.js("return document.getElementById('documents').value")) == json.loads(pasted)


def test_an_edited_example_comes_back_when_chosen_again(page: Page) -> None:
    page.type("#query", " Please.")
    page.choose("functions")
    assert page.js("return document.getElementById('query').value").endswith("of this trip?")


def test_without_documents_nothing_is_sent(stubbed: Page, stub: Stub) -> None:
    stubbed.fill("q", " \n ")
    stubbed.click("#rerank")
    assert "There are no documents." in stubbed.wait_for_error()
    assert stub.requests == []


def test_top_n_is_sent_and_the_others_stay_below(stubbed: Page, stub: Stub) -> None:
    stubbed.fill("q", "one\ntwo\nthree\nfour")
    stubbed.type("#top-n", "2")
    stubbed.rerank()
    assert stub.requests[0]["top_n"] == 2
    best = by_score(["one", "two", "three", "four"])[:2]
    assert stubbed.texts() == best + [text for text in ("one", "two", "three", "four") if text not in best]
    assert [item.move.strip() for item in stubbed.items()[2:]] == ["not returned"] * 2


def test_an_answer_about_other_documents_is_dropped(stubbed: Page, stub: Stub) -> None:
    stub.may_answer.clear()
    stubbed.click("#rerank")
    stubbed.wait("document.getElementById('rerank').textContent !== 'Rerank'")
    stubbed.choose("sql_tables")
    stub.may_answer.set()
    stubbed.wait("document.getElementById('rerank').textContent === 'Rerank'")
    assert [item.score for item in stubbed.items()] == [""] * 4
    stubbed.rerank()
    assert len(stub.requests[-1]["documents"]) == 4


@pytest.mark.parametrize(
    ("selector", "keys"),
    [("#documents", (CONTROL, ENTER)), ("#query", (CONTROL, ENTER)), ("#query", (ENTER,)), ("#edit", (CONTROL, ENTER))],
)
def test_the_keyboard_is_enough(stubbed: Page, stub: Stub, selector: str, keys: tuple[str, ...]) -> None:
    stubbed.fill("q", "one\ntwo")
    stubbed.type(selector, *keys)
    stubbed.wait_for_ranking()
    assert [(request["query"], request["documents"]) for request in stub.requests] == [("q", ["one", "two"])]


def test_every_control_has_a_name_for_screen_readers(page: Page) -> None:
    page.rerank()
    page.js("for (const element of document.querySelectorAll('[hidden]')) element.hidden = false")
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "list", "radio", "region", "spinbutton", "textbox"}
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert {node["role"]["value"] for node in controls} >= {"button", "radio", "spinbutton", "textbox"}
    assert [node for node in controls if not node.get("name", {}).get("value")] == []


def test_news_reaches_screen_readers(page: Page) -> None:
    assert page.js("return document.getElementById('status').role") == "status"
    assert page.js("return document.getElementById('error').role") == "alert"


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_text_contrasts_with_what_is_behind_it(page: Page, color_scheme: str) -> None:
    page.emulate(color_scheme=color_scheme)
    page.type("#top-n", "2")
    page.rerank()
    page.js("for (const element of document.querySelectorAll('[hidden]')) element.hidden = false")
    contrasts = page.js(CONTRASTS)
    assert len(contrasts) > 30
    assert [pair for pair in contrasts if pair[0] < CONTRAST_AA] == []


def test_markup_in_documents_stays_text(page: Page) -> None:
    page.fill("<i>q</i>", json.dumps(HOSTILE))
    page.rerank()
    assert sorted(page.texts()) == sorted(HOSTILE)
    assert page.js("return document.querySelectorAll('main img, main i, main b').length") == 0
    assert page.js("return document.title") == "Crossray: see a reranker at work"


def test_each_script_gets_its_own_glyphs_and_direction(page: Page) -> None:
    page.fill("q", "新しいメイク\n新的化妆\n조용한\nمطعم هادئ\nplain")
    page.click("#edit")
    assert [item.language for item in page.items()] == ["ja", "zh", "ko", "", ""]
    directions = "return [...document.querySelectorAll('#ranking p')].map((text) => getComputedStyle(text).direction)"
    assert page.js(directions) == ["ltr", "ltr", "ltr", "rtl", "ltr"]


@pytest.mark.parametrize("width", [360, 768])
def test_no_width_scrolls_sideways_or_cuts_a_word(page: Page, width: int) -> None:
    overflow = "return document.documentElement.scrollWidth - innerWidth"
    page.emulate(width=width)
    page.fill("q" * 200, json.dumps(HOSTILE))
    assert page.js(overflow) <= 0
    page.rerank()
    assert page.js(overflow) <= 0
    cut = (
        "return [...document.querySelectorAll('.text p')].filter((text) => text.scrollWidth > text.clientWidth).length"
    )
    assert page.js(cut) == 0
    page.js("for (const element of document.querySelectorAll('[hidden]')) element.hidden = false")
    assert page.js(overflow) <= 0


def test_a_long_document_is_cut_until_asked_for(page: Page) -> None:
    page.fill("q", json.dumps(["short", "line\n" * 40]))
    page.click("#edit")
    button = "#ranking li:nth-child(2) button"
    height = "return document.querySelector('#ranking li:nth-child(2) p').clientHeight"
    cut = page.js(height)
    assert page.js("return document.querySelector('#ranking li:nth-child(1) button').hidden")
    page.click(button)
    assert page.js(height) > 4 * cut
    assert page.text(button) == "Show less"


def test_the_curl_snippet_is_this_request(stubbed: Page, stub: Stub, tmp_path: Path) -> None:
    stubbed.fill("what's $HOME?", json.dumps(HOSTILE))
    stubbed.type("#top-n", "3")
    stubbed.rerank()
    assert stubbed.request_in_curl() == stub.requests[0]
    if not shutil.which("curl"):
        pytest.skip("curl is not installed: the snippet was read but not run")
    command = ["sh", "-c", stubbed.text("#snippet")]
    output = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, timeout=60).stdout
    assert stub.requests[1] == stub.requests[0]
    assert len(json.loads(output)["results"]) == 3
    assert list(tmp_path.iterdir()) == []  # no document ran as a command


def test_the_python_snippet_is_this_request(stubbed: Page, stub: Stub, tmp_path: Path) -> None:
    pytest.importorskip("requests", reason="the snippet uses requests, which is not installed")
    stubbed.fill("what's $HOME?", json.dumps(HOSTILE))
    stubbed.rerank()
    stubbed.choose("python")
    command = [sys.executable, "-c", stubbed.text("#snippet")]
    output = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, text=True, timeout=60).stdout
    assert stub.requests[1] == stub.requests[0]
    assert [HOSTILE[int(line.split()[0])] for line in output.splitlines()] == stubbed.texts()


def test_copy_says_that_it_copied(page: Page) -> None:
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]  # a browser with a window has the second
    grant = {"origin": page.js("return location.origin"), "permissions": permissions}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    page.click("#copy")
    page.wait("document.getElementById('copied').textContent === 'Copied'")
    pasted = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert pasted == page.text("#snippet")


def test_without_a_clipboard_the_snippet_is_selected(page: Page) -> None:
    page.js("navigator.clipboard.writeText = () => Promise.reject(Error('not here'))")
    page.click("#copy")
    page.wait("document.getElementById('copied').textContent.startsWith('Selected')")
    assert page.js("return getSelection().toString()") == page.text("#snippet")


def test_a_key_is_asked_for_and_the_request_sent_again(stubbed: Page, stub: Stub) -> None:
    stub.api_key = "sesame"
    stubbed.click("#rerank")
    stubbed.wait("document.activeElement.id === 'key'")
    assert stubbed.text("#key-label") == "This server asks for an API key"
    stubbed.type("#key", "wrong", ENTER)
    stubbed.wait("document.getElementById('key-label').textContent.startsWith('The server does not accept')")
    stubbed.wait("document.activeElement.id === 'key'")
    stubbed.type("#key", "sesame", ENTER)
    stubbed.wait_for_ranking()
    assert not stubbed.text("#key-form")
    assert len(stub.requests) == 1


def test_a_key_lives_in_this_tab_only(stubbed: Page, stub: Stub) -> None:
    stub.api_key = "sesame"
    stubbed.driver.refresh()
    stubbed.wait("!document.getElementById('key-form').hidden")
    stubbed.type("#key", "sesame", ENTER)
    stubbed.wait("document.getElementById('model').value")
    stubbed.rerank()
    assert stubbed.js("return [document.cookie, localStorage.length, Object.values(sessionStorage)]") == [
        "",
        0,
        ["sesame"],
    ]
    for language in ("curl", "python"):
        stubbed.choose(language)
        assert "CROSSRAY_API_KEY" in stubbed.text("#snippet")
        assert "sesame" not in stubbed.text("body")
    stubbed.click("#forget")
    assert stubbed.js("return Object.values(sessionStorage)") == [""]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            json_answer(
                429,
                {"detail": {"message": "The queue is full.", "code": "QUEUE_FULL", "request_id": "4f2a"}},
                Retry_After="3",
            ),
            ["The server is busy.", "The queue is full.", "Try again in 3 seconds.", "Request 4f2a"],
        ),
        (
            json_answer(
                422,
                {
                    "detail": "Validation error: 'documents.1' is null; give a text",
                    "errors": [
                        {"field": "documents.1", "message": "is null; give a text", "type": "null"},
                        {"field": "top_n", "message": "is below 1", "type": "range"},
                    ],
                },
            ),
            ["does not accept the request.", "'documents.1' is null; give a text", "top_n: is below 1"],
        ),
        (
            json_answer(503, {"detail": {"message": "No replica is ready."}}, Retry_After="1"),
            ["The server is not ready.", "No replica is ready.", "Try again in 1 second."],
        ),
        (
            Answer(503, b"no endpoint lives", {"Content-Type": "text/plain"}),
            ["The server is not ready.", "no endpoint lives"],
        ),
        (json_answer(500, {"detail": "It broke."}), ["The server failed (HTTP 500).", "It broke."]),
        (Answer(200, b"<html>", {"Content-Type": "text/html"}), ["The server's answer is not JSON."]),
        (json_answer(200, {"error": "?"}), ["The server's answer holds no results."]),
    ],
    ids=["429", "422", "503", "503 in plain text", "500", "not JSON", "another JSON"],
)
def test_a_refusal_is_told_in_plain_words(stubbed: Page, stub: Stub, refusal: Answer, words: list[str]) -> None:
    stub.refusal = refusal
    stubbed.click("#rerank")
    error = stubbed.wait_for_error()
    assert [word for word in words if word not in error] == []
    stub.refusal = None
    stubbed.rerank()
    assert not stubbed.text("#error")


def test_a_server_that_is_gone_is_told_in_plain_words(page: Page) -> None:
    page.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        page.click("#rerank")
        assert "The server does not answer." in page.wait_for_error()
    finally:
        page.driver.delete_network_conditions()


def test_the_page_is_small() -> None:
    assert sum(len(file.read_bytes()) for file in PAGE.iterdir() if file.is_file()) < 40_000


def test_on_the_real_app_it_asks_for_the_key_and_shows_what_the_app_answers(driver: Chrome, live_app: LiveApp) -> None:
    announced = json.loads(ANNOUNCED.read_text())
    with opened(driver, f"{live_app.base_url}/", model=False) as page:
        page.choose("functions")
        page.click("#rerank")
        page.wait("document.activeElement.id === 'key'")
        page.type("#key", live_app.key, ENTER)
        page.wait_for_ranking()
        for name in ("functions", "sql_tables"):
            page.choose(name)
            page.rerank()
            answer = live_app.post("/v1/rerank", announced[name]).json()
            assert page.texts() == [result["document"]["text"] for result in answer["results"]]
        assert page.text("#status").endswith(f"{answer['usage']['total_tokens']} tokens · {answer['model']}")
