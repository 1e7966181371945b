// %date:yyyy-MM-dd% and %Node.widget% in the prefix of JoyAvatar Stream to Video: the page fills them in for its own save
// nodes only.
import { app } from "../../../scripts/app.js";

app.registerExtension({
  name: "joyavatar.FileNames",
  nodeCreated(node) {
    if (node.comfyClass !== "JoyAvatarStreamToVideo") return;
    const prefix = node.widgets?.find((widget) => widget.name === "filename_prefix");
    const fill = window.comfyAPI?.utils?.applyTextReplacements;
    if (prefix && fill) prefix.serializeValue = () => fill(app.graph, String(prefix.value ?? ""));
  },
});
