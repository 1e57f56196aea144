const AT_ONCE = 100;
const data = JSON.parse(document.getElementById("rows").textContent);
// The order of a row's values, as payload.py writes them.
const FIELDS = ["id", "name", "spec", "rank", "acc10", "low", "high", "acc1", "acc20", "seconds", "machine", "boxes",
  "model", "created", "verdict", "tied", "remark", "reasons", "front", "gallery", "stages"];
const SHARED = ["machine", "boxes", "model", "verdict", "tied", "remark"];
const controls = document.querySelector(".controls");
const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

const lists = [...document.querySelectorAll("table[data-section]")].map((table) => {
  const section = data.sections[Number(table.dataset.section)];
  const ranked = table.dataset.list === "ranked";
  const rows = section[table.dataset.list].map((values, place) => {
    const row = { section, ranked, place };
    FIELDS.forEach((field, number) => { row[field] = values[number]; });
    for (const field of SHARED) row[field] = data.texts[row[field]];
    row.reasons = row.reasons.map((number) => data.texts[number]);
    row.spec = row.spec || row.name;
    row.haystack = `${row.name}\n${row.spec}\n${row.id}\n${row.remark}`.toLowerCase();
    return row;
  });
  // Names are compared once, not at every sort: a collator takes most of the time otherwise.
  rows.toSorted((a, b) => words.compare(a.name, b.name)).forEach((row, place) => { row.byName = place; });
  return { table, section, ranked, rows, more: table.nextElementSibling, limit: AT_ONCE, rendered: table.closest(".rendered") !== null };
});
const all = lists.flatMap((list) => list.rows);
let chosen = [];

// Four digits as the server writes them: what lies just between two goes to the even one.
const four = (share) => {
  const scaled = share * 1e4, below = Math.floor(scaled);
  return ((scaled - below === 0.5 ? below + below % 2 : Math.round(scaled)) / 1e4).toFixed(4);
};

