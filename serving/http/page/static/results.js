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
  const scores = Object.entries(guard && typeof guard === "object" ? guard : {});
  if (!scores.length) return element("p", guard === "none" ? "The model has no guard." : "No guard scores.", "quiet");
  const ratio = ([name, value]) => (thresholds[name] > 0 ? value / thresholds[name] : 0);
  const worst = scores.reduce((one, other) => (ratio(other) > ratio(one) ? other : one));
  const details = element("details", undefined, "quiet");
  details.append(element("summary", `Guard: ${worst[0]} score is highest, ${ratio(worst).toFixed(2)} of its limit`));
  const list = element("ul");
  for (const [name, value] of scores) {
    const limit = thresholds[name] === undefined ? "" : ` (limit ${thresholds[name].toPrecision(3)})`;
    list.append(element("li", `${name} ${value.toPrecision(3)}${limit}`));
  }
  details.append(list);
  return details;
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
