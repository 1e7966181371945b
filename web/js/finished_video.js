// JoyAvatar Stream to Video shows live pictures while it runs and a player when it is done. The host's page shows the one
// or the other, whichever came first, so this clears the player when a run starts and the last live picture when it ends.
import { app } from "../../../scripts/app.js";

const LIVE_PICTURE = "$$canvas-image-preview";
const PLAYER = "video-preview";

// Pictures and outputs are kept under the node's id, inside a subgraph after the id of that graph.
const keyOf = (node) => (node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : node.id);

function removeWidget(node, name) {
  const index = node.widgets?.findIndex((widget) => widget.name === name) ?? -1;
  if (index < 0) return;
  node.widgets[index].onRemove?.();
  node.widgets.splice(index, 1);
}

function showLivePictures(node) {
  removeWidget(node, PLAYER);
  node.videoContainer = node.previewMediaType = node.animatedImages = node.images = undefined;
  if (app.nodeOutputs) delete app.nodeOutputs[keyOf(node)];
}

function showPlayer(node) {
  removeWidget(node, LIVE_PICTURE);
  node.imgs = undefined;
  if (app.nodePreviewImages) delete app.nodePreviewImages[keyOf(node)];
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
