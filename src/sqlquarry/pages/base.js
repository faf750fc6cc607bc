"use strict";
// What all pages share. All text becomes text nodes, so that text of a model or a record is never parsed as HTML.
const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => ![null, undefined, false, ""].includes(child)));
  return node;
}

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Comments, strings, quoted names, numbers, words, white space and signs that all dialects have in common.
const TOKEN = new RegExp([
  "(?<c>--[^\\n]*|/\\*[^]*?(?:\\*/|$))", "(?<s>'(?:[^']|'')*(?:'|$))", "(?<q>\"[^\"]*(?:\"|$)|`[^`]*(?:`|$))",
  "(?<n>\\b\\d[\\w.]*)", "(?<w>(?:ORDER|GROUP|PARTITION)\\s+BY\\b|[\\p{L}_][\\p{L}\\p{N}_$]*)",
  "(?<b>\\s+)", "[<>=!|:]+", "[^]"].join("|"), "giu");
const KEYWORDS = new Set(`ADD ALL ALTER AND AS ASC BETWEEN BY CASE CHECK COLLATE CREATE CROSS DEFAULT DELETE DESC DISTINCT
  DROP ELSE END ESCAPE EXCEPT EXISTS FALSE FETCH FILTER FOR FOREIGN FROM FULL GLOB GROUP HAVING ILIKE IN INNER INSERT
  INTERSECT INTERVAL INTO IS JOIN KEY LATERAL LEFT LIKE LIMIT NATURAL NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER
  PARTITION PRIMARY QUALIFY RECURSIVE REFERENCES RIGHT ROWS SELECT SET TABLE THEN TRUE UNION UNIQUE UPDATE USING VALUES
  VIEW WHEN WHERE WINDOW WITH`.split(/\s+/));

function tokens(text) {
  const found = [...text.matchAll(TOKEN)].map((match) => {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined) ?? "";
    return { text: match[0], kind, key: kind === "s" ? match[0] : match[0].toUpperCase().replace(/\s+/g, " ") };
  });
  found.forEach((token, i) => {
    if (token.kind === "q") token.kind = "";
    if (token.kind !== "w") return;
    token.kind = KEYWORDS.has(token.key.split(" ")[0]) ? "k" : found[i + 1]?.text === "(" ? "f" : "";
  });
  return found;
}

function sql(found) {
  const box = make("pre");
  for (const { text, kind, changed } of found) {
    const plain = !kind || kind === "b";
    if (!changed && plain) box.append(text);
    else box.append(make(changed ? "mark" : "span", plain ? "" : kind, text));
  }
  return box;
}

const folded = (title, content) => make("details", "more", make("summary", "", title), content);
