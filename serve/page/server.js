// The two calls to the server, and its refusals in plain words.

const HEADLINES = {
  400: "The server could not read the request.",
  401: "The server asks for an API key.",
  404: "The server does not know what was asked for.",
  413: "The request is too large.",
  422: "The server does not accept the request.",
  429: "The server is busy.",
  503: "The server is not ready.",
};

/** A call that brought no answer: `message` says so, `lines` say more. `status` is 0 where nothing came back. */
export class ServerError extends Error {
  constructor(message, lines = [], status = 0) {
    super(message);
    this.lines = lines;
    this.status = status;
  }
}

/** The address of `path` on the server that sent this page, also behind a proxy's prefix. */
export function endpoint(path) {
  return new URL(path, document.baseURI).href;
}

/** The models served: [{id, family, licence, calibrated, takes_instruction, instruction, max_length}]. */
export async function listModels(key) {
  const answer = await call("v1/models", key);
  return answer.data ?? [];
}

/** {answer, milliseconds}: the ranking, and the time until it was here in full. */
export async function rerank(request, key, signal) {
  const started = performance.now();
  const answer = await call("v1/rerank", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  if (!Array.isArray(answer.results)) throw new ServerError("The server's answer holds no results.");
  return { answer, milliseconds: performance.now() - started };
}

async function call(path, key, { headers, ...options } = {}) {
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  let response, text;
  try {
    response = await fetch(endpoint(path), { ...options, headers: { ...headers, ...authorization } });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer.", ["Is it still running, and can this computer reach it?"]);
  }
  const body = parsed(text);
  if (response.ok && body) return body;
  if (response.ok) throw new ServerError("The server's answer is not JSON.");
  throw refusal(response, body ?? { detail: text.slice(0, 300) });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // A proxy in front may answer in plain text.
  }
}

function refusal(response, { detail, errors, request_id }) {
  const message = typeof detail === "string" ? detail : (detail?.message ?? "");
  const fields = (errors ?? [])
    .filter((error) => !message.includes(error.message))
    .map((error) => `${error.field}: ${error.message}`);
  const seconds = Number(response.headers.get("Retry-After"));
  const wait = seconds > 0 ? `Try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.` : "";
  const id = detail?.request_id ?? request_id;
  const lines = [message, ...fields, wait, id ? `Request ${id}` : ""].filter(Boolean);
  const headline = HEADLINES[response.status] ?? `The server failed (HTTP ${response.status}).`;
  return new ServerError(headline, lines, response.status);
}
