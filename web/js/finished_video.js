// JoyAvatar Stream to Video shows live pictures while it runs and a player when it is done. The host's page shows the one
// or the other, whichever came first, so this clears the player when a run starts and the last live picture when it ends.
// Tried with the host's page 1.35.9, with its drawn nodes and with its newer "Nodes 2.0".
import { app } from "../../../scripts/app.js";

const LIVE_PICTURE = "$$canvas-image-preview";
const PLAYER = "video-preview";

// Pictures and outputs are kept under the node's id, inside a subgraph after the id of that graph.
const keyOf = (node) => (node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id));

// Nodes 2.0 watch a copy of what `app` keeps; there is no public way to it.
const watched = () =>
  document.querySelector("#vue-app")?.__vue_app__?.config.globalProperties.$pinia?._s?.get("nodeOutput");

function forget(kind, node) {
  for (const kept of [app[kind], watched()?.[kind]]) if (kept) delete kept[keyOf(node)];
}

function removeWidget(node, name) {
  const index = node.widgets?.findIndex((widget) => widget.name === name) ?? -1;
  if (index < 0) return;
  node.widgets[index].onRemove?.();
  node.widgets.splice(index, 1);
}

function showLivePictures(node) {
  removeWidget(node, PLAYER);
  node.videoContainer = node.previewMediaType = node.animatedImages = node.images = undefined;
  forget("nodeOutputs", node);
}

function showPlayer(node) {
  removeWidget(node, LIVE_PICTURE);
  node.imgs = undefined;
  node.previewMediaType = "video";
  forget("nodePreviewImages", node);
}

function before(prototype, name, act) {
  const original = prototype[name];
  prototype[name] = function (...values) {
    act(this);
    return original?.apply(this, values);
  };
}

app.registerExtension({
  name: "JoyAvatar.FinishedVideo",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "JoyAvatarStreamToVideo") return;
    before(nodeType.prototype, "onExecutionStart", showLivePictures);
    before(nodeType.prototype, "onExecuted", showPlayer);
  },
});
