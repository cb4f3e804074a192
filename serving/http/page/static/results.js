"use strict";
// Results as elements. Text is only ever set as text: names of files are not trusted.

function element(tag, text, name) {
  const one = document.createElement(tag);
  if (text !== undefined) one.textContent = text;
  if (name) one.className = name;
  return one;
}

function heading(result) {
  const words = { ok: "ok", abstained: "abstained: no class is given", rejected: "rejected: no class is given" };
  const line = element("p");
  if (result.label) line.append(element("strong", result.label), " ");
  line.append(element("span", words[result.status] || result.status, result.status));
  return line;
}

function bars(probabilities) {
  const table = element("table");
  table.append(element("caption", "Probability of each class"));
  for (const [label, value] of Object.entries(probabilities || {})) {
    const percent = `${(value * 100).toFixed(1)} %`;
    const row = table.insertRow();
    const head = element("th", label);
    head.scope = "row";
    const track = element("span", undefined, "track");
    track.setAttribute("role", "img");
    track.setAttribute("aria-label", `${label}: ${percent}`);
    const bar = element("span");
    bar.style.width = `${value * 100}%`;
    track.append(bar);
    row.append(head);
    row.insertCell().append(track);
    row.insertCell().textContent = percent;
  }
  return table.rows.length ? table : "";
}

function guardScores(guard, thresholds) {
  const scores = Object.entries(guard && typeof guard === "object" ? guard : {}).map(([name, value]) => {
    const limit = thresholds[name];
    return `${name} ${value.toPrecision(3)}` + (limit === undefined ? "" : ` (limit ${limit.toPrecision(3)})`);
  });
  if (scores.length) return element("p", `Guard scores: ${scores.join(", ")}`, "quiet");
  return element("p", guard === "none" ? "The model has no guard." : "No guard scores.", "quiet");
}

function thumbnail(file) {
  const tile = element("div", "no preview", "tile");
  if (!file || !/\.(png|jpe?g|bmp|gif|webp)$/i.test(file.name)) return tile;
  const image = element("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => { URL.revokeObjectURL(image.src); image.replaceWith(tile); };
  return image;
}

function card(name, file, result, thresholds) {
  const one = element("article");
  const body = element("div", undefined, "image");
  const text = element("div");
  text.append(heading(result));
  if (result.reason) text.append(element("p", result.reason));
  text.append(guardScores(result.guard, thresholds));
  for (const warning of result.warnings || []) text.append(element("p", `Warning: ${warning}`, "abstained"));
  body.append(thumbnail(file), text);
  one.append(element("h3", name), body, bars(result.probabilities));
  return one;
}

function studyCard(result) {
  const one = element("article");
  one.append(element("h3", "The study"), heading(result));
  if (result.reason) one.append(element("p", result.reason));
  const agreement = typeof result.agreement === "number" ? ` ${(result.agreement * 100).toFixed(0)} % of them agree.` : "";
  one.append(element("p", `${result.used.length} slices used, ${result.rejected.length} rejected.${agreement}`));
  one.append(bars(result.probabilities));
  return one;
}
