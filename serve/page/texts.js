// What the page can tell from a text alone. Pure functions.

/** The documents in what a person pasted: a JSON array of strings, else runs between blank lines, else lines. */
export function splitDocuments(pasted) {
  const text = pasted.replace(/\r\n?/g, "\n").trim();
  if (text.startsWith("[")) {
    try {
      const array = JSON.parse(text);
      if (array.every((item) => typeof item === "string")) return array;
    } catch {
      // Not JSON: a text like any other.
    }
  }
  const separator = /\n[^\S\n]*\n/.test(text) ? /\n(?:[^\S\n]*\n)+/ : "\n";
  return text.split(separator).map((document) => document.trim()).filter(Boolean);
}

/** The text from which `splitDocuments` reads `documents` again. */
export function joinDocuments(documents) {
  const joined = documents.join("\n\n");
  const readBack = splitDocuments(joined);
  const survives = readBack.length === documents.length && readBack.every((text, i) => text === documents[i]);
  return survives ? joined : JSON.stringify(documents, null, 2);
}

/** Structured text reads better in a monospaced face: it opens like JSON or markup, or closes like a statement. */
export function looksLikeCode(text) {
  return /^\s*[{[<]|[;}]\s*$/.test(text);
}

/** The language that chooses the glyphs: Chinese, Japanese and Korean share code points. "" is HTML's "unknown". */
export function languageOf(text) {
  if (/[\p{Script=Hiragana}\p{Script=Katakana}]/u.test(text)) return "ja";
  if (/\p{Script=Hangul}/u.test(text)) return "ko";
  return /\p{Script=Han}/u.test(text) ? "zh" : "";
}
