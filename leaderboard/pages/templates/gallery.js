"use strict";
const { mime, pictures, queries } = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const list = document.getElementById("queries");
const status = document.getElementById("status");
const PAGE = 20;
let chosen = queries, start = 0;

const element = (name, classes, ...children) => {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  made.append(...children);
  return made;
};
const photoName = (id) => String(id).padStart(6, "0");
const image = (place, text) => {
  const [data, width, height, , , photo] = pictures[place];
  if (data === null) {
    const hole = element("span", "hole", `cannot be read: ${photo}`);
    hole.setAttribute("role", "img");
    hole.setAttribute("aria-label", `${text}; ${photo} cannot be read`);
    return hole;
  }
  const made = new Image(width, height);
  made.decoding = "async";
  made.alt = text;
  made.src = `data:${mime};base64,${data}`;
  return made;
};
const MARKS = { right: ["right", "✓", "right"], "wrong box": ["near", "◐", "right photo, wrong box"], wrong: ["wrong", "✕", "wrong"] };

const overlay = (kind, box, [, , , width, height]) => {
  const made = element("span", `box ${kind}`);
  const share = (value, of) => `${Math.max(0, Math.min(100, (100 * value) / of))}%`;
  made.style.left = share(box[0], width);
  made.style.top = share(box[1], height);
  made.style.right = share(width - box[2], width);
  made.style.bottom = share(height - box[3], height);
  return made;
};

const answer = ([place, id, verdict, similarity], rank) => {
  const [kind, mark, words] = MARKS[verdict];
  const caption = element("figcaption", "", element("span", `${kind}-words`, `${mark} ${rank}`), verdict === "wrong" ? "" : ` ${words}`);
  caption.append(element("br"), `photo ${id}${similarity === null ? "" : ` · ${similarity.toFixed(3)}`}`);
  const item = element("li", "", element("figure", "", element("span", `pic ${kind}`, image(place, `Answer ${rank}, ${words}, photo ${id}`)), caption));
  return item;
};
const counterpart = ([place, id, rank, detected]) => {
  const words = rank !== null ? `found at rank ${rank}` : detected === false ? "not detected" : "not among the 20";
  const caption = element("figcaption", "", element("span", rank === null ? "wrong-words" : "right-words", words), element("br"), `photo ${id}`);
  return element("li", "", element("figure", "", element("span", "pic", image(place, `Matching shop item, ${words}, photo ${id}`)), caption));
};

const card = (query) => {
  const made = element("li", "query");
  made.tabIndex = -1;
  made.dataset.number = query.number;
  const heading = element("h2", "", `${query.category}, photo ${query.image}`);
  heading.id = `query-${query.number}`;
  made.setAttribute("aria-labelledby", heading.id);
  const badge = element("span", `badge${query.fate === "hit" ? (query.rank > 10 ? " late" : " hit") : ""}`,
    query.fate === "hit" ? `✓ hit at rank ${query.rank}` : `✕ ${query.fate}`);
  made.append(element("header", "", heading, badge, element("span", "sort",
    `query ${query.number} · pair ${query.pair}, style ${query.style}` + (query.score === null ? "" : ` · detector ${query.score.toFixed(2)}, overlap ${query.overlap.toFixed(2)}`))));

  const photo = element("span", "photo", image(query.photo, `Photo ${query.image} with its ${query.category}`));
  const picture = pictures[query.photo];
  if (picture[0] !== null) {
    photo.append(overlay("item", query.box, picture));
    if (query.speaking !== null) photo.append(overlay("said", query.speaking, picture));
  }
  const asked = element("div", "asked", element("div", "", element("h3", "", "Asked"), photo));
  if (query.crop !== null) asked.append(element("div", "", element("h3", "", "As it was searched for"), element("span", "pic", image(query.crop, "The detected box that asks"))));

  const right = element("div", "");
  right.append(element("h3", "", query.answers.length ? `First ${query.answers.length} answers` : "Answers"));
  if (query.answers.length) {
    const strip = element("ol", "strip");
    query.answers.forEach((one, place) => strip.append(answer(one, place + 1)));
    right.append(strip);
  } else right.append(element("p", "say", "No box speaks for this garment, so nothing was answered."));
  const more = query.matching - query.counterparts.length;
  right.append(element("h3", "", `Should have been found: ${query.matching} matching shop item${query.matching > 1 ? "s" : ""}${more > 0 ? `, ${query.counterparts.length} of them here` : ""}`));
  const strip = element("ul", "strip");
  for (const one of query.counterparts) strip.append(counterpart(one));
  right.append(strip);
  made.append(asked, right);
  return made;
};

