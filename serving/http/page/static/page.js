"use strict";
// Sends files to the service of this page, and shows its answers.

const at = (id) => document.getElementById(id);
let token = "";
let settings = null;
let running = null; // AbortController of the current run
let waiting = null; // files that wait for a token

class Failure extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

function say(text) { at("state").textContent = text; }

function unsent(name, why) {
  at("problems").hidden = false;
  const line = element("li");
  line.append(element("strong", name), `: ${why}`);
  at("unsent").append(line);
}

function pause(seconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); fail(new DOMException("", "AbortError")); });
  });
}

const NEXT = {
  401: "The token is missing or wrong. Enter it above.",
  403: "The service does not accept requests under this host name. See --allow-host.",
  408: "Sending took too long. Choose fewer files, or raise --body-timeout-s.",
  413: "More data than the service accepts. Choose fewer or smaller files, or raise --max-body-mb.",
  415: "The service does not accept this kind of request. Reload the page.",
  429: "Too many requests. Choose the files again later.",
  503: "The service is busy or not ready. Choose the files again later.",
  504: "The answer took too long. Choose fewer files, or raise --timeout-s.",
};

// The JSON of a response. 429 and 503 are sent again, as the service says, three times at most.
async function call(path, signal, makeBody) {
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      response = await fetch(path, { method: makeBody ? "POST" : "GET", body: makeBody && makeBody(), headers, signal });
      if (response.ok) return await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The service cannot be reached, or a file changed after it was chosen. Check that the service runs, then choose the files again.", 0);
    }
    const { status } = response;
    if ((status === 503 || status === 429) && attempt < 3) {
      const seconds = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), 30);
      say(`The service is busy or not ready. Sending again in ${seconds} s.`);
      await pause(seconds, signal);
      continue;
    }
    const text = await response.json().then((found) => found.error, () => "");
    throw new Failure(`${NEXT[status] || "The service refused the request."} (${status}${text ? `: ${text}` : ""})`, status);
  }
}

function form(files) {
  const data = new FormData();
  // Names may identify a patient: they stay here. The service does not use them but for zip files.
  files.forEach(({ file }, index) => data.append("file", file, `image-${String(index + 1).padStart(4, "0")}`));
  return data;
}

async function connect(signal) {
  settings = await call("page/settings", signal);
  at("access").hidden = true;
  const list = at("model");
  list.replaceChildren();
  const rows = [["Model", settings.name], ["Digest of the weights (SHA-256)", settings.model_digest], ["Digest of the bundle (SHA-256)", settings.bundle_digest], ["Classes", settings.labels.join(", ")]];
  for (const [name, value] of rows) list.append(element("dt", name), element("dd", value));
}

function failed(error, files) {
  if (error.status === 401) {
    waiting = files;
    at("access").hidden = false;
    at("token").focus();
    say(NEXT[401]);
    return;
  }
  const why = error.name === "AbortError" ? "Cancelled before there was a result. Choose it again to send it." : error.message;
  files.forEach(({ name }) => unsent(name, why));
}

async function sendImages(files, signal, done) {
  const queue = batches(files, settings);
  for (let index = 0; index < queue.length; index++) {
    const batch = queue[index];
    try {
      const found = await call("predict", signal, () => form(batch));
      found.forEach((result, i) => at("results").append(card(batch[i].name, batch[i].file, result, settings.thresholds)));
    } catch (error) {
      const over = error.name === "AbortError" || error.status === 401 || error.status === 0;
      failed(error, over ? queue.slice(index).flat() : batch);
      if (over) return;
    }
    done(batch.length);
  }
}

async function sendStudy(files, signal, done) {
  const bytes = files.reduce((sum, { file }) => sum + file.size + OVERHEAD, 0);
  if (files.length > settings.max_images || bytes > settings.max_body) {
    const why = `A study is one request: ${files.length} files, ${size(bytes)}; the service accepts ${settings.max_images} images and ${size(settings.max_body)}. Choose fewer slices, or raise --max-images, --queue-images and --max-body-mb.`;
    files.forEach(({ name }) => unsent(name, why));
    return;
  }
  try {
    const found = await call("studies", signal, () => form(files));
    at("answer").append(studyCard(found));
    const sent = new Map(files.map((one, i) => [`image-${String(i + 1).padStart(4, "0")}`, one]));
    found.slices.forEach((result, i) => {
      const one = sent.get(found.files[i]); // absent: a member of a zip file
      at("results").append(card(one ? one.name : found.files[i], one && one.file, result, settings.thresholds));
    });
    for (const [kind, count] of Object.entries(found.skipped)) unsent(`${count} in zip files`, kind);
    done(files.length);
  } catch (error) {
    failed(error, files);
  }
}

async function run(collect) {
  if (running) {
    (await collect()).forEach(({ name }) => unsent(name, "Other files were being sent. Choose it again when they are done."));
    return;
  }
  const { signal } = (running = new AbortController());
  for (const id of ["unsent", "results", "answer"]) at(id).replaceChildren();
  at("problems").hidden = at("results-title").hidden = true;
  at("cancel").hidden = at("progress").hidden = false;
  at("progress").value = 0;
  for (const { name } of waiting || []) unsent(name, "Not sent: other files were chosen before the token was entered. Choose it again.");
  waiting = null;
  let files = [];
  try {
    files = await collect();
    await connect(signal); // each time: the service may have replaced its bundle
    const study = at("study").checked;
    const good = sendable(files, settings, study, unsent);
    at("progress").max = Math.max(good.length, 1);
    let count = 0;
    const done = (more) => {
      count += more;
      at("progress").value = count;
      say(`${count} of ${good.length} files done.`);
    };
    say(`Sending ${good.length} files.`);
    if (good.length) await (study ? sendStudy : sendImages)(good, signal, done);
  } catch (error) {
    failed(error, files);
  } finally {
    running = null;
    at("cancel").hidden = at("progress").hidden = true;
    const shown = at("results").children.length;
    at("results-title").hidden = !shown;
    if (!waiting) say(`${shown} results, ${at("unsent").children.length} files without a result.`);
  }
}

for (const id of ["files", "folder"]) {
  at(id).addEventListener("change", () => {
    const files = chosenFiles(at(id));
    at(id).value = ""; // the same files can be chosen again
    if (files.length) run(async () => files);
  });
}
at("cancel").addEventListener("click", () => running && running.abort());
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  const files = waiting || [];
  waiting = null;
  if (files.length) run(async () => files);
  else start();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  // On the whole page: a file dropped beside the zone must not replace the page.
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.items.length) {
      const late = []; // reported once the list of the last run is cleared
      const files = droppedFiles(event.dataTransfer, (...why) => late.push(why));
      run(async () => { const found = await files; late.forEach((why) => unsent(...why)); return found; });
    }
  });
}

async function start() {
  try {
    await connect(new AbortController().signal);
    say("");
  } catch (error) {
    if (error.status === 401) failed(error, []);
    else say(error.message);
  }
}
start();
