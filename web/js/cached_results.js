// Text and pictures of nodes that a run did not visit, since they and all that stands behind them were cached: the host
// sends no `executed` for them, so this pack does, with what they showed in the last run in the history that had the same
// inputs.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { isOurs, nodeOf } from "./nodes.js";

const RUNS = 64; // that are looked through
const TRIES = 10;

const unvisited = new Map(); // id of a run -> ids of this pack's cached nodes
const awaited = new Map(); // id of a finished run -> the same, and how often its entry is still looked for

// A node's inputs and those of all nodes before it, as text.
function ancestry(prompt, id, seen = {}) {
  if (!(id in seen) && prompt[id]) {
    const { class_type, inputs } = prompt[id];
    seen[id] = [class_type, inputs];
    for (const value of Object.values(inputs)) if (Array.isArray(value)) ancestry(prompt, String(value[0]), seen);
  }
  return JSON.stringify(Object.entries(seen).sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function recall(runId, ids, tries) {
  awaited.delete(runId);
  const history = await (await api.fetchApi(`/history?max_items=${RUNS}`)).json();
  const prompt = history[runId]?.prompt?.[2];
  if (!prompt) {
    if (tries > 1) awaited.set(runId, [ids, tries - 1]);
    return;
  }
  const runs = Object.values(history).reverse();
  for (const id of ids) {
    const same = ancestry(prompt, id);
    const run = runs.find(({ outputs, prompt: [, , nodes] }) => outputs[id] && ancestry(nodes, id) === same);
    if (!run || !isOurs(nodeOf(id))) continue;
    api.dispatchCustomEvent("executed", { node: id, display_node: id, output: run.outputs[id], prompt_id: runId });
  }
  app.canvas.setDirty(true, true); // on `executed` alone the page does not draw
}

app.registerExtension({
  name: "joyavatar.CachedResults",
  setup() {
    api.addEventListener("execution_cached", ({ detail }) => {
      const ids = (detail.nodes ?? []).map(String).filter((id) => isOurs(nodeOf(id)));
      if (ids.length) unvisited.set(detail.prompt_id, new Set(ids));
    });
    api.addEventListener("executed", ({ detail }) => unvisited.get(detail.prompt_id)?.delete(String(detail.node)));
    api.addEventListener("execution_success", ({ detail }) => {
      const ids = unvisited.get(detail.prompt_id);
      unvisited.clear();
      if (ids?.size) awaited.set(detail.prompt_id, [ids, TRIES]);
    });
    // The host says how many runs are left when it has written a run's entry, and on other occasions.
    api.addEventListener("status", () => awaited.forEach(([ids, tries], runId) => recall(runId, ids, tries)));
  },
});