const show = (first, focus) => {
  start = Math.max(0, Math.min(first, Math.floor(Math.max(0, chosen.length - 1) / PAGE) * PAGE));
  const some = chosen.slice(start, start + PAGE);
  list.replaceChildren(...(some.length ? some.map(card) : [element("li", "none", "No query is of this kind.")]));
  if (some.length) list.firstElementChild.tabIndex = 0;
  status.textContent = some.length
    ? `${start + 1}–${start + some.length} of ${chosen.length} ${chosen.length === 1 ? "query" : "queries"}`
    : "0 queries";
  for (const button of document.querySelectorAll("[data-turn]"))
    button.disabled = Number(button.dataset.turn) < 0 ? start === 0 : start + PAGE >= chosen.length;
  if (focus === "first") go(0); else if (focus === "last") go(some.length - 1);
};
const go = (place) => {
  const cards = [...list.querySelectorAll(".query")];
  if (!cards.length) return;
  for (const one of cards) one.tabIndex = -1;
  cards[place].tabIndex = 0;
  cards[place].focus({ preventScroll: true });
  cards[place].scrollIntoView({ block: "start" });
};

const best = (query) => (query.answers.length && query.answers[0][3] !== null ? query.answers[0][3] : null);
const ORDERS = {
  file: (query) => query.number,
  rank: (query) => query.rank ?? 99,
  similarity: (query) => (best(query) === null ? 9 : -best(query)),
  unlike: (query) => best(query) ?? 9,
  score: (query) => (query.score === null ? 9 : -query.score),
};
const choose = () => {
  const wanted = new FormData(form);
  const fates = new Set(wanted.getAll("fate"));
  const category = wanted.get("category"), text = wanted.get("text").trim().toLowerCase();
  const key = ORDERS[wanted.get("order")];
  const has = (query) => [query.image, photoName(query.image), query.pair, query.number, query.category, query.fate,
    ...query.answers.map((one) => photoName(one[1])), ...query.counterparts.map((one) => photoName(one[1]))]
    .some((one) => String(one).toLowerCase() === text || (typeof one === "string" && one.toLowerCase().includes(text)));
  chosen = queries
    .filter((query) => fates.has(query.fate) && (!category || query.category === category) && (!text || has(query)))
    .sort((a, b) => key(a) - key(b) || a.number - b.number);
  show(0);
};

form.addEventListener("input", choose);
form.addEventListener("submit", (event) => event.preventDefault());
const check = (isWanted) => {
  for (const box of form.querySelectorAll("[name=fate]:not(:disabled)")) box.checked = isWanted(box.value);
  choose();
};
document.getElementById("losses").addEventListener("click", () => check((fate) => fate !== "hit"));
document.getElementById("everything").addEventListener("click", () => check(() => true));
for (const button of document.querySelectorAll("[data-turn]"))
  button.addEventListener("click", () => show(start + PAGE * Number(button.dataset.turn), "first"));
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea")) return;
  const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!turn || !chosen.length) return;
  event.preventDefault();
  const cards = [...list.querySelectorAll(".query")];
  const place = cards.indexOf(document.activeElement.closest(".query"));
  const next = place < 0 ? (turn > 0 ? 0 : cards.length - 1) : place + turn;
  if (next >= 0 && next < cards.length) go(next);
  else if (turn > 0 && start + PAGE < chosen.length) show(start + PAGE, "first");
  else if (turn < 0 && start > 0) show(start - PAGE, "last");
});
choose();
