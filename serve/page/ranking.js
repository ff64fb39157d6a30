// The list of documents: first in the caller's order, then by score, each document moving from one place to the other.

import { languageOf, looksLikeCode } from "./texts.js";

const MOVE = { duration: 900, easing: "cubic-bezier(0.3, 0, 0.1, 1)" };

/** The list on the screen. Documents are known by their index in the caller's order; all text goes in as text. */
export class Ranking {
  #list;
  #template;
  #items = [];
  #ranked = []; // Indices by score; those that the server left out come last.

  constructor(list, template) {
    this.#list = list;
    this.#template = template;
    addEventListener("resize", () => this.#offerTheRest());
  }

  /** Fresh documents in the caller's order, without scores. */
  show(documents) {
    this.#ranked = [];
    this.#items = documents.map((document, index) => this.#item(document, index));
    this.#list.replaceChildren(...this.#items);
    this.#offerTheRest();
  }

  /** Give each document its score of `results` ([{index, relevance_score}], best first) and sort by it. */
  rank(results) {
    const scores = new Map(results.map((result) => [result.index, result.relevance_score]));
    const leftOut = [...this.#items.keys()].filter((index) => !scores.has(index));
    this.#ranked = [...scores.keys(), ...leftOut];
    this.#items.forEach((item, index) => showScore(item, scores.get(index)));
    this.arrange(true);
  }

  /** Move the documents to their order by score, or back to the caller's. */
  arrange(byScore) {
    const order = byScore ? this.#ranked : [...this.#items.keys()];
    const before = this.#items.map((item) => item.getBoundingClientRect());
    this.#items.forEach((item) => item.getAnimations().forEach((animation) => animation.cancel()));
    this.#list.replaceChildren(...order.map((index) => this.#items[index]));
    this.#ranked.forEach((index, place) => showMove(this.#items[index], index + 1, place + 1, byScore));
    if (moves()) glide(this.#items, before);
  }

  #item(document, index) {
    const item = this.#template.content.firstElementChild.cloneNode(true);
    item.querySelector(".rank").textContent = index + 1;
    const text = item.querySelector(".text p");
    text.textContent = document;
    text.lang = languageOf(document);
    text.classList.toggle("code", looksLikeCode(document));
    const button = item.querySelector("button");
    button.addEventListener("click", () => {
      const open = item.classList.toggle("open");
      button.textContent = open ? "Show less" : "Show all";
      button.setAttribute("aria-expanded", open);
    });
    return item;
  }

  // style.css cuts long documents; the button appears only where something is hidden.
  #offerTheRest() {
    for (const item of this.#items.filter((item) => !item.classList.contains("open"))) {
      const text = item.querySelector(".text p");
      item.querySelector("button").hidden = text.scrollHeight <= text.clientHeight;
    }
  }
}

function moves() {
  return !matchMedia("(prefers-reduced-motion: reduce)").matches;
}

function showScore(item, score) {
  const data = item.querySelector(".score");
  const bar = item.querySelector(".bar div");
  const from = bar.style.transform || "scaleX(0)";
  data.value = score ?? "";
  data.textContent = score?.toFixed(3) ?? "";
  bar.style.transform = `scaleX(${score ?? 0})`;
  item.classList.toggle("left-out", score === undefined);
  if (moves()) bar.animate([{ transform: from }, { transform: bar.style.transform }], MOVE);
}

function showMove(item, original, rank, byScore) {
  const [here, there] = byScore ? [rank, `was ${original} `] : [original, `ranked ${rank} `];
  const [from, arrow, words] = item.classList.contains("left-out")
    ? ["not returned", "", ""]
    : [there, ...change(original - rank)];
  item.querySelector(".rank").textContent = here;
  item.querySelector(".from").textContent = from;
  item.querySelector(".change").textContent = arrow;
  item.querySelector(".change-words").textContent = words;
  item.classList.toggle("risen", arrow.startsWith("↑"));
}

// For the eye, and for a screen reader.
function change(rise) {
  if (rise === 0) return ["=", "unmoved"];
  return rise > 0 ? [`↑${rise}`, `up ${rise}`] : [`↓${-rise}`, `down ${-rise}`];
}

// FLIP: everything is already in its place; each item starts where it was and slides home. What rises passes above.
function glide(items, before) {
  const after = items.map((item) => item.getBoundingClientRect());
  const onScreen = (box) => box.bottom > 0 && box.top < innerHeight;
  items.forEach((item, index) => {
    const distance = before[index].top - after[index].top;
    if (distance === 0 || !(onScreen(before[index]) || onScreen(after[index]))) return;
    const zIndex = distance > 0 ? 1 : 0;
    item.animate([{ transform: `translateY(${distance}px)`, zIndex }, { transform: "none", zIndex }], MOVE);
  });
}
