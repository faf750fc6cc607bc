"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const records = [...document.querySelectorAll(".record")];
  const chips = [...document.querySelectorAll("[data-verdict]")];
  let wanted = "all";

  const verdictMatches = (verdicts, system) =>
    wanted === "all" ||
    (wanted === "differ" ? new Set(verdicts).size > 1 : verdicts[system] === wanted);

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const group = $("group") ? $("group").value : "";
    const system = $("system") ? Number($("system").value) : 0;
    let shown = 0;
    for (const record of records) {
      const text = (record._text ??= record.textContent.toLowerCase());
      const show =
        verdictMatches(record.dataset.verdicts.split(" "), system) &&
        (!group || record.dataset.group === group) &&
        words.every((word) => text.includes(word));
      record.hidden = !show;
      shown += show;
    }
    $("shown").textContent = `${shown} of ${records.length} records`;
    $("nothing").hidden = shown > 0;
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.verdict === wanted));
  }

  for (const chip of chips) chip.addEventListener("click", () => { wanted = chip.dataset.verdict; filter(); });
  for (const id of ["search", "group", "system"]) if ($(id)) $(id).addEventListener("input", filter);
  filter();
})();