const duration = (seconds) => {
  if (seconds < 9.95) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} min`;
};
const make = (tag, text, values = {}) => Object.assign(document.createElement(tag), { textContent: text }, values);

const template = document.getElementById("row").content.firstElementChild;
function element(row, list) {
  const line = template.cloneNode(true), [rank, who, acc10, plot, acc1, acc20, time, choose] = line.cells;
  const [low, high] = row.section.axis, percent = (value) => `${(100 * (value - low) / (high - low)).toFixed(2)}%`;
  if (row.rank === 1) line.className = "first";
  rank.textContent = row.rank ?? "–";
  const [name, spec, remark, small] = who.children;
  name.textContent = row.name;
  name.href = `rows/${row.id}.html`;
  if (row.spec === row.name) spec.remove(); else spec.textContent = row.spec;
  if (row.remark) remark.textContent = row.remark; else remark.remove();
  for (const reason of row.reasons) small.before(make("span", reason, { className: "reason" }));
  if (row.ranked && row.verdict === "best") small.append(make("b", "best", { className: "best" }));
  if (row.tied) small.append(make("span", `not told apart from ${row.tied}`));
  if (row.gallery) small.append(make("a", "gallery", { href: `gallery/${row.id}.html` }));
  for (const [cell, value, heading] of [[acc10, row.acc10, "Acc@10"], [acc1, row.acc1, "Acc@1"], [acc20, row.acc20, "Acc@20"]]) {
    cell.textContent = four(value);
    cell.dataset.label = (list.rendered ? "RENDERED " : "") + heading;
  }
  const [whisker, bounds] = plot.children, [bar, dot] = whisker.children;
  bar.style.left = percent(row.low);
  bar.style.right = `${(100 * (high - row.high) / (high - low)).toFixed(2)}%`;
  dot.style.left = percent(row.acc10);
  whisker.title = `${four(row.low)} to ${four(row.high)}`;
  whisker.setAttribute("aria-label", `95 % interval ${whisker.title}`);
  bounds.textContent = `${row.low.toFixed(3)} – ${row.high.toFixed(3)}`;
  const [stages, total] = time.children;
  for (let number = 0; number < row.stages.length; number += 2) {
    const part = row.stages[number], seconds = row.stages[number + 1], piece = document.createElement("i");
    piece.className = `stage-${part}`;
    piece.style.width = `${(100 * seconds / (row.section.longest || 1)).toFixed(2)}%`;
    piece.title = `${data.parts[part]}: ${duration(seconds)}`;
    stages.append(piece);
  }
  total.textContent = row.seconds === null ? "–" : duration(row.seconds);
  const box = choose.querySelector("input");
  box.checked = chosen.includes(row);
  box.setAttribute("aria-label", `Compare ${row.name}`);
  box.addEventListener("change", () => choose_row(row, box.checked));
  return line;
}

const state = () => Object.fromEntries(new FormData(controls));
const KEYS = { rank: (row) => row.place, name: (row) => row.byName };
function ordered(rows, sort) {
  const [field, direction] = sort.split("-"), sign = direction === "ascending" ? 1 : -1;
  const key = KEYS[field] ?? ((row) => row[field]);
  return rows.sort((a, b) => {
    const first = key(a), second = key(b);
    if (first === null || second === null) return (first === null) - (second === null) || a.place - b.place;
    return sign * (first - second) || a.place - b.place;
  });
}
function grouped(rows, group) {
  if (!group) return [["", rows]];
  const groups = new Map();
  for (const row of rows) groups.get(row[group])?.push(row) ?? groups.set(row[group], [row]);
  return [...groups];
}
function fits(row, wanted, needle) {
  return (!wanted.show || (wanted.show === "front" ? row.front === 1 : row.ranked === (wanted.show === "ranked")))
    && (!wanted.boxes || row.boxes === wanted.boxes) && (!wanted.machine || row.machine === wanted.machine)
    && needle.every((word) => row.haystack.includes(word));
}

function draw(list, wanted, needle) {
  const rows = ordered(list.rows.filter((row) => fits(row, wanted, needle)), wanted.sort);
  const lines = document.createDocumentFragment();
  let left = list.limit;
  for (const [title, members] of grouped(rows, wanted.group)) {
    if (left <= 0) break;
    if (title) {
      const line = make("tr", "", { className: "grouping" });
      const cell = make("th", title, { colSpan: 8, scope: "rowgroup" });
      cell.append(make("span", `${members.length} ${members.length === 1 ? "row" : "rows"}, best Acc@10 ${four(Math.max(...members.map((row) => row.acc10)))}${list.rendered ? " (RENDERED)" : ""}`));
      line.append(cell);
      lines.append(line);
    }
    for (const row of members.slice(0, left)) lines.append(element(row, list));
    left -= members.length;
  }
  if (!rows.length) {
    const line = make("tr", "", { className: "nothing" });
    line.append(make("td", "No row here matches.", { colSpan: 8 }));
    lines.append(line);
  }
  list.table.tBodies[0].replaceChildren(lines);
  const shown = Math.min(list.limit, rows.length);
  list.more.hidden = shown === rows.length;
  list.more.replaceChildren();
  if (shown < rows.length) {
    const button = make("button", `Show ${Math.min(AT_ONCE, rows.length - shown)} more`, { type: "button" });
    button.addEventListener("click", () => {
      list.limit += AT_ONCE;
      draw(list, wanted, needle);
      // The keyboard goes on where the new rows begin.
      list.table.tBodies[0].querySelectorAll("tr:not(.grouping)")[shown]?.querySelector("a")?.focus();
    });
    list.more.append(make("p", `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`), button);
  }
  return rows.length;
}

function update() {
  const wanted = state(), needle = wanted.find.toLowerCase().split(/\s+/).filter(Boolean);
  const [field, direction] = wanted.sort.split("-");
  let count = 0;
  for (const list of lists) {
    list.limit = AT_ONCE;
    count += draw(list, wanted, needle);
    for (const header of list.table.tHead.rows[0].cells) {
      if (header.dataset.sort === field) header.setAttribute("aria-sort", direction);
      else header.removeAttribute("aria-sort");
    }
  }
  controls.querySelector("output").textContent = count === all.length
    ? `${count.toLocaleString("en")} ${count === 1 ? "row" : "rows"}` : `${count.toLocaleString("en")} of ${all.length.toLocaleString("en")} rows`;
  const asked = new URLSearchParams(Object.entries(wanted).filter(([name, value]) => value && value !== (name === "sort" ? "rank-ascending" : "")));
  controls.querySelector("button[type=reset]").hidden = !asked.size;
  if (asked.size || location.hash.includes("=")) history.replaceState(null, "", `#${asked}`);
}

