// The page at /: a query and documents in, their ranking out. Nothing outlives the tab.

import { Ranking } from "./ranking.js";
import { endpoint, listModels, rerank } from "./server.js";
import { curl, python } from "./snippets.js";
import { joinDocuments, languageOf, splitDocuments } from "./texts.js";

const KEY = "crossray-api-key"; // in sessionStorage
const ANY_MODEL = "jina-reranker-v2-base-multilingual"; // until the server has named its own
const OWN = { id: "own", note: "A query, and the documents that your search found for it.", query: "", documents: [] };

const element = (id) => document.getElementById(id);
const query = element("query");
const documents = element("documents");
const status = element("status");
const ranking = new Ranking(element("ranking"), element("document"));

let example = OWN;
let running = new AbortController(); // The request under way, or the last one.
let apiKey = recallKey();
let models = [];
let waitsForKey = false; // A key sends the request again.

function currentRequest() {
  const topN = element("top-n").valueAsNumber;
  const instruction = element("instruction").value.trim();
  return {
    model: element("model").value || ANY_MODEL,
    query: query.value,
    documents: splitDocuments(documents.value),
    ...(topN >= 1 && { top_n: topN }),
    ...(!element("instruction-field").hidden && instruction && { instruction }),
  };
}

async function run() {
  const request = currentRequest();
  if (request.documents.length === 0) {
    showError({ message: "There are no documents.", lines: ["Paste at least one."] });
    edit(true);
    documents.focus();
    return;
  }
  edit(false);
  element("error").hidden = true;
  running.abort();
  const mine = (running = new AbortController());
  setBusy(true);
  try {
    const { answer, milliseconds } = await rerank(request, apiKey, mine.signal);
    ranking.rank(answer.results);
    setOrder(true);
    setStale(false);
    status.textContent = summary(answer, milliseconds);
  } catch (error) {
    if (error.status === 401) askForKey(true);
    else if (error.name !== "AbortError") showError(error);
  } finally {
    if (running === mine) setBusy(false);
  }
}

function summary({ model, usage, results }, milliseconds) {
  const time = milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds).toLocaleString("en");
  const tokens = usage && `${usage.total_tokens.toLocaleString("en")} tokens`;
  return [`${counted(results.length)} ranked in ${time} ms`, tokens, model].filter(Boolean).join(" · ");
}

function counted(number) {
  return number === 1 ? "1 document" : `${number.toLocaleString("en")} documents`;
}

function setBusy(busy) {
  element("ranking").setAttribute("aria-busy", busy);
  element("rerank").textContent = busy ? "Reranking…" : "Rerank";
}

// Scores that belong to another query than the one on the screen fade.
function setStale(stale) {
  element("ranking").classList.toggle("stale", stale);
}

// true: by score; false: as they came; null: there is no ranking yet.
function setOrder(byScore) {
  element("order").hidden = byScore === null;
  element("order").setAttribute("aria-pressed", byScore === false);
}

function showError({ message, lines = [] }) {
  const headline = document.createElement("strong");
  headline.textContent = message;
  const paragraphs = lines.map((line) => Object.assign(document.createElement("p"), { textContent: line }));
  element("error").replaceChildren(headline, ...paragraphs);
  element("error").hidden = false;
}

function edit(open) {
  if (open === !element("editor").hidden) return;
  element("editor").hidden = !open;
  element("ranking").hidden = open;
  element("edit").textContent = open ? "Done" : "Edit";
  element("edit").setAttribute("aria-expanded", open);
  showDocuments();
}

// The documents as they came: the list without scores, and how many the editor's text makes.
function showDocuments() {
  running.abort(); // Its answer is about other documents.
  const texts = splitDocuments(documents.value);
  if (element("editor").hidden) ranking.show(texts);
  documents.lang = languageOf(documents.value);
  status.textContent = texts.length ? `${counted(texts.length)}, not ranked yet` : "No documents yet";
  setOrder(null);
  setStale(false);
  showSnippet();
}

function showSnippet() {
  const write = { curl, python }[document.querySelector("[name=language]:checked").value];
  element("snippet").textContent = write(endpoint("v1/rerank"), currentRequest(), Boolean(apiKey));
  element("copied").textContent = "";
}

