"use strict";
// Files from inputs and dropped folders, and batches below the limits of the service.

const OVERHEAD = 300; // bytes of a multipart part around the content, generously

// Entries of a drop must be taken before the event ends; folders are then read, nested ones too.
async function droppedFiles(transfer, unsent) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => ({ entry: item.webkitGetAsEntry && item.webkitGetAsEntry(), file: item.getAsFile() }));
  const found = [];
  for (const { entry, file } of entries) {
    if (entry) await walk(entry, "", found, unsent);
    else if (file) found.push({ file, name: file.name });
  }
  return found;
}

async function walk(entry, folder, found, unsent) {
  const name = folder + entry.name;
  try {
    if (entry.isFile) {
      found.push({ file: await new Promise((done, fail) => entry.file(done, fail)), name });
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a reader returns at most 100 entries a call
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return;
      for (const one of some) await walk(one, name + "/", found, unsent);
    }
  } catch (error) {
    unsent(name, `The browser cannot read it (${error.name}). Check its permissions and choose it again.`);
  }
}

function chosenFiles(input) {
  return [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

// The files to send; the others are reported with the reason.
function sendable(files, limits, study, unsent) {
  return files.filter(({ file, name }) => {
    const last = name.split("/").pop();
    let why = "";
    if (last.startsWith(".") || last === "Thumbs.db" || last === "desktop.ini") why = "A hidden or system file, not an image.";
    else if (last === "DICOMDIR") why = "The index of a DICOM folder, not an image.";
    else if (!file.size) why = "The file is empty.";
    else if (file.size + OVERHEAD > limits.max_body) why = `${size(file.size)}, the service accepts ${size(limits.max_body)}. Raise --max-body-mb.`;
    else if (!study && /\.zip$/i.test(last)) why = "Zip files are accepted as a study: select the option above and choose it again.";
    if (why) unsent(name, why);
    return !why;
  });
}

function batches(files, limits) {
  const found = [];
  let bytes = Infinity;
  const most = Math.min(limits.max_images, 16); // small: progress is visible, and one image is decoded soon
  for (const one of files) {
    const more = one.file.size + OVERHEAD;
    if (bytes + more > limits.max_body || found[found.length - 1].length >= most) {
      found.push([]);
      bytes = 0;
    }
    found[found.length - 1].push(one);
    bytes += more;
  }
  return found;
}

function size(bytes) {
  return bytes < 1048576 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 1048576).toFixed(1)} MiB`;
}
