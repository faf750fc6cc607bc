(async () => {
  const AT_ONCE = 100, READ_AT_ONCE = 5;
  const MARKS = { correct: "✓", wrong: "✗", unjudged: "?" };
  const chips = [...document.querySelectorAll("[data-verdict]")];
  const LONGEST_DIFFERENCE = 2000; // tokens, because the time of a comparison is the product of both numbers

  // Mark the tokens in each query that the other one lacks (all but the longest common subsequence).
  function difference(first, second) {
    const counts = (token) => token.kind !== "b" && token.kind !== "c";
    let a = first.filter(counts), b = second.filter(counts);
    if (Math.max(a.length, b.length) > LONGEST_DIFFERENCE) return;
    while (a.length && b.length && a[0].key === b[0].key) { a.shift(); b.shift(); }
    while (a.length && b.length && a.at(-1).key === b.at(-1).key) { a.pop(); b.pop(); }
    const width = b.length + 1;
    const longest = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        longest[i * width + j] = a[i].key === b[j].key ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < a.length || j < b.length;) {
      if (i < a.length && j < b.length && a[i].key === b[j].key) { i++; j++; }
      else if (j >= b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) a[i++].changed = true;
      else b[j++].changed = true;
    }
  }

  const badge = (verdict, text) => make("span", `verdict ${verdict}`, `${MARKS[verdict] ?? ""} ${text}`);

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

  function body(place, record, schemas) {
    const last = record.answers.at(-1);
    const slices = Object.entries(index.slices).filter(([, buckets]) => buckets[place] !== null)
      .map(([name, buckets]) => `${name}: ${buckets[place]}`);
    const gold = tokens(record.gold);
    const predicted = record.answers.map((answer) => tokens(answer.sql));
    // Without a gold query there is nothing to compare with.
    if (record.gold) predicted.forEach((found, i) => difference(i < predicted.length - 1 ? tokens(record.gold) : gold, found));
    const reference = make("section", "gold", make("h4", "", "Gold"),
      record.gold ? sql(gold) : make("p", "note", "no gold SQL"),
      ...record.alternatives.map((text) => make("div", "", make("p", "note", "also accepted"), sql(tokens(text)))),
      result(record.result, last.result),
      make("p", "note", [...record.meta.filter((text) => !slices.includes(`database: ${text}`)), ...slices].join(" · ")),
      folded("schema", sql(tokens(schemas[record.schema]))));
    const answers = record.answers.map((answer, i) => make("section", "", make("h4", "", index.systems[i]),
      answer.sql ? sql(predicted[i]) : make("p", "note", "no SQL in the answer"),
      ...index.graders.map((name, g) => make("p", "", badge(verdict(place, i, g), name), " ", answer.reasons[g])),
      index.mistakes[i][place] && make("p", "note", `error class: ${index.mistakes[i][place]}`),
      answer.cut ? make("p", "", make("span", "verdict cut", "cut at the token limit")) : null,
      answer.reasons.some((reason) => answer.result?.error && reason.includes(answer.result.message))
        ? null : result(answer.result, record.result),
      answer.whole && folded("full answer", make("pre", "", answer.whole))));
    return make("div", "body", reference, ...answers);
  }

  function row(place) {
    const badges = index.systems.map((name, i) =>
      badge(verdict(place, i, grader()), index.systems.length > 1 ? name : verdict(place, i, grader())));
    const mistake = index.mistakes[system()][place];
    const item = make("details", "record", make("summary", "", make("span", "place", String(place + 1)),
      make("span", "question", index.questions[place]), mistake && make("span", "tag", mistake), ...badges));
    item.addEventListener("toggle", async () => {
      const { records, schemas } = await portion(Math.floor(place / index.portion));
      if (item.childElementCount === 1) item.append(body(place, records[place % index.portion], schemas));
    });
    return item;
  }

  // A portion of the records is unpacked once, when one of its records is opened.
  const unpacked = [];
  const portion = (number) => (unpacked[number] ??= unpack(packed[number + 1]));

  const system = () => Number($("system").value);
  const grader = () => Number($("grader").value);
  const VERDICTS = { c: "correct", w: "wrong", u: "unjudged" };
  const verdict = (place, i, g) => VERDICTS[index.verdicts[i][g][place]];

  // The searched text of each record, which is empty before the first search.
  const texts = [];
  async function read() {
    for (let number = 0; number < packed.length - 1; number++) {
      if (texts[number * index.portion] !== undefined) continue;
      (await portion(number)).records.forEach((record, i) => {
        const place = number * index.portion + i;
        texts[place] = [index.questions[place], record.gold, ...record.meta, ...record.alternatives,
          ...index.mistakes.map((found) => found[place]), ...record.answers.flatMap((a) => [a.sql, a.whole, ...a.reasons]),
        ].join("\n").toLowerCase();
      });
    }
  }

  const has = {
    all: () => true,
    fixed: ([first, , last]) => first === "wrong" && last === "correct",
    broken: ([first, , last]) => first === "correct" && last === "wrong",
    disagree: (_, verdicts) => verdicts.includes("correct") && verdicts.includes("wrong"),
  };
  function matches(place, wanted) {
    const of = (i) => verdict(place, i, grader());
    const test = has[wanted] ?? (() => of(system()) === wanted);
    return test([of(0), of(system()), of(index.systems.length - 1)], index.graders.map((_, g) => verdict(place, system(), g)));
  }

  let wanted = "all";
  let found = [];
  let index;
  let searches = 0;

  async function search() {
    const mine = ++searches;
    if ($("search").value.trim() && texts.length < index.questions.length) {
      $("shown").textContent = "loading the records …";
      await read();
    }
    if (mine === searches) filter();
  }

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const slice = $("slice").value, mistake = $("mistake").value;
    const rest = index.questions.map((_, place) => place).filter((place) =>
      (!slice || Object.entries(index.slices).some(([name, buckets]) => `${name}: ${buckets[place]}` === slice)) &&
      (!mistake || index.mistakes[system()][place] === mistake) && words.every((word) => texts[place].includes(word)));
    found = rest.filter((place) => matches(place, wanted));
    for (const chip of chips) {
      const verdict = chip.dataset.verdict;
      chip.setAttribute("aria-pressed", String(verdict === wanted));
      chip.querySelector("small").textContent = rest.filter((place) => matches(place, verdict)).length;
    }
    $("shown").textContent = `${found.length} of ${index.questions.length} records`;
    $("nothing").hidden = found.length > 0;
    $("clear").hidden = wanted === "all" && !slice && !mistake && !words.length;
    $("list").replaceChildren();
    more();
  }

  function more() {
    const shown = $("list").childElementCount;
    $("list").append(...found.slice(shown, shown + AT_ONCE).map(row));
    $("end").hidden = $("list").childElementCount >= found.length;
  }

  function set(change) {
    const [name, ...value] = change.split("=");
    if (name === "verdict") wanted = value[0];
    else $(name).value = value.join("=");
    search();
  }

  const packed = [...$("data").children];
  try {
    index = await unpack(packed[0]);
    if (packed.length <= READ_AT_ONCE) await read();
  } catch (error) {
    $("nothing").textContent = `This browser cannot show the records (${error.message}). Use a browser from 2023 or later.`;
    $("nothing").hidden = false;
    return;
  }
  for (const button of document.querySelectorAll("[data-set]")) {
    button.addEventListener("click", () => {
      set(button.dataset.set);
      if (!$("tools").contains(button)) $("records").scrollIntoView({ behavior: "smooth" });
    });
  }
  for (const id of ["search", "slice", "mistake", "system", "grader"]) $(id).addEventListener("input", search);
  $("more").addEventListener("click", more);
  $("clear").addEventListener("click", () => {
    for (const id of ["search", "slice", "mistake"]) $(id).value = "";
    set("verdict=all");
  });
  $("tools").hidden = false;
  filter();
  document.documentElement.dataset.ready = "yes";
})();
