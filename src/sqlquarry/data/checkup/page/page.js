(async () => {
  const FIRST = 5, MORE = 25;
  const sections = [...document.querySelectorAll(".kind")];
  const chips = [...document.querySelectorAll("button[data-severity]")];
  const names = sections.map((section) => section.id);

  function one(number, here) {
    const record = data.records[number];
    const find = (id) => {
      const button = make("button", "jump", id);
      button.type = "button";
      button.title = "show all findings about this record";
      button.addEventListener("click", () => { clear(); $("search").value = `id:${id}`; filter(); toTop(); });
      return button;
    };
    const also = record.kinds.filter((kind) => kind !== here).map((kind) => names[kind]);
    return make("div", "one", make("div", "head", find(record.id), make("span", "question", record.question)),
      record.notes && make("p", "note", record.notes),
      ...record.golds.map((text, i) => i ? make("div", "", make("p", "note", "also accepted"), sql(tokens(text))) : sql(tokens(text))),
      (record.database || also.length > 0) && make("p", "note", [record.database && `database ${record.database}`,
        also.length > 0 && `also ${also.join(", ")}`].filter(Boolean).join(" · ")),
      folded("schema", sql(tokens(data.schemas[record.schema]))));
  }

  function item(finding, here) {
    const members = finding.records.map((number) => one(number, here));
    const count = members.length + finding.more;
    const detail = make("div", "detail", finding.detail && make("p", "", finding.detail),
      count > 1 && make("p", "note", `${count.toLocaleString("en")} records`));
    if (!members.length) return make("article", "finding plain", detail);
    return make("article", "finding", make("div", "records", ...members,
      finding.more > 0 && make("p", "note", `and ${finding.more.toLocaleString("en")} more`)), detail);
  }

  const packed = $("data").children;
  let data;
  try {
    data = await unpack(packed[0]);
  } catch (error) {
    $("nothing").textContent = `This browser cannot show the records (${error.message}). Use a browser from 2023 or later.`;
    $("nothing").hidden = false;
    return;
  }
  // The searched text of each finding.
  const texts = data.findings.map((findings, here) => findings.map((finding) => [names[here], finding.detail,
    ...finding.records.flatMap((number) => {
      const record = data.records[number];
      return [record.id, record.question, record.notes, record.database, ...record.golds];
    })].join("\n").toLowerCase()));

  let severity = "all";
  const found = [];

  function more(here, count) {
    const list = sections[here].querySelector(".list");
    const from = list.childElementCount;
    list.append(...found[here].slice(from, from + count).map((place) => item(data.findings[here][place], here)));
    sections[here].querySelector(".end").hidden = list.childElementCount >= found[here].length;
  }

  // "id:" finds the findings about one record. Otherwise, a finding must contain all words.
  function matcher(text) {
    if (text.startsWith("id:")) {
      return (here, place) => data.findings[here][place].records.some((number) => data.records[number].id === text.slice(3));
    }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (here, place) => words.every((word) => texts[here][place].includes(word));
  }

  function filter() {
    const text = $("search").value.trim();
    const matches = matcher(text);
    const kind = $("kind").value;
    const counts = { all: 0 };
    let total = 0, shown = 0;
    sections.forEach((section, here) => {
      const matching = kind && section.id !== kind ? [] : data.findings[here].map((_, place) => place)
        .filter((place) => matches(here, place));
      const own = section.dataset.severity;
      total += data.findings[here].length;
      counts.all += matching.length;
      counts[own] = (counts[own] ?? 0) + matching.length;
      found[here] = severity === "all" || severity === own ? matching : [];
      shown += found[here].length;
      section.hidden = found[here].length === 0;
      section.querySelector(".list").replaceChildren();
      more(here, FIRST);
    });
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(chip.dataset.severity === severity));
      chip.querySelector("small").textContent = (counts[chip.dataset.severity] ?? 0).toLocaleString("en");
    }
    $("shown").textContent = `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} ${$("shown").dataset.what}`;
    $("nothing").hidden = shown > 0 || total === 0;
    $("clear").hidden = severity === "all" && !kind && !text;
  }

  function clear() {
    severity = "all";
    for (const id of ["search", "kind"]) $(id).value = "";
  }
  const toTop = () => $("findings").scrollIntoView();

  sections.forEach((section, here) => section.querySelector(".end button").addEventListener("click", () => more(here, MORE)));
  for (const chip of chips) chip.addEventListener("click", () => { severity = chip.dataset.severity; filter(); });
  for (const id of ["search", "kind"]) $(id).addEventListener("input", filter);
  $("clear").addEventListener("click", () => { clear(); filter(); });
  // A link to a section that the filter hides would lead nowhere.
  for (const link of document.querySelectorAll("a.row")) link.addEventListener("click", () => { clear(); filter(); });
  $("tools").hidden = false;
  filter();
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
  document.documentElement.dataset.ready = "yes";
})();
