// Text on this pack's nodes: a line while they run, what their result says, and errors in red. The page removes its own
// progress text when a job ends, so this is a DOM widget; cached nodes get their text again with the page's `executed`.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { isOurs, nodeOf, PACK } from "./nodes.js";
import { translated } from "./language.js";

const NAME = "joyavatar_text";
const LOWEST = 24;
const MARGIN = 20; // that the page leaves around a DOM widget
const HIGHEST = 150; // longer texts scroll

function newWidget(node) {
  const box = document.createElement("div");
  box.dataset.testid = NAME;
  box.style.cssText = `overflow:auto;max-height:${HIGHEST}px;grid-column:2/-1`;
  const text = box.appendChild(document.createElement("div"));
  text.style.cssText =
    "box-sizing:border-box;padding:4px 8px;border-radius:6px;font:12px/1.35 sans-serif;white-space:pre-wrap;" +
    "overflow-wrap:anywhere;user-select:text;background:var(--comfy-input-bg,#222)";
  const height = () => Math.min(HIGHEST, Math.max(LOWEST, text.offsetHeight || lines(node, text.textContent) * 16 + 8));
  const widget = node.addDOMWidget(NAME, NAME, box, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => height() + MARGIN,
    getMaxHeight: () => height() + MARGIN,
    getValue: () => text.textContent,
    setValue: () => {},
  });
  widget.serialize = false;
  widget.text = text;
  return widget;
}

// Until the page has laid the box out.
const lines = (node, text) =>
  text.split("\n").reduce((sum, line) => sum + Math.ceil((line.length * 6.6 + 1) / Math.max(80, node.size[0] - 40)), 0);

// In Nodes 2.0, page 1.35.9 misses a widget that is added after a value of its node has changed.
function mountMissed(node, element) {
  if (element.isConnected || node.graph !== app.canvas.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .lg-node-widgets`)?.append(element);
}

function showText(node, text, isError = false) {
  let widget = node.widgets?.find((each) => each.name === NAME);
  if (!widget && !text) return;
  widget ??= newWidget(node);
  widget.text.textContent = text;
  widget.element.style.display = text ? "" : "none";
  widget.text.style.color = isError ? "#ff8080" : "var(--input-text,#ddd)";
  requestAnimationFrame(() => {
    mountMissed(node, widget.element);
    const needed = node.computeSize?.();
    if (needed && needed[1] > node.size[1]) node.setSize([node.size[0], needed[1]]);
    node.graph?.setDirtyCanvas(true, true);
  });
}

// The page's own dialog and panel show this event, too. A listener added while extensions load is called before the
// page's, so what it changes is what they show.
const isOurError = ({ exception_type, node_type }) => exception_type === "AvatarError" || node_type?.startsWith(PACK);
api.addEventListener("execution_error", ({ detail }) => {
  if (isOurError(detail)) detail.exception_message = translated(detail.exception_message.trim());
});

const wordsOf = (output) => output?.text && [output.text].flat().join("\n");

function onOurs(event, act) {
  api.addEventListener(event, ({ detail }) => {
    const node = nodeOf(detail.display_node ?? detail.node ?? detail.node_id);
    if (isOurs(node)) act(node, detail);
  });
}

app.registerExtension({
  name: "joyavatar.NodeText",
  setup() {
    onOurs("joyavatar.text", (node, { text }) => showText(node, translated(text)));
    onOurs("executed", (node, { output }) => showText(node, translated(wordsOf(output) ?? "")));
    onOurs("execution_error", (node, { exception_message }) => showText(node, exception_message, true));
    // The page's own message names the node alone; the sentence says what to do. Native nodes fail with it too.
    api.addEventListener("execution_error", ({ detail }) => {
      if (!isOurError(detail)) return;
      const summary = nodeOf(detail.node_id)?.title ?? detail.node_type;
      app.extensionManager?.toast?.add({ severity: "error", summary, detail: detail.exception_message, life: 20000 });
    });
  },
  // A workflow that is opened again in this page: its results are still known.
  loadedGraphNode(node) {
    if (!isOurs(node)) return;
    requestAnimationFrame(() => {
      const key = node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id);
      const words = wordsOf(app.nodeOutputs?.[key]);
      if (words) showText(node, translated(words));
    });
  },
});
