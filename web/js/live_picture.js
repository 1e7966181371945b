// JoyAvatar Stream to Video shows live pictures while it runs and a player when it is done, never both. Classic nodes:
// the page loads a live picture late, so one that arrives after the result is not taken. Nodes 2.0: a style rule hides
// the one that is not due.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { nodeOf } from "./nodes.js";

const CLASS = "JoyAvatarStreamToVideo";
const LIVE_PICTURE = "$$canvas-image-preview";
const PLAYER = "video-preview";

const keyOf = (node) => (node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id));

const style = document.head.appendChild(document.createElement("style"));
const due = new Map(); // node id -> "player" or "picture"

function applyStyle() {
  style.textContent = [...due]
    .map(([id, what]) => {
      const node = `[data-node-id="${CSS.escape(String(id))}"]`;
      return what === "player"
        ? `${node} img[src^="blob:"], ${node} img[src^="blob:"] + div { display: none !important }`
        : `${node} div:has(> video) { display: none !important }`;
    })
    .join("\n");
}

function removeWidget(node, name) {
  const index = node.widgets?.findIndex((widget) => widget.name === name) ?? -1;
  if (index < 0) return;
  node.widgets[index].onRemove?.();
  node.widgets.splice(index, 1);
}

const isLive = (images) => images?.[0]?.src?.startsWith("blob:");

function show(node, what) {
  due.set(node.id, what);
  applyStyle();
  if (what === "player") {
    removeWidget(node, LIVE_PICTURE);
    node.imgs = undefined;
    node.previewMediaType = "video";
    delete app.nodePreviewImages?.[keyOf(node)];
  } else {
    removeWidget(node, PLAYER);
    node.videoContainer = node.previewMediaType = node.animatedImages = node.images = node.imgs = undefined;
    delete app.nodeOutputs?.[keyOf(node)];
  }
}

app.registerExtension({
  name: "JoyAvatar.LivePicture",
  nodeCreated(node) {
    if (node.comfyClass !== CLASS) return;
    let images = node.imgs;
    Object.defineProperty(node, "imgs", {
      configurable: true,
      get: () => images,
      set(value) {
        if (due.get(node.id) === "player" && isLive(value)) return;
        images = value;
      },
    });
    const removed = node.onRemoved;
    node.onRemoved = function (...values) {
      due.delete(node.id);
      applyStyle();
      return removed?.apply(this, values);
    };
  },
  setup() {
    api.addEventListener("executing", ({ detail }) => {
      const node = detail && nodeOf(detail.display_node ?? detail.node ?? detail);
      if (node?.comfyClass === CLASS) show(node, "picture");
    });
    api.addEventListener("executed", ({ detail }) => {
      const node = nodeOf(detail.display_node ?? detail.node);
      if (node?.comfyClass === CLASS) show(node, "player");
    });
  },
});