function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const field of controls.elements) {
    if (!field.name || !asked.has(field.name)) continue;
    const value = asked.get(field.name);
    if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value)) field.value = value;
  }
}

const bar = document.querySelector(".choice");
function choose_row(row, wanted) {
  chosen = chosen.filter((other) => other !== row);
  if (wanted) chosen = [...chosen.slice(-1), row];
  for (const list of lists) {
    for (const box of list.table.querySelectorAll(".choose input")) {
      const link = box.closest("tr").querySelector(".name").getAttribute("href");
      box.checked = chosen.some((other) => link === `rows/${other.id}.html`);
    }
  }
  bar.hidden = !chosen.length;
  document.documentElement.classList.toggle("choosing", !bar.hidden);
  const [first, second] = chosen.toSorted((a, b) => a.place - b.place);
  const say = bar.querySelector(".chosen"), go = bar.querySelector(".go"), command = bar.querySelector(".command"), copy = bar.querySelector(".copy");
  go.hidden = command.hidden = copy.hidden = true;
  if (!first) return;
  if (!second) {
    say.replaceChildren(make("b", first.name), " – choose a second row to compare it with");
    return;
  }
  say.replaceChildren(make("b", second.name), " against ", make("b", first.name));
  if (first.section !== second.section) {
    say.append(": they answer different questions, so they are not compared");
  } else if (has_page(first, second)) {
    go.href = `compare/${first.id}-${second.id}.html`;
    go.hidden = false;
  } else {
    command.textContent = `run.py leaderboard compare ${first.id} ${second.id} --html comparison.html`;
    command.hidden = copy.hidden = false;
  }
}
function has_page(first, second) {
  const { any, against_best, among_best } = data.compared;
  if (any) return true;
  if (!first.ranked || !second.ranked) return false;
  return (first.place === 0 && second.place < against_best) || (first.place < among_best && second.place < among_best);
}
bar.querySelector(".copy").addEventListener("click", (event) => copy_text(bar.querySelector(".command"), event.target));
bar.querySelector(".drop").addEventListener("click", () => { for (const row of [...chosen]) choose_row(row, false); });

for (const [name, title] of [["boxes", "boxes"], ["machine", "machine"]]) {
  const select = controls.elements[name], values = [...new Set(all.map((row) => row[title]))].sort(words.compare);
  for (const value of values) select.append(make("option", value, { value }));
  select.closest("label").hidden = values.length < 2;
}
for (const list of lists) {
  for (const header of list.table.tHead.rows[0].querySelectorAll("[data-sort]")) {
    const button = make("button", "", { type: "button" });
    const label = header.querySelector(".label") ?? header;
    button.append(...label.childNodes);
    label.append(button);
    const best = ["rank", "name", "seconds"].includes(header.dataset.sort) ? "ascending" : "descending";
    const other = best === "ascending" ? "descending" : "ascending";
    button.addEventListener("click", () => {
      controls.elements.sort.value = `${header.dataset.sort}-${header.getAttribute("aria-sort") === best ? other : best}`;
      update();
    });
  }
}
document.documentElement.classList.add("scripted");
controls.hidden = !all.length;
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("input", update);
controls.addEventListener("reset", () => setTimeout(update));
addEventListener("hashchange", () => { if (location.hash.includes("=")) { recall(); update(); } });
recall();
update();