function choose(chosen) {
  if (example === OWN) Object.assign(OWN, { query: query.value, documents: splitDocuments(documents.value) });
  example = chosen;
  query.value = chosen.query;
  query.lang = languageOf(chosen.query);
  documents.value = joinDocuments(chosen.documents);
  element("note").textContent = chosen.note;
  element("error").hidden = true;
  edit(chosen === OWN);
  showDocuments();
}

// An example that was edited is no longer chosen, so that choosing it again brings it back.
function leaveExample() {
  const chosen = document.querySelector("[name=example]:checked");
  if (chosen && example !== OWN) chosen.checked = false;
}

function recallKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // The browser blocks storage: the key lives as long as the page.
  }
}

function setKey(key) {
  apiKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // Blocked, as above.
  }
  element("forget").hidden = !key;
  showSnippet();
}

function askForKey(sendAgain) {
  waitsForKey ||= sendAgain;
  element("key-label").textContent = apiKey
    ? "The server does not accept this API key. Another one?"
    : "This server asks for an API key";
  setKey("");
  element("key-form").hidden = false;
  if (waitsForKey) element("key").focus();
}

async function showModels() {
  try {
    models = await listModels(apiKey);
    element("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
    showModel();
  } catch (error) {
    if (error.status === 401) askForKey(false);
    else showError(error);
  }
}

// What the chosen model is, and a field for its instruction if it takes one.
function showModel() {
  const model = models.find(({ id }) => id === element("model").value);
  element("about").textContent = model ? about(model) : "";
  element("instruction-field").hidden = !model?.takes_instruction;
  element("instruction").placeholder = model?.instruction ?? "";
  showSnippet();
}

function about({ family, max_length, licence, calibrated }) {
  const scores = calibrated ? "scores are calibrated: 0.5 is an even chance" : "scores are not calibrated";
  const length = max_length && `${max_length.toLocaleString("en")} tokens`;
  return [family, length, licence && `weights under ${licence}`, scores].filter(Boolean).join(" · ");
}

async function copy() {
  const snippet = element("snippet");
  try {
    await navigator.clipboard.writeText(snippet.textContent);
    element("copied").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(snippet); // The clipboard is closed to pages without TLS on other hosts.
    element("copied").textContent = "Selected: press Ctrl+C";
  }
}

function addExample(each) {
  const label = element("examples").querySelector("label").cloneNode(true);
  label.querySelector("input").value = each.id;
  label.querySelector("span").textContent = each.name;
  element("examples").querySelector("label:last-of-type").before(label);
}

element("request").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
for (const id of ["request", "model"]) {
  element(id).addEventListener("input", () => {
    query.lang = languageOf(query.value);
    setStale(true);
    showSnippet();
  });
}
query.addEventListener("input", leaveExample);
query.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return;
  event.preventDefault();
  element("request").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault(); // On a button, Enter would press it too.
  element("request").requestSubmit();
});
documents.addEventListener("input", () => {
  leaveExample();
  showDocuments();
});
element("model").addEventListener("input", showModel);
element("edit").addEventListener("click", () => edit(element("editor").hidden));
element("order").addEventListener("click", () => {
  const byScore = element("order").getAttribute("aria-pressed") === "true";
  setOrder(byScore);
  ranking.arrange(byScore);
});
element("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setKey(element("key").value);
  element("key").value = "";
  element("key-form").hidden = true;
  await showModels();
  if (!apiKey || !waitsForKey) return;
  waitsForKey = false;
  run();
});
element("forget").addEventListener("click", () => setKey(""));
element("languages").addEventListener("change", showSnippet);
element("copy").addEventListener("click", copy);

const examples = await (await fetch(new URL("examples.json", import.meta.url))).json();
examples.forEach(addExample);
element("examples").addEventListener("change", (event) => {
  choose(examples.find((each) => each.id === event.target.value) ?? OWN);
});
element("forget").hidden = !apiKey;
element("examples").querySelector("input").checked = true;
choose(examples[0]);
showModels();
