"use strict";
(async () => {
  const AT_ONCE = 100;
  const MARKS = { correct: "✓", wrong: "✗", unjudged: "?" };
  const $ = (id) => document.getElementById(id);
  const chips = [...document.querySelectorAll("[data-verdict]")];

  // Text goes in as text nodes only: nothing that a model wrote is ever read as HTML.
  function make(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  async function unpack() {
    const bytes = Uint8Array.from(atob($("data").textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  // A piece is its kind and its text; the kind is in upper case, or "_", where the other query differs.
  function sql(pieces, className) {
    const box = make("pre", className);
    for (const piece of pieces) {
      const kind = piece[0], text = piece.slice(1);
      const changed = kind === "_" || (kind >= "A" && kind <= "Z");
      const plain = kind === " " || kind === "_";
      if (!changed && plain) box.append(text);
      else box.append(make(changed ? "mark" : "span", plain ? "" : kind.toLowerCase(), text));
    }
    return box;
  }

  const badge = (verdict, text) => make("span", `verdict ${verdict}`, `${MARKS[verdict] ?? ""} ${text}`);
  const folded = (title, content) => make("details", "more", make("summary", "", title), content);

  function cell(value) {
    if (value === null) return make("td", "null", "NULL");
    return make("td", typeof value === "number" ? "number" : "", String(value));
  }

  function result(outcome, other) {
    if (!outcome) return null;
    if (outcome.error) return make("p", "error", outcome.message);
    const complete = (side) => side?.rows && side.rows.length === side.count;
    const known = complete(outcome) && complete(other) ? new Set(other.rows.map((row) => JSON.stringify(row))) : null;
    const head = make("tr", "", ...outcome.columns.map((name) => make("th", "", String(name))));
    const rows = outcome.rows.map((row) =>
      make("tr", known && !known.has(JSON.stringify(row)) ? "odd" : "", ...row.map(cell)));
    const shown = outcome.rows.length;
    const count = `${outcome.count} row${outcome.count === 1 ? "" : "s"}`;
    return make("div", "", make("div", "scroll result", make("table", "", make("thead", "", head), make("tbody", "", ...rows))),
      make("p", "note", shown < outcome.count ? `${shown ? `first ${shown} of ` : ""}${count}` : count));
  }

  function body(record) {
    const last = record.answers.at(-1);
    const slices = Object.entries(record.slices).map(([name, bucket]) => `${name}: ${bucket}`);
    const gold = make("section", "gold", make("h4", "", "Gold"),
      record.gold.length ? sql(record.gold) : make("p", "note", "no gold SQL"),
      ...record.alternatives.map((pieces) => make("div", "", make("p", "note", "also accepted"), sql(pieces))),
      result(record.result, last.result),
      make("p", "note", [...record.meta, ...slices].join(" · ")),
      folded("schema", sql(data.schemas[record.schema])));
    const answers = record.answers.map((answer, i) => make("section", "", make("h4", "", data.systems[i]),
      answer.sql.length ? sql(answer.sql) : make("p", "note", "no SQL in the answer"),
      ...answer.verdicts.map((verdict, g) => make("p", "", badge(verdict, data.graders[g]), " ", answer.reasons[g])),
      answer.mistake && make("p", "note", `error class: ${answer.mistake}`),
      answer.cut ? make("p", "", make("span", "verdict cut", "cut at the token limit")) : null,
      answer.reasons.some((reason) => answer.result?.error && reason.includes(answer.result.message))
        ? null : result(answer.result, record.result),
      answer.whole && folded("whole answer", make("pre", "", answer.whole))));
    return make("div", "body", gold, ...answers);
  }

  function row(record, place) {
    const badges = record.answers.map((answer, i) => {
      const verdict = answer.verdicts[grader()];
      return badge(verdict, data.systems.length > 1 ? data.systems[i] : verdict);
    });
    const mistake = record.answers[system()].mistake;
    const item = make("details", "record", make("summary", "", make("span", "place", String(place + 1)),
      make("span", "question", record.question), mistake && make("span", "tag", mistake), ...badges));
    item.addEventListener("toggle", () => item.childElementCount > 1 || item.append(body(record)));
    return item;
  }

  const system = () => Number($("system").value);
  const grader = () => Number($("grader").value);
  const plain = (pieces) => pieces.map((piece) => piece.slice(1)).join("");
  const text = (record) => (record.text ??= [record.question, plain(record.gold), ...record.meta,
    ...record.alternatives.map(plain), ...record.answers.flatMap((a) => [plain(a.sql), a.whole, ...a.reasons, a.mistake]),
  ].join("\n").toLowerCase());

  const has = {
    all: () => true,
    fixed: ([first, , last]) => first === "wrong" && last === "correct",
    broken: ([first, , last]) => first === "correct" && last === "wrong",
    disagree: (_, verdicts) => verdicts.includes("correct") && verdicts.includes("wrong"),
  };
  function matches(record, verdict) {
    const of = (answer) => answer.verdicts[grader()];
    const own = of(record.answers[system()]);
    const test = has[verdict] ?? (() => own === verdict);
    return test([of(record.answers[0]), own, of(record.answers.at(-1))], record.answers[system()].verdicts);
  }

  let wanted = "all";
  let found = [];
  let data;

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const slice = $("slice").value, mistake = $("mistake").value;
    const rest = data.records.map((_, place) => place).filter((place) => {
      const record = data.records[place];
      return (!slice || Object.entries(record.slices).some(([name, bucket]) => `${name}: ${bucket}` === slice)) &&
        (!mistake || record.answers[system()].mistake === mistake) && words.every((word) => text(record).includes(word));
    });
    found = rest.filter((place) => matches(data.records[place], wanted));
    for (const chip of chips) {
      const verdict = chip.dataset.verdict;
      chip.setAttribute("aria-pressed", String(verdict === wanted));
      chip.querySelector("small").textContent = rest.filter((place) => matches(data.records[place], verdict)).length;
    }
    $("shown").textContent = `${found.length} of ${data.records.length} records`;
    $("nothing").hidden = found.length > 0;
    $("clear").hidden = wanted === "all" && !slice && !mistake && !words.length;
    $("list").replaceChildren();
    more();
  }

  function more() {
    const shown = $("list").childElementCount;
    $("list").append(...found.slice(shown, shown + AT_ONCE).map((place) => row(data.records[place], place)));
    $("end").hidden = $("list").childElementCount >= found.length;
  }

  function set(change) {
    const [name, ...value] = change.split("=");
    if (name === "verdict") wanted = value[0];
    else $(name).value = value.join("=");
    filter();
  }

  try {
    data = await unpack();
  } catch (error) {
    $("nothing").textContent = `This browser cannot show the records (${error.message}). Use one of 2023 or newer.`;
    $("nothing").hidden = false;
    return;
  }
  for (const button of document.querySelectorAll("[data-set]")) {
    button.addEventListener("click", () => {
      set(button.dataset.set);
      if (!$("tools").contains(button)) $("records").scrollIntoView({ behavior: "smooth" });
    });
  }
  for (const id of ["search", "slice", "mistake", "system", "grader"]) $(id).addEventListener("input", filter);
  $("more").addEventListener("click", more);
  $("clear").addEventListener("click", () => {
    for (const id of ["search", "slice", "mistake"]) $(id).value = "";
    set("verdict=all");
  });
  $("tools").hidden = false;
  filter();
  document.documentElement.dataset.ready = "yes";
})();
