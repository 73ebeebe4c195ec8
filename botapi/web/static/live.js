// Follows a task's output on its page: asks for what is behind the offset, appends it as text.
// Without this script the page shows the same after a reload.
"use strict";
const HELD_S = 15;
const KEPT_CHARS = 400000;
const output = document.getElementById("output");
const live = document.getElementById("live");

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) =>
    document.addEventListener("visibilitychange", () => done(), { once: true }));
}

function append(text) {
  const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  output.append(document.createTextNode(text));
  document.getElementById("nothing")?.remove();
  while (output.textContent.length > KEPT_CHARS && output.childNodes.length > 1) {
    output.firstChild.remove();
  }
  if (atEnd) output.scrollTop = output.scrollHeight;
}

async function follow() {
  let offset = Number(output.dataset.offset);
  let retry = 1000;
  live.textContent = "live";
  output.scrollTop = output.scrollHeight;
  for (;;) {
    await visible();
    try {
      const reply = await fetch(`${output.dataset.url}?offset=${offset}&wait=${HELD_S}`);
      if (reply.status === 401 || reply.status === 404) break;
      if (!reply.ok) throw new Error(String(reply.status));
      const text = await reply.text();
      if (text) append(text);
      else await pause(500);
      offset = Number(reply.headers.get("X-Skep-Next-Offset"));
      const state = reply.headers.get("X-Skep-Task-State");
      live.textContent = state === output.dataset.state ? "live" : `live: ${state}, refresh for more`;
      if (reply.headers.get("X-Skep-Final") === "1") {
        live.textContent = `${state}: refresh to see how it ended`;
        return;
      }
      retry = 1000;
    } catch {
      live.textContent = "the server does not answer, trying again";
      await pause(retry);
      retry = Math.min(retry * 2, 10000);
    }
  }
  live.textContent = "not live: reload the page";
}

if (output?.dataset.url) follow();
