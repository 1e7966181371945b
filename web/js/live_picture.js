// JoyAvatar Stream to Video shows live pictures while it runs and a player when it is done, never both. The page shows
// the one or the other, whichever came first, so this clears the player when the node starts and the last live picture
// when it ends. The page loads a live picture late: one that arrives after the result is not taken. The page tries twice
// to load a video, 8 s each; on a busy machine this takes longer, so it is asked again.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { nodeOf } from "./nodes.js";

const CLASS = "JoyAvatarStreamToVideo";
const LIVE_PICTURE = "$$canvas-image-preview";
const PLAYER = "video-preview";
const GIVEN_UP_MS = 17_000; // after which the page tries no more
const TRIES = 20;

// Pictures and outputs are kept under the node's id, inside a subgraph after the id of that graph.
const keyOf = (node) => (node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id));

// Live pictures are watched in a store of the page; no page up to 1.58.1 has a public way to forget one.
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

const finished = new WeakMap(); // nodes whose result has come -> the result

function showLivePictures(node) {
  finished.delete(node);
  removeWidget(node, PLAYER);
  node.videoContainer = node.previewMediaType = node.animatedImages = node.images = undefined;
  forget("nodeOutputs", node);
}

function showPlayer(node, result) {
  finished.set(node, result);
  removeWidget(node, LIVE_PICTURE);
  node.imgs = undefined;
  node.previewMediaType = "video";
  forget("nodePreviewImages", node);
  setTimeout(loadAgain, GIVEN_UP_MS, node, result, TRIES);
}

// The page loads what differs from `node.images`. Nodes 2.0 load their player without a limit.
function loadAgain(node, result, tries) {
  const shown = node.widgets?.some((widget) => widget.name === PLAYER);
  if (!tries || shown || !node.graph || finished.get(node) !== result || document.querySelector("[data-node-id]")) return;
  node.images = undefined;
  node.graph.setDirtyCanvas(true, true);
  setTimeout(loadAgain, GIVEN_UP_MS, node, result, tries - 1);
}

function refuseLatePictures(node) {
  let images = node.imgs;
  Object.defineProperty(node, "imgs", {
    configurable: true,
    get: () => images,
    set(value) {
      if (!finished.has(node) || !value?.[0]?.src?.startsWith("blob:")) images = value;
    },
  });
}

function on(event, act) {
  api.addEventListener(event, ({ detail }) => {
    const id = detail?.display_node ?? detail?.node ?? detail;
    const node = id && nodeOf(id);
    if (node?.comfyClass === CLASS) act(node, detail);
  });
}

app.registerExtension({
  name: "joyavatar.LivePicture",
  nodeCreated(node) {
    if (node.comfyClass === CLASS) refuseLatePictures(node);
  },
  setup() {
    on("executing", showLivePictures);
    on("executed", showPlayer);
  },
});
